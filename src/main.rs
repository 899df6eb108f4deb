//! The `tidegate` program: parses the command line and runs one command.

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match tidegate::cli::Cli::parse().run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
