//! `tidegate bench`: throughput as a ratio to a baseline of the same run, latency with what it costs, what a
//! large state costs, and the Nexmark queries.

mod latency;
mod nexmark;
mod overhead;
mod pipeline;
mod state;

/// Measure this machine: throughput with a baseline from the same run, latency, a large state, the Nexmark queries.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    Pipeline(pipeline::Args),
    Latency(latency::Args),
    State(state::Args),
    Nexmark(nexmark::Args),
}

/// Runs a benchmark.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Pipeline(args) => pipeline::run(args).await,
        Bench::Latency(args) => latency::run(args).await,
        Bench::State(args) => state::run(args).await,
        Bench::Nexmark(args) => nexmark::run(args).await,
    }
}
