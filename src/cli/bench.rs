//! `tidegate bench`: figures, each as a ratio to a baseline of the same run.

/// Measure this machine; every figure comes with a baseline from the same run.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {}

/// Runs a benchmark.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {}
}
