//! Clients, judges, scenarios and the demonstration: everything that runs the whole system and says whether it kept its
//! promises.

pub mod load;
pub mod oracle;
