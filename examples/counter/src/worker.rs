//! The counter as a worker: what of it moves, and what it is asked on the way.

use std::sync::{Arc, Mutex, PoisonError};

use processhub_sdk::{
    Activation, ApplyContext, Blob, CapturePurpose, CodeChange, Consent, ConsentRequest, Direction, Reason,
    Refusal, Table, Tables, Track, Tracked, TrackedPart, Value, Worker,
};
use serde::Serialize;

use crate::ballast;
use crate::faults::{Faults, Point};
use crate::ledger::Ledger;

/// All that a process holds, and that moves with it. What changes in it is tracked: it is captured while clients are
/// served, and a delta holds no more than what they did since.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Holdings {
    /// The counter.
    pub ledger: Ledger,
    /// The key-value table.
    pub table: Table<String, String>,
    /// Bytes that only weigh.
    pub ballast: Blob,
    /// The digest that those bytes had when the process began.
    pub made_as: Value<u64>,
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
    pub extra: serde_json::Value,
}

impl Tables for Holdings {
    fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)> {
        vec![
            ("state", &mut self.ledger.totals),
            ("table.clients", &mut self.ledger.clients),
            ("table.entries", &mut self.table),
            ("digest", &mut self.made_as),
            ("table.ballast", &mut self.ballast),
        ]
    }

    fn check(&self, base: Option<&Self>) -> Result<(), Refusal> {
        if !self.ledger.is_sound() {
            return Err(Refusal::cannot_accept("part `state`: the counter is not the sum of what it counts"));
        }
        // A delta that brings no ballast leaves the bytes that were looked at before.
        let same = base.is_some_and(|base| Arc::ptr_eq(base.ballast.pieces(), self.ballast.pieces()));
        if !same && !ballast::weigh(self.ballast.pieces(), *self.made_as).intact {
            return Err(Refusal::cannot_accept(
                "part `table.ballast` is not what was sent: its digest differs",
            ));
        }
        Ok(())
    }
}

/// The example worker.
pub struct Counter {
    /// What it holds.
    pub holdings: Tracked<Holdings>,
    vsn: Mutex<String>,
    origin: Mutex<Option<Origin>>,
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
    /// Versions that it can become while it runs (strategy `Live`).
    pub becomes: Vec<String>,
    /// What it answers when it is asked for consent; nothing: it does not ask to be asked.
    pub consent: Option<Consent>,
}

impl Counter {
    /// A counter that holds nothing yet.
    #[must_use]
    pub fn new(options: Options, faults: Faults) -> Self {
        let vsn = Mutex::new(options.vsn.clone());
        let holdings = Tracked::new(Holdings::default());
        Self { holdings, vsn, origin: Mutex::default(), options, faults }
    }

    /// With which words the state was given that it holds; none for what began here.
    pub fn origin(&self) -> Option<Origin> {
        self.origin.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins anew.
    pub fn begin(&self) {
        let pieces = ballast::make(&self.options.process, self.options.state_size);
        self.holdings.change(|holdings| {
            *holdings = Holdings::default();
            *holdings.made_as = ballast::digest(&pieces);
            holdings.ballast.set(pieces);
        });
    }
}

impl Worker for Counter {
    type State = ();

    fn tracked(&self) -> Option<&dyn Track> {
        Some(&self.holdings)
    }

    fn vsn(&self) -> String {
        self.vsn.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    fn before_capture(&self, purpose: CapturePurpose) -> Result<(), Refusal> {
        self.faults.strike(match purpose {
            CapturePurpose::Handover => Point::Capture,
            CapturePurpose::Checkpoint => Point::Checkpoint,
        })
    }

    fn accept(&self, context: &ApplyContext) -> Result<(), Refusal> {
        self.faults.strike(Point::Import)?;
        let ApplyContext { reason, vsn, direction, extra, .. } = context.clone();
        let mut origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        *origin = Some(Origin { reason, vsn, direction, extra });
        Ok(())
    }

    /// Its versions differ in nothing but their name: there is nothing to convert.
    fn change_code(&self, change: &CodeChange) -> Result<(), Refusal> {
        self.faults.strike(Point::CodeChange)?;
        if self.options.becomes.is_empty() {
            return Err(Refusal::not_offered(
                "this counter was not told what it may become: set COUNTER_BECOMES",
            ));
        }
        if !self.options.becomes.contains(&change.to) {
            let message = format!("this counter cannot become `{}`: add it to COUNTER_BECOMES", change.to);
            return Err(Refusal::cannot_accept(&message));
        }
        *self.vsn.lock().unwrap_or_else(PoisonError::into_inner) = change.to.clone();
        Ok(())
    }

    fn asks_consent(&self) -> bool {
        self.options.consent.is_some()
    }

    fn consent(&self, _: &ConsentRequest) -> Consent {
        self.options.consent.unwrap_or(Consent::Ready)
    }
}
