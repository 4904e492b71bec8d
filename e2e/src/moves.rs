//! What moved, as the objects say it.

use processhub_crds::{
    HubProcess, MigrationKind, MigrationRecord, MigrationResult, MigrationSummary, MigrationTrigger,
};
use serde::Serialize;

/// One move that ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// The process.
    pub process: String,
    /// Epoch taken for it.
    pub epoch: u64,
    /// How.
    pub kind: MigrationKind,
    /// What caused it.
    pub trigger: MigrationTrigger,
    /// Node that it left.
    pub from: Option<String>,
    /// Node that it went to.
    pub to: Option<String>,
    /// How it ended.
    pub result: MigrationResult,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// Bytes of state handed over.
    pub bytes: Option<u64>,
    /// By the sidecars' clock, in milliseconds.
    pub blackout: Option<u64>,
    /// Wall clock, microseconds since the epoch.
    pub ended: u64,
}

impl Move {
    /// Every move that an object tells of, oldest first: the last one whole, and those before it in short.
    #[must_use]
    pub fn all(name: &str, process: &HubProcess) -> Vec<Self> {
        let Some(status) = &process.status else { return Vec::new() };
        let last = status.last_migration.as_ref();
        let mut moves: Vec<_> = status
            .history
            .iter()
            .rev()
            .filter(|summary| last.is_none_or(|last| last.epoch != summary.epoch))
            .map(|summary| Self::short(name, summary))
            .collect();
        moves.extend(last.map(|record| Self::whole(name, record)));
        moves
    }

    fn whole(process: &str, record: &MigrationRecord) -> Self {
        Self { bytes: record.bytes, ..Self::short(process, &MigrationSummary::from(record)) }
    }

    fn short(process: &str, summary: &MigrationSummary) -> Self {
        Self {
            process: process.to_owned(),
            epoch: summary.epoch,
            kind: summary.kind,
            trigger: summary.trigger,
            from: summary.from.clone(),
            to: summary.to.clone(),
            result: summary.result,
            reason: summary.reason.map(|reason| reason.to_string()),
            bytes: None,
            blackout: summary.blackout_milliseconds,
            ended: u64::try_from(summary.completion_time.0.as_microsecond()).unwrap_or(0),
        }
    }

    /// Whether it was to carry a process from one node to another.
    #[must_use]
    pub fn is_swap(&self) -> bool {
        matches!(self.kind, MigrationKind::HotSwap | MigrationKind::ColdSwap)
    }

    /// Whether the other is the same move.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (&self.process, self.epoch) == (&other.process, other.epoch)
    }

    /// Whether it did.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.result == MigrationResult::Succeeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(epoch: u64) -> MigrationRecord {
        serde_json::from_value(json!({
            "epoch": epoch, "kind": "HotSwap", "result": "Succeeded", "trigger": "Wish", "withState": true,
            "source": { "pod": "a-1", "node": "n1", "epoch": 1 }, "bytes": 10,
            "target": { "pod": "a-2", "node": "n2", "epoch": epoch }, "blackoutMilliseconds": 7,
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn a_move_that_no_event_showed_is_read_from_the_history() {
        let mut process = HubProcess::default();
        let status = process.status.insert(processhub_crds::HubProcessStatus::default());
        status.record(record(2));
        status.record(record(3));
        let moves = Move::all("a", &process);
        assert_eq!(
            moves.iter().map(|moved| (moved.epoch, moved.bytes)).collect::<Vec<_>>(),
            [(2, None), (3, Some(10))]
        );
        assert_eq!(moves[0].blackout, Some(7));
    }
}
