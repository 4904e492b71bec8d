//! What things cost, measured.

pub mod footprint;
pub mod kills;
pub mod moves;
