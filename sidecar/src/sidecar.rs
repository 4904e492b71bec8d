//! The sidecar as one thing: the durable record, what is known only in memory, and the flow that follows from both.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processhub_protocol::contract::Info;
use processhub_protocol::fence::{self, Record, Role};
use processhub_protocol::id::{BootId, Epoch, RecordId, Seq};
use processhub_protocol::lease::Lease;
use processhub_protocol::wire::{Addressee, Challenge, Failure, Peer, Token};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoints, Exposure};
use crate::client::Client;
use crate::clock::{Clock, random_boot, random_id};
use crate::commands::Commands;
use crate::config::Config;
use crate::fence::{Fence, Found};
use crate::hold::{Flow, Hold, Successor};
use crate::keeper::Keeper;
use crate::metrics::Metrics;
use crate::net::Net;
use crate::peer::Peers;
use crate::replica::{Holders, Shelves};
use crate::worker::Worker;

/// One sidecar.
pub struct Sidecar {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) boot: BootId,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) keeper: Keeper,
    pub(crate) client: Client,
    pub(crate) worker: Worker,
    pub(crate) peers: Peers,
    pub(crate) hold: Hold,
    pub(crate) metrics: Metrics,
    pub(crate) commands: Commands,
    pub(crate) checkpoints: Checkpoints,
    /// With whom this pod's state is.
    pub(crate) holders: Holders,
    /// The replicas of other processes that are here.
    pub(crate) shelves: Shelves,
    /// Wakes the supervisor of the worker.
    pub(crate) kick: Notify,
    /// The end of this sidecar.
    pub(crate) down: CancellationToken,
    live: Mutex<Live>,
    changed: watch::Sender<u64>,
}

/// What is known only in memory.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The worker as last seen.
    pub(crate) worker: Seen,
    /// The contract's version that it speaks, if that is not ours.
    pub(crate) foreign_contract: Option<u32>,
    /// Whether it can hand over; unknown until it has answered.
    pub(crate) can_hand_over: Option<bool>,
    /// The epoch at which the worker has said that it serves.
    pub(crate) ready: Option<Epoch>,
    /// The epoch at which a worker of this pod was activated: one that is activated again there has crashed.
    pub(crate) activated: Option<Epoch>,
    /// The start of the worker that serves at `ready`, as far as it was seen: only from it comes the process's state.
    pub(crate) holder: Option<String>,
    /// The start of the worker that holds the record's state, given by this sidecar.
    pub(crate) delivered: Option<String>,
    /// A start of the worker that turned out not to hold the state that it was thought to hold.
    pub(crate) empty: Option<String>,
    /// The successor has said that it serves; also before that is on disk.
    pub(crate) forward_to: Option<(Epoch, Peer)>,
    /// A freeze has stopped the flow, or tries to.
    pub(crate) fenced: Option<Fenced>,
    /// The lease by which it serves, where it serves by lease.
    pub(crate) lease: Option<Lease>,
    /// Clock at which the freeze was complete.
    pub(crate) frozen_since: Option<u64>,
    /// Clock at which this pod began to serve at its present epoch.
    pub(crate) serving_since: Option<u64>,
    /// What was answered and may be in no state on disk.
    pub(crate) exposure: Exposure,
    /// The last grant was a thaw.
    pub(crate) thawed: bool,
    /// The worker does not do what it must; its liveness probes are answered by itself or not at all.
    pub(crate) stuck: bool,
    /// The move for which a copy of the state was offered to the worker, as far as there was one.
    pub(crate) tried: Option<Epoch>,
    pub(crate) failure: Option<Failure>,
    pub(crate) blackout_microseconds: Option<u64>,
    /// How many `preStop` hooks wait here.
    pub(crate) stopping: usize,
    /// A `preStop` hook was told that the worker may be stopped.
    pub(crate) released: bool,
    /// The worker has ended with its pod.
    pub(crate) ended: bool,
    /// No more requests.
    pub(crate) closed: bool,
}

/// A stop of the flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fenced {
    /// When requests began to be held: the blackout counts from here.
    pub(crate) since: Instant,
}

/// The worker as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It does not answer (yet).
    #[default]
    Nothing,
    /// It serves clients and knows no contract.
    Plain,
    /// What it says.
    Contract(Info),
}

impl Sidecar {
    /// Reads the record and the kept states, or mints a record. Opens no socket yet.
    ///
    /// # Errors
    /// When the disk or the randomness fails.
    pub fn open(config: Config, net: Arc<dyn Net>, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<Self>> {
        let keeper = Keeper::open(&config.state_dir)?;
        let shelves = Shelves::new(&config.state_dir);
        let first =
            Record::first(RecordId(random_id()?), config.process.clone(), config.pod.clone(), config.born);
        let (fence, found) = Fence::open(&config.state_dir, first, |record| whole(record, &keeper))?;
        let (record, number) = newest(&fence, &keeper)?;
        tracing::info!(
            role = record.role.name(), floor = %record.floor.epoch, record = %record.record,
            "{}", match found {
                Found::Kept => "goes on from its record",
                Found::First => "starts with a new record",
                Found::Lost => "the record on disk was torn, damaged or of another pod: starts with a new one, in \
                                Standby; the operator recovers the process",
            }
        );
        let client = Client::new(Arc::clone(&net));
        let live = Live {
            frozen_since: matches!(record.role, Role::Frozen { .. }).then(|| clock.milliseconds()),
            // A checkpoint is proof that a worker was active.
            activated: record.role.active().filter(|_| number > 0),
            exposure: Exposure {
                unknown: may_be_exposed(&record.role, &config, fence.stored().exposed),
                ..Exposure::default()
            },
            ..Live::default()
        };
        let sidecar = Arc::new(Self {
            boot: random_boot()?,
            worker: Worker::new(client.clone(), config.worker_control),
            peers: Peers::new(client.clone(), config.credentials.clone()),
            hold: Hold::new(config.hold),
            metrics: Metrics::new(),
            commands: Commands::default(),
            checkpoints: Checkpoints::new(
                kept_seq(&record.role, &keeper),
                number,
                config.checkpoint.replicas > 0,
            ),
            holders: Holders::default(),
            shelves,
            kick: Notify::new(),
            down: CancellationToken::new(),
            live: Mutex::new(live),
            changed: watch::Sender::new(0),
            config,
            clock,
            net,
            fence,
            keeper,
            client,
        });
        sidecar.tidy();
        sidecar.settle();
        Ok(sidecar)
    }

    /// What is known only in memory. Never held across an await; [`Sidecar::change`] for what the flow depends on.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known in memory and lets the flow follow.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Live) -> T) -> T {
        let result = change(&mut self.live());
        self.settle();
        result
    }

    /// Turns the flow to what record and memory say. To be called after each change of either.
    pub(crate) fn settle(&self) {
        let mut live = self.live();
        let record = self.fence.record();
        let flow = self.flow(&record.role, &live);
        match flow {
            Flow::Serve(_) => {
                live.serving_since.get_or_insert_with(|| self.clock.milliseconds());
            }
            _ => live.serving_since = None,
        }
        self.metrics.role(&record.role, live.serving_since.is_some());
        // Within the lock, so that two settlements cannot overtake one another.
        self.hold.turn(flow);
        drop(live);
        self.changed.send_modify(|count| *count += 1);
    }

    fn flow(&self, role: &Role, live: &Live) -> Flow {
        if live.closed && !matches!(role, Role::Forwarding { .. }) {
            return Flow::Closed;
        }
        match role {
            Role::Standby | Role::Delivered { .. } => Flow::Standby,
            Role::Frozen { .. } => live
                .forward_to
                .as_ref()
                .and_then(|(_, to)| self.successor(to))
                .map_or(Flow::Hold, Flow::Forward),
            Role::Active { epoch, .. }
                if live.fenced.is_none() && live.ready == Some(*epoch) && self.holds_lease(live) =>
            {
                Flow::Serve(*epoch)
            }
            Role::Active { .. } => Flow::Hold,
            Role::Forwarding { to, .. } => self.successor(to).map_or(Flow::Closed, Flow::Forward),
            Role::Retired { .. } => Flow::Closed,
        }
    }

    pub(crate) fn successor(&self, to: &Peer) -> Option<Successor> {
        let port = to.data_port.unwrap_or(self.config.data.port());
        let address = std::net::SocketAddr::new(to.address.parse().ok()?, port);
        Some(Successor { address, token: self.config.credentials.for_peer(to) })
    }

    /// The successor and its epoch, once it has said that it serves.
    pub(crate) fn succeeded_by(&self) -> Option<(Epoch, Peer)> {
        let live = self.live();
        match self.fence.record().role {
            Role::Forwarding { epoch, to, .. } => Some((epoch, to)),
            Role::Frozen { .. } => live.forward_to.clone(),
            Role::Standby | Role::Delivered { .. } | Role::Active { .. } | Role::Retired { .. } => None,
        }
    }

    /// Sees each change of record or memory.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.changes();
        while !condition(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether requests are answered here now.
    pub(crate) fn serving(&self) -> bool {
        self.live().serving_since.is_some()
    }

    /// Whether the worker is not to be started yet.
    pub(crate) fn gated(&self) -> bool {
        self.config.gated && matches!(self.fence.record().role, Role::Standby | Role::Delivered { .. })
    }

    /// The clock for challenges.
    pub(crate) fn now(&self) -> fence::Clock {
        fence::Clock { boot: self.boot.clone(), milliseconds: self.clock.milliseconds() }
    }

    pub(crate) fn challenge(&self) -> Challenge {
        Challenge { boot: self.boot.clone(), issued_milliseconds: self.clock.milliseconds() }
    }

    /// This sidecar, as a peer is told.
    pub(crate) fn as_peer(&self) -> Peer {
        Peer {
            pod: self.config.pod.clone(),
            address: self.config.control.ip().to_string(),
            control_port: self.config.control.port(),
            // The peer may be of the hub that the process leaves: another port, another key.
            data_port: Some(self.config.data.port()),
            token: Some(Token(self.config.credentials.for_pod(&self.config.pod))),
        }
    }

    pub(crate) fn addressee(&self, pod: &processhub_protocol::id::PodUid) -> Addressee {
        Addressee { process: self.config.process.clone(), pod: pod.clone() }
    }

    /// A request met a worker that does not take it: nothing flows until the worker has been looked at.
    pub(crate) fn doubt_worker(&self) {
        self.change(|live| live.ready = None);
        self.kick.notify_one();
    }

    /// Removes the states that the record does not refer to. Not while one is being recorded.
    pub(crate) fn tidy(&self) {
        let record = self.fence.record();
        if let Err(error) = self.keeper.retain(&referred(&record.role)) {
            tracing::warn!(%error, "a state that is no longer needed could not be removed");
        }
    }
}

/// An owner keeps its newest checkpoint, which its record need not know of yet; the number of that checkpoint.
fn newest(fence: &Fence, keeper: &Keeper) -> std::io::Result<(Record, u64)> {
    let record = fence.record();
    let Role::Active { epoch, kept } = &record.role else { return Ok((record, 0)) };
    let (state, number) = keeper.newest(*epoch, kept.as_ref())?;
    let adopted = state.and_then(|state| record.checkpoint_done(*epoch, state).ok());
    if let Some(adopted) = adopted {
        fence.adopt(adopted);
    }
    Ok((fence.record(), number))
}

/// Number of the state that an owner's worker holds, or has held before it went on.
fn kept_seq(role: &Role, keeper: &Keeper) -> Option<Seq> {
    match role {
        Role::Active { kept, .. } => {
            kept.as_ref().filter(|state| keeper.find(state).is_ok()).map(|state| state.seq)
        }
        Role::Standby
        | Role::Delivered { .. }
        | Role::Frozen { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => None,
    }
}

/// Whether an answer may have gone out, before this start, whose change is in no state on disk.
fn may_be_exposed(role: &Role, config: &Config, exposed: bool) -> bool {
    match role {
        Role::Active { .. } | Role::Frozen { state: None, .. } => exposed || config.checkpoint.exposes_all(),
        Role::Frozen { state: Some(_), .. }
        | Role::Standby
        | Role::Delivered { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => false,
    }
}

/// The states that the record refers to.
pub(crate) fn referred(role: &Role) -> Vec<&processhub_protocol::id::StateId> {
    match role {
        Role::Standby | Role::Retired { .. } => Vec::new(),
        Role::Delivered { state, .. } => vec![state],
        Role::Active { kept, .. } => kept.iter().collect(),
        Role::Frozen { state, kept, .. } => state.iter().chain(kept).collect(),
        Role::Forwarding { state, .. } => state.iter().collect(),
    }
}

/// Whether what the record promises is there. An owner's kept state may be missing: its worker has a newer one.
fn whole(record: &Record, keeper: &Keeper) -> bool {
    match &record.role {
        Role::Frozen { state: Some(state), .. } | Role::Delivered { state, .. } => keeper.find(state).is_ok(),
        Role::Frozen { state: None, .. }
        | Role::Standby
        | Role::Active { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => true,
    }
}
