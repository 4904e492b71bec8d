//! Clients, judges, scenarios and the demonstration: everything that runs the whole system and says whether it kept its
//! promises.

pub mod artifacts;
pub mod bench;
pub mod cargo;
pub mod demo;
pub mod journal;
pub mod load;
pub mod moves;
pub mod oracle;
pub mod scenario;
pub mod site;
pub mod trial;
pub mod wait;
