//! `tidegate bench`: throughput as a ratio to a baseline of the same run, latency with what it costs, what a
//! large state costs, the Nexmark queries, results over the wire, each format's decoding, and what a sink writes.

mod answer;
mod decode;
mod definitions;
mod engine;
mod latency;
mod machine;
mod match_events;
mod memory;
mod nexmark;
mod overhead;
mod pipeline;
mod place;
mod process;
mod report;
mod serve;
mod sink;
mod state;

/// Measure this machine: throughput with a baseline from the same run, latency, a large state, the Nexmark queries, results over the wire, decoding,
/// sinks.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    Pipeline(pipeline::Args),
    Latency(latency::Args),
    State(state::Args),
    Nexmark(nexmark::Args),
    Serve(serve::Args),
    Decode(decode::Args),
    Sink(sink::Args),
}

/// Runs a benchmark.
pub async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Pipeline(args) => pipeline::run(args).await,
        Bench::Latency(args) => latency::run(args).await,
        Bench::State(args) => state::run(args).await,
        Bench::Nexmark(args) => nexmark::run(args).await,
        Bench::Serve(args) => serve::run(args).await,
        Bench::Decode(args) => decode::run(args).await,
        Bench::Sink(args) => sink::run(args).await,
    }
}
