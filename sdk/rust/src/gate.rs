//! Who may run now: clients' requests against the state machine of the contract.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processhub_protocol::contract::machine::{Machine, Step};
use processhub_protocol::contract::{ErrorBody, WorkerState};
use processhub_protocol::id::{Epoch, Seq};
use tokio::sync::watch;

/// The machine together with the requests that run under it. Both change under one lock, so that no request slips in
/// between the look at the state and the count.
pub(crate) struct Gate {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    numbers: Numbers,
}

/// The number of a state that counts its changes itself; none for one that does not.
pub(crate) type Numbers = Box<dyn Fn() -> Option<Seq> + Send + Sync>;

#[derive(Default)]
struct Inner {
    machine: Machine,
    running: usize,
    seq: Seq,
}

impl Gate {
    pub(crate) fn new(machine: Machine, numbers: Numbers) -> Self {
        let inner = Inner { machine, ..Inner::default() };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(()), numbers }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at or changes the machine.
    pub(crate) fn machine<T>(&self, work: impl FnOnce(&mut Machine) -> T) -> T {
        let result = work(&mut self.lock().machine);
        self.changed.send_replace(());
        result
    }

    /// Number of the present state.
    pub(crate) fn seq(&self) -> Seq {
        (self.numbers)().unwrap_or_else(|| self.lock().seq)
    }

    /// The state was replaced by one with this number.
    pub(crate) fn set_seq(&self, seq: Seq) {
        self.lock().seq = seq;
    }

    /// The state may have changed.
    pub(crate) fn advance(&self) -> Seq {
        if let Some(seq) = (self.numbers)() {
            return seq;
        }
        let mut inner = self.lock();
        inner.seq += 1;
        inner.seq
    }

    /// Lets a client's request in. `changes` says whether it may change the state.
    pub(crate) fn admit(self: &Arc<Self>, changes: bool) -> Result<Admitted, WorkerState> {
        let mut inner = self.lock();
        inner.machine.admit()?;
        inner.running += 1;
        Ok(Admitted { gate: Arc::clone(self), changes })
    }

    /// Waits until every request of a suspending worker is done, or another command came.
    pub(crate) async fn drained(&self, epoch: Epoch) -> Result<Step, ErrorBody> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            {
                let inner = self.lock();
                let step = inner.machine.drained(epoch)?;
                if step == Step::Again || inner.running == 0 {
                    return Ok(step);
                }
            }
            // The sender lives as long as `self`, so this only ever returns because of a change.
            let _ = changed.changed().await;
        }
    }
}

/// A request that runs. Dropping it says that it is done, in whatever way.
pub(crate) struct Admitted {
    gate: Arc<Gate>,
    changes: bool,
}

impl Admitted {
    /// The handler has answered: the number of a state that contains what the answer tells of.
    pub(crate) fn answered(&self) -> Seq {
        if self.changes { self.gate.advance() } else { self.gate.seq() }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.changes {
            // Also for a handler that was dropped half-way, or whose body went on changing the state.
            self.gate.advance();
        }
        self.gate.lock().running -= 1;
        self.gate.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Arc<Gate> {
        let gate = Arc::new(Gate::new(Machine::default(), Box::new(|| None)));
        gate.machine(|machine| {
            machine.activate(Epoch(1), true).unwrap();
            machine.activated(Epoch(1));
        });
        gate
    }

    #[tokio::test]
    async fn a_suspend_waits_for_each_request_that_was_let_in() {
        let gate = active();
        let (first, second) = (gate.admit(true).unwrap(), gate.admit(false).unwrap());
        gate.machine(|machine| machine.suspend(Epoch(2))).unwrap();
        assert_eq!(gate.admit(true).err(), Some(WorkerState::Suspended));
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drained(Epoch(2)).await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        assert_eq!(waiting.await.unwrap(), Ok(Step::Run));
    }

    #[tokio::test]
    async fn a_resume_calls_off_the_waiting() {
        let gate = active();
        let running = gate.admit(true).unwrap();
        gate.machine(|machine| machine.suspend(Epoch(2))).unwrap();
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drained(Epoch(2)).await }
        });
        tokio::task::yield_now().await;
        gate.machine(|machine| machine.resume(Epoch(3))).unwrap();
        assert!(waiting.await.unwrap().is_err());
        drop(running);
    }

    #[test]
    fn an_answer_s_number_is_contained_in_every_later_state() {
        let gate = active();
        let changing = gate.admit(true).unwrap();
        let number = changing.answered();
        drop(changing);
        assert!(number >= 1 && gate.seq() >= number);
        let reading = gate.admit(false).unwrap();
        let seen = reading.answered();
        drop(reading);
        assert_eq!(seen, gate.seq(), "a read changes nothing");
    }

    #[test]
    fn a_state_that_counts_for_itself_is_believed() {
        let gate = Arc::new(Gate::new(Machine::default(), Box::new(|| Some(7))));
        gate.machine(|machine| {
            machine.activate(Epoch(1), true).unwrap();
            machine.activated(Epoch(1));
        });
        assert_eq!((gate.admit(true).unwrap().answered(), gate.advance(), gate.seq()), (7, 7, 7));
    }

    #[test]
    fn a_request_that_was_cut_off_may_have_changed_the_state() {
        let gate = active();
        let before = gate.seq();
        drop(gate.admit(true).unwrap());
        assert!(gate.seq() > before);
    }
}
