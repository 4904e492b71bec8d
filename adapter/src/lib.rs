//! Speaks the worker contract for an application that does not.
//!
//! The adapter is the first process of the container `worker`. It starts the application as its child, and takes and
//! gives the process's state in one of two ways: as the files of a directory, or through a pair of commands, `dump` and
//! `load`. Clients do not pass through it: the sidecar talks to the application itself.
//!
//! * [`args`]: the command line, and the [`plan`](plan::Plan) that it comes to.
//! * [`application`]: the child process.
//! * [`shell`]: commands, with their time limit, exit code and what they complained of.
//! * [`archive`] and [`restore`]: a directory as a stream, and back.
//! * [`capture`] and [`import`]: a state on its way out and in.
//! * [`core`]: the commands of the contract; [`control`] serves them.

pub mod application;
pub mod archive;
pub mod args;
pub mod capture;
pub mod control;
pub mod core;
pub mod import;
pub mod install;
pub mod plan;
pub mod restore;
pub mod serve;
pub mod shell;
