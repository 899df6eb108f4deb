//! `tidegate sql`: a client over Flight SQL.

mod output;

use std::{
    error::Error,
    io::{IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use arrow_flight::{error::FlightError, flight_service_client::FlightServiceClient, sql::client::FlightSqlServiceClient};
use futures::StreamExt;
use tonic::transport::{Channel, Endpoint};

use self::output::{Format, Output};
use crate::sql::split;

/// How long to try to reach the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Rows that arrive within this time of each other are shown as one table.
const TABLE_PAUSE: Duration = Duration::from_millis(100);

/// Run SQL on a server, over Flight SQL.
///
/// Several statements are separated by semicolons and run in order: first those of -c, then those of -f, or else standard input.
/// The first error ends the command with status 1. Results that never end (EMIT CHANGES) are shown as they come; Ctrl-C ends them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server
    #[arg(long, env = "TIDEGATE_URL", default_value = "grpc://127.0.0.1:50051")]
    url: String,
    /// SQL to run; may be given again
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// A file of SQL to run; may be given again
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to show rows: csv and json are one row a line, json with NULLs as null
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Before Ctrl-C is caught: whoever waits at the terminal must be able to leave.
    let statements = statements(&args)?;
    let work = async {
        let mut client = connect(&args.url).await?;
        let mut output = Output::new(args.format);
        for statement in statements {
            match answer(&mut client, &statement, &mut output).await {
                // Whoever read the output has seen enough: `tidegate sql … | head`.
                Err(error) if is_broken_pipe(&error) => return Ok(()),
                answered => answered?,
            }
        }
        Ok(())
    };
    tokio::select! {
        done = work => done,
        // Leaving drops the result's stream, which ends the statement on the server.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn statements(args: &Args) -> anyhow::Result<Vec<String>> {
    let mut statements = vec![];
    for command in &args.commands {
        statements.extend(split(command)?);
    }
    for file in &args.files {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read '{}'", file.display()))?;
        statements.extend(split(&text).with_context(|| file.display().to_string())?);
    }
    if args.commands.is_empty() && args.files.is_empty() {
        if std::io::stdin().is_terminal() {
            eprintln!("reading SQL from the terminal; end it with Ctrl-D");
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("can't read standard input")?;
        statements.extend(split(&text)?);
    }
    Ok(statements)
}

async fn connect(url: &str) -> anyhow::Result<FlightSqlServiceClient<Channel>> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| anyhow!("'{url}' is not a server's address: write grpc://HOST:PORT"))?;
    if !matches!(scheme, "grpc" | "grpc+tcp" | "http") {
        bail!("can't connect to '{url}': only grpc:// (without TLS) is supported");
    }
    let endpoint = Endpoint::from_shared(format!("http://{rest}")).with_context(|| format!("'{url}' is not a server's address"))?;
    let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(Duration::from_secs(20)).connect().await;
    let channel = channel.with_context(|| format!("can't connect to {url}; is the server running?"))?;
    // The server divides batches; a single row may still be large.
    Ok(FlightSqlServiceClient::new_from_inner(FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX)))
}

async fn answer(client: &mut FlightSqlServiceClient<Channel>, statement: &str, output: &mut Output) -> anyhow::Result<()> {
    let info = client.execute(statement.to_owned(), None).await.map_err(sentence)?;
    let schema = info.clone().try_decode_schema()?;
    if schema.fields().is_empty() {
        // It has taken effect; there is nothing to fetch.
        return output.done();
    }
    output.begin(schema.into());
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or_else(|| anyhow!("the server told no ticket"))?;
        let mut batches = client.do_get(ticket).await.map_err(sentence)?;
        loop {
            match tokio::time::timeout(TABLE_PAUSE, batches.next()).await {
                Ok(Some(batch)) => output.batch(batch.map_err(sentence)?)?,
                Ok(None) => break,
                Err(_) => output.pause()?,
            }
        }
    }
    output.end()
}

/// What the server said, without the protocol around it.
fn sentence(error: FlightError) -> anyhow::Error {
    match error {
        // A status that has a cause was made here, not sent by the server.
        FlightError::Tonic(status) if status.source().is_some() => anyhow!("the connection to the server broke: {}", status.message()),
        FlightError::Tonic(status) if status.message().is_empty() => anyhow!("{}", status.code().description()),
        FlightError::Tonic(status) => anyhow!("{}", status.message()),
        other => anyhow::Error::from(other),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
