//! The table at the end.

use serde::Serialize;

use crate::moves::Move;
use crate::oracle::Percentiles;
use crate::trial::Verdict;

/// The table. Requests to processes that lost their state with a node have lines of their own where they must.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    acknowledged: u64,
    found: u64,
    pub(super) lost: u64,
    lost_with_the_node: u64,
    pub(super) duplicated: u64,
    unknown: u64,
    errors: u64,
    blackout: Percentiles,
    client_gap: Percentiles,
    moves: Vec<Move>,
}

impl Summary {
    pub(super) fn of(verdict: &Verdict) -> Self {
        let (whole, robbed) = (&verdict.account, &verdict.excused);
        Self {
            acknowledged: whole.acknowledged + robbed.acknowledged,
            found: whole.found + robbed.found,
            lost: whole.lost,
            lost_with_the_node: robbed.lost,
            duplicated: whole.duplicated,
            unknown: whole.unknown + robbed.unknown,
            errors: whole.errors + robbed.errors,
            blackout: verdict.blackout(),
            client_gap: verdict.client_gap(),
            moves: verdict.moves.clone(),
        }
    }

    pub(super) fn print(&self, verdict: &Verdict) {
        let swaps = self.moves.iter().filter(|moved| moved.is_swap()).count();
        println!("\n{swaps} processes moved");
        for (what, count) in [
            ("requests acknowledged", self.acknowledged),
            ("found", self.found),
            ("lost", self.lost),
            ("lost with the node", self.lost_with_the_node),
            ("duplicated", self.duplicated),
            ("outcome unknown", self.unknown),
            ("errors that clients saw", self.errors),
        ] {
            println!("  {what:<26}{count:>9}");
        }
        for (what, of) in
            [("blackout (sidecars), ms", self.blackout), ("longest client gap, ms", self.client_gap)]
        {
            println!("  {what:<26}p50 {:>7.1}  p99 {:>7.1}  max {:>7.1}", of.p50, of.p99, of.max);
        }
        for sample in verdict.account.error_samples.iter().chain(&verdict.excused.error_samples) {
            println!("  seen: {sample}");
        }
    }
}
