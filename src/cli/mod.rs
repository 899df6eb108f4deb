//! The command line: one file a command.

mod bench;
mod broker;
mod demo;
mod logging;
mod replay;
mod script;
mod send;
mod serve;
mod simulate;
mod sql;
mod user;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Plans of deeply nested SQL recurse; the default 2 MiB of a worker's stack is little for a debug build.
const STACK_BYTES: usize = 8 << 20;

/// Parses the command line and runs one command. Here and not in the program's own file, so that the commands are compiled once.
pub fn main() -> ExitCode {
    let command = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate: can't start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(command.run());
    // A thread that still blocks (on the broker, on a terminal) must not hold the process.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A streaming SQL server: Kafka topics are tables, continuous views are kept up to date, everything is read over Arrow Flight SQL.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Sql(sql::Args),
    Broker(broker::Args),
    #[command(subcommand)]
    User(user::User),
    Simulate(simulate::Args),
    Replay(replay::Args),
    #[command(subcommand)]
    Bench(bench::Bench),
}

impl Cli {
    /// Runs the command that was asked for.
    async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Sql(args) => sql::run(args).await,
            Command::Broker(args) => broker::run(args).await,
            Command::User(command) => user::run(command),
            Command::Simulate(args) => simulate::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Bench(bench) => bench::run(bench).await,
        }
    }
}
