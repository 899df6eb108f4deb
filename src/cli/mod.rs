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

use clap::{Parser, Subcommand};

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
    Simulate(simulate::Args),
    Replay(replay::Args),
    #[command(subcommand)]
    Bench(bench::Bench),
}

impl Cli {
    /// Runs the command that was asked for.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Sql(args) => sql::run(args).await,
            Command::Broker(args) => broker::run(args).await,
            Command::Simulate(args) => simulate::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Bench(bench) => bench::run(bench).await,
        }
    }
}
