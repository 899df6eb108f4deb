//! `tidegate bench`: throughput as a ratio to a baseline of the same run, and latency with what it costs.

mod latency;
mod overhead;
mod pipeline;

/// Measure this machine: throughput with a baseline from the same run, and latency.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    Pipeline(pipeline::Args),
    Latency(latency::Args),
}

/// Runs a benchmark.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Pipeline(args) => pipeline::run(args).await,
        Bench::Latency(args) => latency::run(args).await,
    }
}
