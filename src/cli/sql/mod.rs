//! `tidegate sql`: a client over Flight SQL.

mod output;

use std::{
    error::Error,
    io::{IsTerminal, Read, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use arrow_flight::{HandshakeRequest, error::FlightError, flight_service_client::FlightServiceClient, sql::client::FlightSqlServiceClient};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tonic::transport::{Channel, Endpoint, Uri};

use self::output::{Format, Output};
use crate::{sql::split, tls::connector};

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
    /// Who to log in as. The password is that of TIDEGATE_PASSWORD, or asked for on a terminal; a token is that of TIDEGATE_TOKEN
    #[arg(long, env = "TIDEGATE_USER")]
    user: Option<String>,
    /// The authority that the server's certificate has to be of, in PEM, for grpc+tls:// [default: those of the system]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// A certificate to show the server, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
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
    let login = login(&args)?;
    let work = async {
        let mut client = connect(&args).await?;
        log_in(&mut client, login).await?;
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

/// What the server is to know the caller by.
enum Login {
    Nothing,
    Password { user: String, password: String },
    Token(String),
}

fn login(args: &Args) -> anyhow::Result<Login> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(user) = args.user.clone() else { return Ok(variable("TIDEGATE_TOKEN").map_or(Login::Nothing, Login::Token)) };
    let mut terminal = console::Term::stderr();
    let password = match variable("TIDEGATE_PASSWORD") {
        Some(password) => password,
        None if std::io::stdin().is_terminal() && terminal.is_term() => {
            write!(terminal, "password for {user}: ")?;
            terminal.read_secure_line()?
        }
        None => bail!("there is no terminal to ask for the password of {user}: set TIDEGATE_PASSWORD"),
    };
    Ok(Login::Password { user, password })
}

async fn connect(args: &Args) -> anyhow::Result<FlightSqlServiceClient<Channel>> {
    let url = &args.url;
    let (scheme, rest) = url.split_once("://").ok_or_else(|| anyhow!("'{url}' is not a server's address: write grpc://HOST:PORT"))?;
    let with_tls = match scheme {
        "grpc" | "grpc+tcp" | "http" => false,
        "grpc+tls" | "https" => true,
        _ => bail!("can't connect to '{url}': write grpc://HOST:PORT, or grpc+tls://HOST:PORT"),
    };
    // With TLS as well: the connection below brings it.
    let endpoint = Endpoint::from_shared(format!("http://{rest}")).with_context(|| format!("'{url}' is not a server's address"))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(Duration::from_secs(20));
    let channel = match with_tls {
        true => {
            let connector = connector(args.tls_ca.as_ref(), args.tls_cert.as_ref().zip(args.tls_key.as_ref()))?;
            endpoint.connect_with_connector(tower::service_fn(move |to: Uri| over_tls(connector.clone(), to))).await
        }
        false if args.tls_ca.is_some() || args.tls_cert.is_some() => bail!("'{url}' is without TLS: write grpc+tls://HOST:PORT"),
        false => endpoint.connect().await,
    };
    let channel = channel.with_context(|| format!("can't connect to {url}; is the server running?"))?;
    // The server divides batches; a single row may still be large.
    Ok(FlightSqlServiceClient::new_from_inner(FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX)))
}

async fn over_tls(connector: TlsConnector, to: Uri) -> std::io::Result<TokioIo<TlsStream<TcpStream>>> {
    let host = to.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((host.as_str(), to.port_u16().unwrap_or(443))).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).map_err(std::io::Error::other)?;
    let shaken = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
    Ok(TokioIo::new(shaken.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??))
}

async fn log_in(client: &mut FlightSqlServiceClient<Channel>, login: Login) -> anyhow::Result<()> {
    let (user, password) = match login {
        Login::Nothing => return Ok(()),
        Login::Token(token) => {
            client.set_token(token);
            return Ok(());
        }
        Login::Password { user, password } => (user, password),
    };
    let header = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let mut request = tonic::Request::new(futures::stream::iter([HandshakeRequest::default()]));
    request.metadata_mut().insert("authorization", header.parse().context("the password can't be sent")?);
    let answer = client.inner_mut().handshake(request).await.map_err(|status| sentence(FlightError::from(status)))?;
    let header = answer.metadata().get("authorization").and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer ")).ok_or_else(|| anyhow!("the server gave no token"))?;
    client.set_token(token.to_owned());
    Ok(())
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
