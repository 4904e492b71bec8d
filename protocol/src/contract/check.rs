//! The bounds of the contract's bodies.

use std::collections::BTreeSet;

use super::types::{
    ActivateRequest, ApplyRequest, CaptureAnswer, CaptureRequest, CaptureSummary, CodeChangeRequest,
    ConsentRequest, Info, ResumeRequest, SuspendRequest,
};
use super::{CONTRACT_VERSION, MAX_INTEGER, MAX_PARTS, MAX_TEXT, MAX_VERSIONS, PartName};
use crate::id::Seq;

/// A body that breaks a bound of the contract, by the field that does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The worker speaks another version of the contract.
    #[error("`contract` is {0}, this side speaks version {CONTRACT_VERSION}: use a matching SDK or sidecar")]
    Version(u32),
    /// An integer above [`MAX_INTEGER`].
    #[error("`{0}` is above 2^53 - 1, which JSON readers do not keep exactly: send a smaller integer")]
    Integer(&'static str),
    /// A text above [`MAX_TEXT`] bytes.
    #[error("`{0}` is longer than {MAX_TEXT} bytes: shorten it")]
    Text(&'static str),
    /// A text that must say something and is empty.
    #[error("`{0}` is empty: set it")]
    Empty(&'static str),
    /// More list entries than allowed.
    #[error("`{field}` has more than {max} entries: send fewer")]
    List {
        /// The list.
        field: &'static str,
        /// Most entries that it may have.
        max: usize,
    },
    /// Two parts of one name.
    #[error("`parts` names `{0}` twice: give each part a name of its own")]
    Duplicate(PartName),
    /// A delta on another number than the one that was asked for.
    #[error(
        "`since` is {0}, which was not asked for: answer with the `since` of the request, or a whole state without"
    )]
    Since(Seq),
    /// A delta that ends before it begins.
    #[error("`seq` {seq} is below `since` {since}: numbers only grow")]
    Backwards {
        /// Number of the state that the delta leads to.
        seq: Seq,
        /// Number of the state that it starts from.
        since: Seq,
    },
}

fn integer(field: &'static str, value: u64) -> Result<(), Violation> {
    if value <= MAX_INTEGER { Ok(()) } else { Err(Violation::Integer(field)) }
}

fn optional(field: &'static str, value: Option<u64>) -> Result<(), Violation> {
    value.map_or(Ok(()), |value| integer(field, value))
}

/// A delta leads to a state that is no older than the one it starts from.
fn forwards(since: Option<Seq>, seq: Seq) -> Result<(), Violation> {
    match since {
        Some(since) if seq < since => Err(Violation::Backwards { seq, since }),
        _ => Ok(()),
    }
}

fn text(field: &'static str, value: &str) -> Result<(), Violation> {
    if value.len() <= MAX_TEXT { Ok(()) } else { Err(Violation::Text(field)) }
}

fn versions(field: &'static str, list: &[String]) -> Result<(), Violation> {
    if list.len() > MAX_VERSIONS {
        return Err(Violation::List { field, max: MAX_VERSIONS });
    }
    list.iter().try_for_each(|vsn| text(field, vsn))
}

fn parts<'a>(names: impl ExactSizeIterator<Item = &'a PartName>) -> Result<(), Violation> {
    if names.len() > MAX_PARTS {
        return Err(Violation::List { field: "parts", max: MAX_PARTS });
    }
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Violation::Duplicate(name.clone()));
        }
    }
    Ok(())
}

impl Info {
    /// Whether this is version 1 and within its bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        if self.contract != CONTRACT_VERSION {
            return Err(Violation::Version(self.contract));
        }
        if self.instance.is_empty() {
            return Err(Violation::Empty("instance"));
        }
        text("instance", &self.instance)?;
        text("vsn", &self.vsn)?;
        integer("epoch", self.epoch.0)?;
        integer("seq", self.seq)?;
        integer("load", self.load)?;
        versions("deltaFrom", &self.delta_from)?;
        versions("acceptsFrom", &self.accepts_from)
    }
}

impl SuspendRequest {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("epoch", self.epoch.0)
    }
}

impl ResumeRequest {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("epoch", self.epoch.0)
    }
}

impl CaptureRequest {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("epoch", self.epoch.0)?;
        optional("since", self.since)?;
        optional("unlessSeq", self.unless_seq)
    }
}

impl CaptureAnswer {
    /// Whether it is within bounds and names no part twice.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("seq", self.seq)?;
        text("vsn", &self.vsn)?;
        optional("since", self.since)?;
        forwards(self.since, self.seq)?;
        parts(self.parts.iter().map(|part| &part.name))?;
        self.parts.iter().try_for_each(|part| optional("parts.bytes", part.bytes))
    }

    /// Whether it is within bounds and what `request` asked for: a whole state, or a delta on exactly its `since`.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check_for(&self, request: &CaptureRequest) -> Result<(), Violation> {
        self.check()?;
        match self.since {
            Some(since) if request.since != Some(since) => Err(Violation::Since(since)),
            _ => Ok(()),
        }
    }
}

impl CaptureSummary {
    /// Whether it is within bounds and names no part twice.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        parts(self.parts.iter().map(|part| &part.name))?;
        self.parts.iter().try_for_each(|part| integer("parts.bytes", part.bytes))
    }
}

impl ApplyRequest {
    /// Whether it is within bounds and names no part twice.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("epoch", self.epoch.0)?;
        text("vsn", &self.vsn)?;
        integer("seq", self.seq)?;
        optional("since", self.since)?;
        forwards(self.since, self.seq)?;
        parts(self.parts.iter().map(|part| &part.name))?;
        self.parts.iter().try_for_each(|part| integer("parts.bytes", part.bytes))
    }
}

impl ConsentRequest {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        self.forced_at_time.as_deref().map_or(Ok(()), |time| text("forcedAtTime", time))
    }
}

impl CodeChangeRequest {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("epoch", self.epoch.0)?;
        text("from", &self.from)?;
        text("to", &self.to)
    }
}

impl ActivateRequest {
    /// Whether it is within bounds.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Violation> {
        integer("epoch", self.epoch.0)?;
        optional("mayMiss", self.may_miss)
    }
}
