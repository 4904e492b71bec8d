//! Judges: what was promised, checked offline against what clients saw and what the processes hold in the end.

mod account;
mod gaps;
mod order;
mod ownership;

pub use account::{Account, Applied, account};
pub use gaps::{Percentiles, gaps_after, longest_gaps};
pub use order::{Disorder, check_order};
pub use ownership::{PodVersion, ProcessVersion, check_ownership};
