//! Checkpoints: the worker's state on disk while it serves, so that a crash takes along nothing, or little.
//!
//! * `Sync`: an answer goes to its client once a state that contains its change is on disk. The worker says by
//!   `ProcessHub-Seq` which state that is; one capture serves all answers that wait. A worker without that header is
//!   captured after each request that is not GET or HEAD.
//! * `Async`: captured at most every period while there is something new, by a worker that serves on.
//! * `None`: only moves capture.
//!
//! Without a choice it is `Sync` for an answer that has the header and `Async` for one that has not. A worker that can be
//! captured only while suspended has no checkpoints: each suspend and resume takes an epoch, and only the operator gives
//! those out.

mod answer;
mod keep;

pub(crate) use answer::Answered;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use processhub_protocol::id::Seq;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// What is known of checkpoints, and who waits for one.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Held by whoever captures from the worker or gives it a state: one at a time.
    turn: tokio::sync::Mutex<()>,
    /// How many wait for their turn who must not wait for a checkpoint.
    pressing: watch::Sender<usize>,
    progress: watch::Sender<Progress>,
    /// What of it is with the holders of the replicas too, where there are to be some.
    secured: Option<watch::Sender<Progress>>,
    waiting: Mutex<Waiting>,
    /// Somebody waits.
    wake: Notify,
    newest: Mutex<Newest>,
}

/// What has been captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Captures begun.
    begun: u64,
    /// The last one of them whose state is on disk.
    done: u64,
    /// Number of the worker's state that is on disk.
    pub(crate) seq: Option<Seq>,
    /// The worker has no state.
    stateless: bool,
    /// Counts the workers that died: who waits for a state of one of them waits in vain.
    line: u64,
}

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A state with at least this number.
    Seq(Seq),
    /// A state captured by a later capture than this one.
    After(u64),
}

impl Progress {
    /// What of this is there wherever one of `points` is.
    pub(crate) fn within(self, points: impl IntoIterator<Item = Self>) -> Self {
        points.into_iter().fold(self, |least, point| Self {
            done: least.done.min(point.done),
            seq: least.seq.min(point.seq),
            ..least
        })
    }

    /// Nothing of this is with who should have it.
    pub(crate) fn nowhere(self) -> Self {
        Self { done: 0, seq: None, ..self }
    }

    fn meets(&self, need: Need) -> bool {
        self.stateless
            || match need {
                Need::Seq(wanted) => wanted == 0 || self.seq.is_some_and(|seq| seq >= wanted),
                Need::After(capture) => self.done > capture,
            }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    needs: BTreeMap<u64, Need>,
}

/// The newest checkpoint.
#[derive(Debug, Default)]
struct Newest {
    /// The last number that was given.
    number: u64,
    /// When the newest state was last known to be the worker's.
    current: Option<Instant>,
}

/// What of the worker's answers is in no state on disk: what a crash would take along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// The highest number that an answer had.
    pub(crate) released: Seq,
    /// Answers without a number.
    pub(crate) unnumbered: u64,
    /// How many of those came before the capture of the newest state.
    pub(crate) covered: u64,
    /// Whatever was answered before this sidecar started.
    pub(crate) unknown: bool,
    /// A connection was opened on which nobody here knows what an answer is: whatever is kept, more may have been said.
    pub(crate) opaque: bool,
}

impl Exposure {
    /// Whether anything that was answered may be missing in the state `kept`.
    pub(crate) fn beyond(&self, kept: Option<Seq>) -> bool {
        self.unknown || self.opaque || self.unnumbered > self.covered || self.released > kept.unwrap_or(0)
    }
}

/// The worker is alone with whom holds this.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _turn: tokio::sync::MutexGuard<'a, ()>,
    _pressing: Pressing<'a>,
}

#[derive(Debug)]
struct Pressing<'a>(&'a watch::Sender<usize>);

impl Drop for Pressing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// A place among those who wait. Dropped, it is given up.
struct Place<'a> {
    checkpoints: &'a Checkpoints,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.checkpoints.waiting).needs.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checkpoints {
    /// Of a sidecar that starts and found a state with number `seq`, its checkpoint `number` (0 for none). `replicated`: an
    /// answer waits for the holders of replicas too, and none has anything yet.
    pub(crate) fn new(seq: Option<Seq>, number: u64, replicated: bool) -> Self {
        Self {
            secured: replicated.then(watch::Sender::default),
            turn: tokio::sync::Mutex::default(),
            pressing: watch::Sender::new(0),
            progress: watch::Sender::new(Progress { seq, ..Progress::default() }),
            waiting: Mutex::default(),
            wake: Notify::new(),
            newest: Mutex::new(Newest { number, current: None }),
        }
    }

    /// Waits for the worker to be left alone; a checkpoint that is being captured is cut off.
    pub(crate) async fn press(&self) -> Turn<'_> {
        self.pressing.send_modify(|count| *count += 1);
        let pressing = Pressing(&self.pressing);
        Turn { _turn: self.turn.lock().await, _pressing: pressing }
    }

    /// Waits until no checkpoint is captured, and keeps the next one from beginning.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The worker holds, as of now, the state with this number, and so does the disk.
    pub(crate) fn holds(&self, seq: Option<Seq>) {
        self.progress.send_modify(|progress| {
            progress.seq = seq;
            progress.stateless = false;
        });
        lock(&self.newest).current = seq.map(|_| Instant::now());
    }

    /// The worker has died, and with it what it had not given to a capture.
    pub(crate) fn worker_died(&self) {
        self.progress.send_modify(|progress| progress.line += 1);
    }

    /// What has been captured, as of now.
    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Sees each change of what has been captured.
    pub(crate) fn changes(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// So much is with the holders of the replicas too.
    pub(crate) fn secure(&self, secured: Progress) {
        if let Some(sender) = &self.secured {
            sender.send_if_modified(|now| std::mem::replace(now, secured) != secured);
        }
    }

    /// Number of the worker's state that is on disk.
    pub(crate) fn seq(&self) -> Option<Seq> {
        self.progress.borrow().seq
    }

    /// Number of a checkpoint that begins. Never given twice: one that is cut off may have reached the disk all the same.
    fn next_number(&self) -> u64 {
        let mut newest = lock(&self.newest);
        newest.number += 1;
        newest.number
    }

    /// Which worker a request goes to now.
    pub(crate) fn line(&self) -> u64 {
        self.progress.borrow().line
    }

    /// Whether somebody waits for what is not on disk.
    fn wanted(&self) -> bool {
        let progress = *self.progress.borrow();
        lock(&self.waiting).needs.values().any(|need| !progress.meets(*need))
    }

    /// When the newest state on disk was last known to be the worker's.
    pub(crate) fn current(&self) -> Option<Instant> {
        lock(&self.newest).current
    }

    /// Seconds for which the newest state on disk has been known to be older than the worker's; 0 when it is not.
    pub(crate) fn age(&self, exposure: &Exposure) -> f64 {
        let progress = *self.progress.borrow();
        match self.current() {
            Some(current) if exposure.beyond(progress.seq) => current.elapsed().as_secs_f64(),
            Some(_) | None => 0.0,
        }
    }

    /// Waits until `need` is met.
    ///
    /// # Errors
    /// The worker of `line` has died before.
    async fn met(&self, need: Need, line: u64) -> Result<(), Vain> {
        let mut progress = self.secured.as_ref().unwrap_or(&self.progress).subscribe();
        let _place = {
            let mut waiting = lock(&self.waiting);
            waiting.next += 1;
            let number = waiting.next;
            waiting.needs.insert(number, need);
            Place { checkpoints: self, number }
        };
        if !progress.borrow().meets(need) {
            self.wake.notify_one();
        }
        let over = |progress: &Progress| progress.line != line || progress.meets(need);
        // The sender is dropped only with the sidecar.
        let seen = *progress.wait_for(over).await.map_err(|_| Vain)?;
        if seen.line == line { Ok(()) } else { Err(Vain) }
    }
}

/// What was waited for will never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vain;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_state_contains_is_exposed() {
        let numbered = Exposure { released: 5, ..Exposure::default() };
        assert!(numbered.beyond(None) && numbered.beyond(Some(4)));
        assert!(!numbered.beyond(Some(5)));
        assert!(!Exposure::default().beyond(None), "nothing was answered");
        let unnumbered = Exposure { unnumbered: 2, covered: 1, ..Exposure::default() };
        assert!(unnumbered.beyond(Some(9)));
        assert!(!Exposure { covered: 2, ..unnumbered }.beyond(Some(9)));
        assert!(Exposure { unknown: true, ..Exposure::default() }.beyond(Some(9)));
        assert!(Exposure { opaque: true, ..Exposure::default() }.beyond(Some(9)));
    }

    #[test]
    fn a_need_is_met_by_a_state_that_is_new_enough() {
        let progress = Progress { begun: 4, done: 3, seq: Some(7), stateless: false, line: 0 };
        assert!(progress.meets(Need::Seq(7)) && !progress.meets(Need::Seq(8)));
        assert!(progress.meets(Need::After(2)) && !progress.meets(Need::After(3)), "begun before the answer");
        assert!(Progress::default().meets(Need::Seq(0)), "a state that nobody changed");
        assert!(!Progress::default().meets(Need::Seq(1)));
        assert!(Progress { stateless: true, ..Progress::default() }.meets(Need::Seq(8)));
    }

    #[tokio::test]
    async fn one_state_serves_all_who_wait_and_a_death_ends_their_wait() {
        let checkpoints = Checkpoints::new(Some(1), 0, false);
        assert_eq!(checkpoints.met(Need::Seq(1), 0).await, Ok(()));
        assert!(!checkpoints.wanted());
        let (first, second) = (checkpoints.met(Need::Seq(2), 0), checkpoints.met(Need::Seq(3), 0));
        let capture = async {
            tokio::task::yield_now().await;
            assert!(checkpoints.wanted());
            checkpoints.holds(Some(3));
            assert!(!checkpoints.wanted());
        };
        assert_eq!(tokio::join!(first, second, capture), (Ok(()), Ok(()), ()));
        let death = async {
            tokio::task::yield_now().await;
            checkpoints.worker_died();
        };
        assert_eq!(tokio::join!(checkpoints.met(Need::Seq(4), 0), death), (Err(Vain), ()));
        assert!(lock(&checkpoints.waiting).needs.is_empty());
        // What the next worker brings about is not what this one waited for.
        checkpoints.holds(Some(9));
        assert_eq!(checkpoints.met(Need::Seq(4), 0).await, Err(Vain));
        assert_eq!(checkpoints.met(Need::Seq(4), checkpoints.line()).await, Ok(()));
    }

    #[tokio::test]
    async fn who_presses_is_alone_with_the_worker() {
        let checkpoints = Checkpoints::new(None, 0, false);
        let turn = checkpoints.press().await;
        assert!(checkpoints.turn.try_lock().is_err());
        assert_eq!(*checkpoints.pressing.borrow(), 1);
        drop(turn);
        assert!(checkpoints.turn.try_lock().is_ok());
        assert_eq!(*checkpoints.pressing.borrow(), 0);
    }
}
