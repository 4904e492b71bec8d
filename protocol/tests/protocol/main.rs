//! Golden decisions of the fence, the ledger and the operator's machine, one per situation.

mod aborted;
mod committed;
mod fence;
mod fence_orders;
mod ledger;
mod parts;
mod prepared;
mod replicas;
mod steady;
mod tenure;
