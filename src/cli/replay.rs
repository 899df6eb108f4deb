//! `tidegate replay`.

/// Send the matches of a StatsBomb open-data folder to a topic.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
