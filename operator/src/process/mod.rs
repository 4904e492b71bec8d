//! The process loop.

pub mod incarnation;
pub mod pod;
pub mod record;
