//! The few commands a person types: `cargo xtask <command>`.

mod bench;
mod cluster;
mod demo;
#[cfg(test)]
mod docs;
mod generate;
mod model;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What is done to this repository by hand.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What things cost, measured
    #[command(subcommand)]
    Bench(bench::Command),
    /// A real Kubernetes cluster of many nodes on this machine
    Cluster(cluster::Arguments),
    /// Every generated file of the repository, again
    Generate,
    /// The main job: processes move with their state while nodes come and go
    Demo(processhub_e2e::demo::Options),
    /// The exhaustive exploration of the hand-over protocol
    Model(model::Arguments),
    /// Every check and every test
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bench(command) => bench::run(command),
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::Generate => generate::run(),
        Command::Demo(options) => demo::run(options),
        Command::Model(arguments) => model::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Without a backtrace: these are answers to a person.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
