//! Which way a client's request goes: to the own worker, to the successor, or into the queue of held ones.
//!
//! One lock orders everything: a request either is counted as in flight before the flow is turned, or it meets the new
//! flow. Held requests go on in the order in which they came.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processhub_protocol::id::Epoch;
use processhub_protocol::passage::{Course, Passage, passage};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::HoldLimits;

/// Where requests go at present.
#[derive(Clone, Debug)]
pub enum Flow {
    /// This pod has nothing to serve: refused, except what the source forwards, which waits for the activation.
    Standby,
    /// All wait.
    Hold,
    /// To the own worker, at this epoch.
    Serve(Epoch),
    /// To the successor.
    Forward(Successor),
    /// This sidecar ends.
    Closed,
}

/// Where a sealed pod forwards to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its data port.
    pub address: SocketAddr,
    /// The token for its pod.
    pub token: String,
}

/// Why a request is refused here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refused {
    /// This pod does not serve the process.
    NotServing,
    /// More requests or bytes would be held than allowed.
    HoldFull,
    /// Held for as long as allowed.
    HoldExpired,
    /// It was forwarded once and is not forwarded again (rule 15).
    ForwardedOnce,
    /// This sidecar ends.
    Stopping,
}

/// The way of one request.
#[derive(Debug)]
pub enum Way {
    /// To the own worker, counted as in flight as long as the permit lives.
    Serve(Permit),
    /// To the successor.
    Forward(Successor),
    /// Nowhere.
    Refuse(Refused),
}

/// What [`Hold::enter`] says.
#[derive(Debug)]
pub enum Entry {
    /// Go.
    Go(Way),
    /// Wait for the way.
    Wait(Ticket),
}

/// The queue, and the count of what is in flight.
#[derive(Clone, Debug)]
pub struct Hold {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: HoldLimits,
    inner: Mutex<Inner>,
}

/// What is in flight to the worker from one turn of the flow to the next. What was cut counts for no later one, however
/// long its client takes to notice.
#[derive(Debug, Default)]
struct Period {
    in_flight: watch::Sender<usize>,
    cut: CancellationToken,
    tunnels: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    flow: Flow,
    period: Arc<Period>,
    queue: VecDeque<Waiter>,
    next: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    forwarded: bool,
    go: oneshot::Sender<Way>,
}

/// A request in flight to the own worker.
#[derive(Debug)]
pub struct Permit {
    period: Arc<Period>,
    /// The epoch that it is served at.
    pub epoch: Epoch,
}

/// A place in the queue. Dropped, it is given up.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    bytes: usize,
    go: oneshot::Receiver<Way>,
}

impl Flow {
    fn course(&self) -> Course {
        match self {
            Self::Standby => Course::Standby,
            Self::Hold => Course::Hold,
            Self::Serve(_) => Course::Serve,
            Self::Forward(_) => Course::Forward,
            Self::Closed => Course::Closed,
        }
    }
}

impl Hold {
    /// An empty queue in front of a pod that is in Standby.
    #[must_use]
    pub fn new(limits: HoldLimits) -> Self {
        let inner =
            Inner { flow: Flow::Standby, period: Arc::default(), queue: VecDeque::new(), next: 0, bytes: 0 };
        Self { shared: Arc::new(Shared { limits, inner: Mutex::new(inner) }) }
    }

    /// The way of a request that comes in now.
    #[must_use]
    pub fn enter(&self, forwarded: bool) -> Entry {
        let mut inner = self.shared.lock();
        if let Some(way) = self.shared.way(&inner, forwarded) {
            return Entry::Go(way);
        }
        if inner.queue.len() >= self.shared.limits.requests {
            return Entry::Go(Way::Refuse(Refused::HoldFull));
        }
        let (sender, go) = oneshot::channel();
        let number = inner.next;
        inner.next += 1;
        inner.queue.push_back(Waiter { number, forwarded, go: sender });
        Entry::Wait(Ticket { shared: Arc::clone(&self.shared), number, bytes: 0, go })
    }

    /// Turns the flow. What is held goes on, in order, if it now has a way.
    pub fn turn(&self, flow: Flow) {
        let mut inner = self.shared.lock();
        let serving =
            matches!((&inner.flow, &flow), (Flow::Serve(before), Flow::Serve(now)) if before == now);
        if !serving {
            inner.period.tunnels.cancel();
            if matches!(flow, Flow::Serve(_)) {
                inner.period = Arc::default();
            }
        }
        inner.flow = flow;
        let mut released = Vec::new();
        let mut waiting = VecDeque::new();
        while let Some(waiter) = inner.queue.pop_front() {
            match self.shared.way(&inner, waiter.forwarded) {
                Some(way) => released.push((waiter.go, way)),
                None => waiting.push_back(waiter),
            }
        }
        inner.queue = waiting;
        drop(inner);
        for (go, way) in released {
            // A client that has left takes its permit with it.
            let _ = go.send(way);
        }
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Waits until nothing is in flight to the worker.
    pub async fn drained(&self) {
        let period = Arc::clone(&self.shared.lock().period);
        let mut in_flight = period.in_flight.subscribe();
        // It ends in an error only without sender, which `period` is.
        let _ = in_flight.wait_for(|count| *count == 0).await;
    }

    /// Cuts what is still in flight: nothing of it is relayed after this, its clients get 502 or a broken body.
    pub fn cut(&self) {
        self.shared.lock().period.cut.cancel();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self, inner: &Inner, forwarded: bool) -> Option<Way> {
        match (passage(inner.flow.course(), forwarded), &inner.flow) {
            (Passage::Serve, Flow::Serve(epoch)) => {
                inner.period.in_flight.send_modify(|count| *count += 1);
                Some(Way::Serve(Permit { period: Arc::clone(&inner.period), epoch: *epoch }))
            }
            (Passage::Forward, Flow::Forward(successor)) => Some(Way::Forward(successor.clone())),
            (Passage::NotServing, _) => Some(Way::Refuse(Refused::NotServing)),
            (Passage::ForwardedOnce, _) => Some(Way::Refuse(Refused::ForwardedOnce)),
            (Passage::Stopping, _) => Some(Way::Refuse(Refused::Stopping)),
            // One that goes somewhere has a course that says where.
            (Passage::Wait | Passage::Serve | Passage::Forward, _) => None,
        }
    }
}

impl Permit {
    /// Cancelled when the drain is over: nothing more is relayed.
    #[must_use]
    pub fn cut(&self) -> &CancellationToken {
        &self.period.cut
    }

    /// Cancelled when the flow stops: upgraded connections end.
    #[must_use]
    pub fn tunnels(&self) -> &CancellationToken {
        &self.period.tunnels
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.period.in_flight.send_modify(|count| *count -= 1);
    }
}

impl Ticket {
    /// Waits for the way.
    pub async fn way(&mut self) -> Way {
        // The sender is dropped unanswered only when the whole queue is.
        (&mut self.go).await.unwrap_or(Way::Refuse(Refused::Stopping))
    }

    /// Counts `bytes` of this request's body as held; false when that would be more than allowed.
    #[must_use]
    pub fn reserve(&mut self, bytes: usize) -> bool {
        let mut inner = self.shared.lock();
        let total = inner.bytes.saturating_add(bytes);
        if total > self.shared.limits.bytes {
            return false;
        }
        inner.bytes = total;
        self.bytes += bytes;
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.bytes -= self.bytes;
        inner.queue.retain(|waiter| waiter.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hold(requests: usize, bytes: usize) -> Hold {
        Hold::new(HoldLimits { requests, bytes, time: Duration::from_secs(1) })
    }

    fn wait(hold: &Hold, forwarded: bool) -> Ticket {
        match hold.enter(forwarded) {
            Entry::Wait(ticket) => ticket,
            Entry::Go(way) => panic!("expected to wait, got {way:?}"),
        }
    }

    fn refused(entry: Entry) -> Refused {
        match entry {
            Entry::Go(Way::Refuse(refused)) => refused,
            entry => panic!("expected a refusal, got {entry:?}"),
        }
    }

    fn successor() -> Successor {
        Successor { address: "127.0.0.1:1".parse().unwrap(), token: String::new() }
    }

    #[tokio::test]
    async fn what_is_held_goes_on_when_the_flow_turns() {
        let hold = hold(8, 8);
        hold.turn(Flow::Hold);
        let (mut first, mut second) = (wait(&hold, false), wait(&hold, true));
        assert_eq!(hold.held(), 2);
        hold.turn(Flow::Forward(successor()));
        assert!(matches!(first.way().await, Way::Forward(_)));
        assert!(matches!(second.way().await, Way::Refuse(Refused::ForwardedOnce)), "rule 15");
        assert_eq!(hold.held(), 0);
    }

    #[tokio::test]
    async fn a_standby_takes_only_what_its_source_forwards() {
        let hold = hold(8, 8);
        assert_eq!(refused(hold.enter(false)), Refused::NotServing);
        let mut ticket = wait(&hold, true);
        hold.turn(Flow::Serve(Epoch(2)));
        assert!(matches!(ticket.way().await, Way::Serve(permit) if permit.epoch == Epoch(2)));
    }

    #[tokio::test]
    async fn drained_means_that_no_permit_is_left() {
        let hold = hold(8, 8);
        hold.turn(Flow::Serve(Epoch(1)));
        let Entry::Go(Way::Serve(permit)) = hold.enter(false) else { panic!("serves") };
        hold.turn(Flow::Hold);
        assert!(permit.tunnels().is_cancelled() && !permit.cut().is_cancelled());
        let drained = hold.drained();
        tokio::pin!(drained);
        assert!(futures_now(drained.as_mut()).await.is_none());
        hold.cut();
        assert!(permit.cut().is_cancelled());
        drop(permit);
        drained.await;
    }

    #[tokio::test]
    async fn what_was_cut_does_not_count_for_the_next_period() {
        let hold = hold(8, 8);
        hold.turn(Flow::Serve(Epoch(1)));
        let Entry::Go(Way::Serve(_stalled)) = hold.enter(false) else { panic!("serves") };
        hold.turn(Flow::Hold);
        hold.cut();
        hold.turn(Flow::Serve(Epoch(3)));
        hold.turn(Flow::Hold);
        hold.drained().await;
    }

    async fn futures_now<F: Future + Unpin>(future: F) -> Option<F::Output> {
        tokio::select! { biased; done = future => Some(done), () = std::future::ready(()) => None }
    }

    #[test]
    fn requests_and_bytes_are_bounded_and_given_back() {
        let hold = hold(2, 10);
        hold.turn(Flow::Hold);
        let (mut first, mut second) = (wait(&hold, false), wait(&hold, false));
        assert_eq!(refused(hold.enter(false)), Refused::HoldFull);
        assert!(first.reserve(6) && !second.reserve(5) && second.reserve(4));
        drop(first);
        assert_eq!(hold.held(), 1, "a client that left is dropped");
        assert!(second.reserve(6));
        let _third = wait(&hold, false);
    }

    #[tokio::test]
    async fn a_permit_for_a_client_that_left_is_given_back() {
        let hold = hold(2, 10);
        hold.turn(Flow::Hold);
        let ticket = wait(&hold, false);
        hold.turn(Flow::Serve(Epoch(1)));
        drop(ticket);
        hold.drained().await;
    }

    #[test]
    fn the_same_flow_again_cuts_no_tunnel() {
        let hold = hold(2, 10);
        hold.turn(Flow::Serve(Epoch(1)));
        let Entry::Go(Way::Serve(permit)) = hold.enter(false) else { panic!("serves") };
        hold.turn(Flow::Serve(Epoch(1)));
        assert!(!permit.tunnels().is_cancelled());
        hold.turn(Flow::Closed);
        assert!(permit.tunnels().is_cancelled());
        assert_eq!(refused(hold.enter(true)), Refused::Stopping);
    }
}
