//! Wires the operator together, starts it and stops it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use kube::Client;
use kube::runtime::reflector;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::assignments::Board;
use crate::context::{Context, Options, Stores};
use crate::credentials::Credentials;
use crate::events::Events;
use crate::failpoint::Failpoints;
use crate::index::{Pods, Routes};
use crate::lease::{Candidate, Elector, lease_name};
use crate::metrics::Metrics;
use crate::sidecar_client::SidecarClient;
use crate::watch::{self, Wake};
use crate::{hub, process, server};

/// How long what was begun may take to end after the operator was told to stop. The Lease is given back only if it
/// did: another leader must not begin while this one still acts.
const STOP: Duration = Duration::from_secs(8);

/// Runs an operator until `shutdown` ends, then lets what was begun end and gives the Lease back.
///
/// # Errors
/// When the Lease is lost, or the metrics' address cannot be bound. The caller ends its process then: nothing that
/// this operator began may go on.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let name = lease_name(&options.class);
    let candidate = Candidate { identity: options.identity.clone(), pod: options.pod.clone() };
    let (elector, leadership) = Elector::new(client.clone(), &options.lease_namespace, name, candidate);
    let (hubs, hub_writer) = reflector::store();
    let (processes, process_writer) = reflector::store();
    let (nodes, node_writer) = reflector::store();
    let (board, wakeups) = Board::new();
    let (events, telling) = Events::new(client.clone(), options.identity.clone());
    let context = Arc::new(Context {
        leadership: leadership.clone(),
        stores: Stores { hubs, processes, nodes },
        pods: Pods::default(),
        routes: Routes::default(),
        board,
        sidecars: SidecarClient::default(),
        credentials: Credentials::new(client.clone()),
        events,
        metrics: Metrics::default(),
        failpoints: Failpoints::new(options.failpoint),
        memories: Default::default(),
        client,
        options,
    });
    let (to_processes, process_queue) = unbounded();
    let (to_hubs, hub_queue) = unbounded();
    let wake = Wake { processes: to_processes, hubs: to_hubs };

    // Everything in here ends with this function, whichever way it returns.
    let mut background = JoinSet::new();
    background.spawn(telling);
    let (pods_listed, routes_listed) = (CancellationToken::new(), CancellationToken::new());
    background.spawn(watch::hubs(context.clone(), hub_writer, wake.clone()));
    background.spawn(watch::processes(context.clone(), process_writer, wake.clone()));
    background.spawn(watch::nodes(context.clone(), node_writer, wake.clone()));
    background.spawn(watch::pods(context.clone(), pods_listed.clone(), wake.clone()));
    background.spawn(watch::routes(context.clone(), routes_listed.clone(), wake.clone()));
    background.spawn(watch::farewells(context.clone()));
    background.spawn(wake.clone().relay(wakeups));

    let (ready, stop, give_back) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    // Serves until the operator has stopped, so that a probe does not end it in the middle of that.
    let mut serving = JoinSet::new();
    if let Some(address) = context.options.metrics_address {
        serving.spawn(server::serve(address, context.clone(), ready.clone(), give_back.clone()));
    }
    let mut election = tokio::spawn(elector.run(give_back.clone()));

    let work = {
        let (context, stop, ready, wake) = (context.clone(), stop.clone(), ready.clone(), wake.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = listed(&context, &pods_listed, &routes_listed) => {}
            }
            ready.cancel();
            tracing::info!(class = context.options.class, "the watches have listed everything");
            let mut leadership = leadership;
            let mut lead = JoinSet::new();
            let all = context.clone();
            lead.spawn(async move {
                leadership.acquired().await;
                tracing::info!("leading");
                wake.all(&all);
            });
            futures::join!(
                process::run(context.clone(), process_queue.take_until(stop.clone().cancelled_owned())),
                hub::run(context, hub_queue.take_until(stop.cancelled_owned())),
            );
        }
    };
    let mut work = tokio::spawn(work);

    tokio::select! {
        // Told to stop: what was begun ends, then the Lease is given back.
        () = shutdown => {}
        // Lost, and by then perhaps taken by another.
        lost = &mut election => {
            work.abort();
            return Err(lost.context("the election ended")?.err().map_or_else(
                || anyhow::anyhow!("the election ended by itself"),
                anyhow::Error::from,
            ));
        }
        Some(served) = serving.join_next() => {
            work.abort();
            return served.context("the server ended")?;
        }
    }
    tracing::info!("stopping");
    stop.cancel();
    if timeout(STOP, &mut work).await.is_err() {
        work.abort();
        anyhow::bail!("something that was begun did not end within {STOP:?}; the Lease runs out by itself");
    }
    give_back.cancel();
    election.await.context("the election ended")??;
    Ok(())
}

/// Returns when every watch has listed all that there is.
async fn listed(context: &Context, pods: &CancellationToken, routes: &CancellationToken) {
    let Stores { hubs, processes, nodes } = &context.stores;
    // A store whose writer is gone is never filled: the operator is being stopped then.
    let _ = futures::join!(hubs.wait_until_ready(), processes.wait_until_ready(), nodes.wait_until_ready());
    futures::join!(pods.cancelled(), routes.cancelled());
}
