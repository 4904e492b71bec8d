//! The counter as a worker: what of it moves, and how it becomes bytes and a counter again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use processhub_sdk::{Activation, ApplyContext, Direction, Imported, Part, Reason, Refusal, Worker};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ballast::Ballast;
use crate::faults::{Faults, Point};
use crate::ledger::Ledger;

/// All that a process holds, and that moves with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The counter.
    pub ledger: Ledger,
    /// The key-value table.
    pub table: BTreeMap<String, String>,
    /// Bytes that only weigh. Shared, so that holding the lock never means copying them.
    pub ballast: Arc<Ballast>,
    /// With which words it was given; none for what began here. It does not move.
    pub origin: Option<Origin>,
}

/// What the worker was told of the state that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Why.
    pub reason: Reason,
    /// Version of the code that wrote it.
    pub vsn: String,
    /// Whether this code is newer or older.
    pub direction: Direction,
    /// What the hub's upgrade adds.
    pub extra: Value,
}

/// The part `state`: everything but the table and the ballast itself.
#[derive(Serialize, Deserialize)]
struct Head {
    ledger: Ledger,
    ballast: u64,
}

/// The example worker.
pub struct Counter {
    /// What it holds.
    holdings: Mutex<Holdings>,
    options: Options,
    /// Faults that are switched on.
    pub faults: Faults,
}

/// What a counter is made with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Name of the process: the seed of its ballast.
    pub process: String,
    /// Bytes of ballast of a process that begins anew.
    pub state_size: u64,
    /// The code's version.
    pub vsn: String,
    /// Other versions whose states it takes.
    pub accepts_from: Vec<String>,
}

impl Counter {
    /// A counter that holds nothing yet.
    #[must_use]
    pub fn new(options: Options, faults: Faults) -> Self {
        Self { holdings: Mutex::default(), options, faults }
    }

    /// What it holds, locked.
    pub fn holdings(&self) -> MutexGuard<'_, Holdings> {
        self.holdings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew.
    pub fn begin(&self) {
        let ballast = Arc::new(Ballast::make(&self.options.process, self.options.state_size));
        *self.holdings() = Holdings { ballast, ..Holdings::default() };
    }
}

impl Worker for Counter {
    type State = Holdings;

    fn vsn(&self) -> String {
        self.options.vsn.clone()
    }

    fn accepts_from(&self) -> Vec<String> {
        self.options.accepts_from.clone()
    }

    fn initial(&self, _: &Activation) -> Result<(), Refusal> {
        self.begin();
        Ok(())
    }

    fn activate(&self, _: &Activation) -> Result<(), Refusal> {
        self.faults.strike(Point::Activate)
    }

    fn suspend(&self, _: Reason) -> Result<(), Refusal> {
        self.faults.strike(Point::Suspend)
    }

    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        self.faults.strike(Point::Capture)?;
        let Holdings { ledger, table, ballast, origin: _ } = self.holdings().clone();
        Ok(vec![
            Part::json("state", &Head { ledger, ballast: ballast.made_as() })?,
            Part::json("table.entries", &table)?,
            Part::new("table.ballast", Ballast::clone(&ballast))?,
        ])
    }

    fn decode(&self, state: &Imported, context: &ApplyContext) -> Result<Holdings, Refusal> {
        self.faults.strike(Point::Import)?;
        let Head { ledger, ballast } = state.json("state")?;
        let pieces = state.part("table.ballast")?.pieces().collect::<Result<Vec<Bytes>, _>>()?;
        let ballast = Ballast::received(pieces, ballast);
        if !ledger.is_sound() {
            return Err(Refusal::cannot_accept("part `state`: the counter is not the sum of what it counts"));
        }
        if !ballast.weigh().intact {
            return Err(Refusal::cannot_accept(
                "part `table.ballast` is not what was sent: its digest differs",
            ));
        }
        let ApplyContext { reason, vsn, direction, extra, .. } = context.clone();
        let origin = Some(Origin { reason, vsn, direction, extra });
        Ok(Holdings { ledger, table: state.json("table.entries")?, ballast: Arc::new(ballast), origin })
    }

    fn install(&self, state: Holdings) {
        *self.holdings() = state;
    }
}
