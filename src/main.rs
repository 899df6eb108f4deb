//! The `tidegate` program: parses the command line and runs one command.

use std::process::ExitCode;

use clap::Parser;

/// Plans of deeply nested SQL recurse; the default 2 MiB of a worker's stack is little for a debug build.
const STACK_BYTES: usize = 8 << 20;

fn main() -> ExitCode {
    let command = tidegate::cli::Cli::parse();
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
