//! What things cost, measured.

pub mod footprint;
pub mod moves;
