//! `tidegate serve`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{logging, script};
use crate::{
    catalog::{Hidden, KeySource},
    config::{Config, DEFAULT_DATA_DIR, DEFAULT_LISTEN, LogFormat, Size, Span, TlsChoice, Typed},
    console::Console,
    serve::{Options, Server, listen},
    session::{Engine, EngineConfig},
    stream::failpoints,
    tls::{Tls, TlsFiles, self_signed},
};

/// How long the last checkpoints may take; with the server's own grace a stop stays below ten seconds.
const LAST_CHECKPOINT: Duration = Duration::from_secs(7);

/// Run the server.
///
/// Settings come from the file, the environment (TIDEGATE_LISTEN, TIDEGATE_DATA_DIR, …, one for each key of the file) and the flags; the later wins.
/// Prints 'listening on grpc://HOST:PORT' when clients can connect. Stops on SIGTERM and SIGINT (Ctrl-C) after a last checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// A TOML file with settings [env: TIDEGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "HOST:PORT", help = format!("Where to listen; port 0 takes a free one. Other than loopback addresses need users, or --insecure [default: {DEFAULT_LISTEN}]"))]
    listen: Option<String>,
    /// Where to serve metrics and health over HTTP (/metrics, /healthz, /readyz); port 0 takes a free one. The same holds as for --listen [default: nowhere]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    #[arg(long, value_name = "DIR", help = format!("Where the catalog and the checkpoints live; one server at a time [default: {DEFAULT_DATA_DIR}]"))]
    data_dir: Option<PathBuf>,
    /// Where checkpoints live: s3://BUCKET/PREFIX or file:///FOLDER [default: in the data directory]
    #[arg(long, value_name = "URL")]
    checkpoint_url: Option<String>,
    /// How often state is checkpointed [default: 10s]
    #[arg(long, value_name = "TIME")]
    checkpoint_interval: Option<Span>,
    /// What all views and queries together may hold in memory, as in '8 GiB': a view that would hold more is paused [default: three quarters of
    /// what there is]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<Size>,
    /// Where records are decoded, unless a session or a view says something else: auto, cpu or gpu. With gpu the server does not start without one [default: auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// A SQL script to run before listening; may be given again. It runs at every start, so write IF NOT EXISTS
    #[arg(long, value_name = "FILE.sql")]
    init: Vec<PathBuf>,
    /// A folder that SQL may read files below; may be given again. Without any, SQL reads no files
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<PathBuf>,
    /// The server's certificate for TLS, in PEM, with those between it and its authority behind it. Read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authorities in PEM: clients have to show a certificate of one of them
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Make a certificate in the data directory, and use it; prints where the authority's is that clients have to trust
    #[arg(long, conflicts_with = "tls_cert")]
    tls_self_signed: bool,
    /// Let whoever reaches the port do everything, also on addresses that others reach
    #[arg(long)]
    insecure: bool,
    /// How long a token counts that is given for a password [default: 12h]
    #[arg(long, value_name = "TIME")]
    token_lifetime: Option<Span>,
    /// A file with the key that secrets are encrypted with: 32 bytes in base64 or hex (`openssl rand -base64 32`); TIDEGATE_SECRET_KEY has the key itself
    /// [default: secret.key in the data directory, which is made]
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter such as 'tidegate=debug,rdkafka=info' [default: info]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How to log, on standard error [default: text]
    #[arg(long, value_enum)]
    log_format: Option<LogFormat>,
}

const AFTER_HELP: &str = "\
Settings of the file (with their defaults):
  listen = '127.0.0.1:50051'      data_dir = './tidegate-data'
  allow_paths = []                init = []
  min_epoch_interval = '5ms'      checkpoint_interval = '10s'
  max_epoch_bytes = '64 MiB'      max_epoch_rows = 1048576
  checkpoint_url = <in data_dir>
  threads = <cores>               heartbeat_interval = '5s'
  device = 'auto'
  memory_limit = <3/4 of memory>  query_memory_limit = <half of that>
  max_statements = 64             max_queued = 512
  queue_timeout = '1m'            statement_timeout = (none)
  spill_limit = '16 GiB'          max_connections = 10000
  max_sessions = 10000            session_timeout = '1h'
  max_prepared_statements = 1000  max_message_size = '64 MiB'
  max_header_size = '64 KiB'      handshake_timeout = '10s'
  keepalive_interval = '20s'
  log = 'info'                    log_format = 'text'
  http = (none)                   token_lifetime = '12h'
  tls_cert, tls_key, tls_client_ca = (none)
  secret_key_file = <in data_dir>
  tls_self_signed = false         insecure = false
  [auth.jwt]                      issuer, audience, jwks (a file or an https:// address)
    algorithms = ['RS256', 'ES256']  user_claim = 'sub'  role_claim = 'roles'

Users: `tidegate user add NAME --admin` makes the first one, and so does TIDEGATE_ADMIN_PASSWORD in
the environment ('admin', if there are none). Without users whoever reaches the port may do
everything, and only loopback addresses are served.

Connect:
  tidegate sql -c 'SHOW SOURCES'
  Python: adbc_driver_flightsql.dbapi.connect('grpc://127.0.0.1:50051', autocommit=True)
  DBeaver: jdbc:arrow-flight-sql://127.0.0.1:50051?useEncryption=false";

impl Args {
    fn config(self) -> anyhow::Result<Config> {
        let file = self.config.or_else(|| std::env::var_os("TIDEGATE_CONFIG").map(PathBuf::from));
        let some = |paths: Vec<PathBuf>| (!paths.is_empty()).then_some(paths);
        let flags = Typed {
            listen: self.listen,
            http: self.http,
            data_dir: self.data_dir,
            checkpoint_url: self.checkpoint_url,
            checkpoint_interval: self.checkpoint_interval,
            memory_limit: self.memory_limit,
            device: self.device,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            tls_client_ca: self.tls_client_ca,
            tls_self_signed: self.tls_self_signed.then_some(true),
            insecure: self.insecure.then_some(true),
            token_lifetime: self.token_lifetime,
            secret_key_file: self.secret_key_file,
            init: some(self.init),
            allow_paths: some(self.allow_path),
            log: self.log,
            log_format: self.log_format,
            ..Typed::default()
        };
        // A variable that is not UTF-8 can't be one of ours.
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Ok(Config::load(file.as_deref(), environment, flags)?)
    }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.config()?;
    logging::start(config.log());
    failpoints::arm()?;
    let asked_to_stop = StopSignals::listen()?;

    // The port first: a taken one is known before anything is restored or run. Nobody is answered before all is ready.
    let listener = listen(config.listen()).await?;
    let tls = tls(&config)?;
    let console = match config.http() {
        Some(address) => Some(Console::start(address, tls.clone()).await?),
        None => None,
    };
    let engine = Engine::start(with_secret_key(config.engine().clone())?).await?;
    let served = serve(&engine, listener, &config, console.as_ref(), tls, asked_to_stop).await;
    // Also after a failure: what was restored and consumed so far is kept.
    match tokio::time::timeout(LAST_CHECKPOINT, engine.stop()).await {
        Ok(stopped) => stopped.context("can't take a last checkpoint")?,
        Err(_) => tracing::warn!("the last checkpoint took too long; the next start goes on from the one before"),
    }
    served?;
    tracing::info!("stopped");
    Ok(())
}

/// The key for secrets may be in the environment: there it is in no file and in no list of processes.
fn with_secret_key(mut config: EngineConfig) -> anyhow::Result<EngineConfig> {
    match std::env::var("TIDEGATE_SECRET_KEY") {
        Ok(_) if config.secret_key != KeySource::DataDir => {
            anyhow::bail!("the key for secrets is given twice, by TIDEGATE_SECRET_KEY and by secret_key_file: leave one out")
        }
        Ok(key) => config.secret_key = KeySource::Given(Hidden(key)),
        Err(std::env::VarError::NotPresent) => {}
        Err(std::env::VarError::NotUnicode(_)) => anyhow::bail!("TIDEGATE_SECRET_KEY is no text: write 32 bytes in base64 or hex"),
    }
    Ok(config)
}

async fn serve(
    engine: &Arc<Engine>,
    listener: TcpListener,
    config: &Config,
    console: Option<&Console>,
    tls: Option<Arc<Tls>>,
    mut asked_to_stop: StopSignals,
) -> anyhow::Result<()> {
    first_admin(engine).await?;
    let scheme = if tls.is_some() { "grpc+tls" } else { "grpc" };
    let options = Options { heartbeat: config.heartbeat_interval(), limits: config.engine().clients.clone(), tls, insecure: config.insecure() };
    let server = Server::on(engine.clone(), listener)?.with_options(options);
    let prepared = async {
        for path in config.init() {
            init(engine, path).await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        prepared = prepared => prepared?,
        () = asked_to_stop.next() => return Ok(()),
    }

    // Scripts may have made users.
    server.check_reach()?;
    let address = server.local_addr();
    let running = server.run(async move {
        asked_to_stop.next().await;
        tracing::info!("stopping; once more to stop at once");
        tokio::spawn(async move {
            asked_to_stop.next().await;
            // 128 + SIGINT, as a shell would report it.
            std::process::exit(130);
        });
    });
    tracing::info!(%address, data_dir = %config.engine().data_dir.display(), "serving");
    // Whoever started the server may have closed its output; that is no reason not to serve.
    let mut output = std::io::stdout();
    if let Some(console) = console {
        console.show(engine.clone(), config.insecure())?;
        let _ = writeln!(output, "http on {}", console.url());
    }
    let _ = writeln!(output, "listening on {scheme}://{address}").and_then(|()| output.flush());
    Ok(running.await?)
}

/// `TIDEGATE_ADMIN_PASSWORD` makes the first user, where nobody can be asked to.
async fn first_admin(engine: &Arc<Engine>) -> anyhow::Result<()> {
    let Some(password) = std::env::var_os("TIDEGATE_ADMIN_PASSWORD").filter(|password| !password.is_empty()) else { return Ok(()) };
    let access = engine.access().clone();
    if !access.users().is_empty() {
        return Ok(());
    }
    let password = password.into_string().map_err(|_| anyhow::anyhow!("TIDEGATE_ADMIN_PASSWORD is not UTF-8: choose another password"))?;
    tokio::task::spawn_blocking(move || access.create_user("admin", &password, true, false)).await?.context("TIDEGATE_ADMIN_PASSWORD")?;
    tracing::info!("there were no users: admin has the password of TIDEGATE_ADMIN_PASSWORD");
    Ok(())
}

/// TLS as it is configured; its files are read again on SIGHUP.
fn tls(config: &Config) -> anyhow::Result<Option<Arc<Tls>>> {
    let files = match config.tls() {
        TlsChoice::None => return Ok(None),
        TlsChoice::Files(files) => files.clone(),
        TlsChoice::SelfSigned { client_ca } => {
            let made = self_signed(&config.engine().data_dir, &[config.listen().ip()])?;
            // Whoever started the server may have closed its output.
            let _ = writeln!(std::io::stdout(), "clients trust the authority in {}", made.ca.display());
            TlsFiles { client_ca: client_ca.clone(), ..made.files }
        }
    };
    let tls = Tls::load(files)?;
    let (mut asked, reloaded) = (signal(SignalKind::hangup())?, tls.clone());
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            match reloaded.reload() {
                Ok(()) => tracing::info!("the certificates were read again"),
                Err(error) => tracing::error!("the certificates stay as they are: {error}"),
            }
        }
    });
    Ok(Some(tls))
}

async fn init(engine: &Arc<Engine>, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read the script '{}'", path.display()))?;
    Ok(script::run(&engine.session(), &path.display().to_string(), &text).await?)
}

/// SIGTERM and SIGINT, caught from the moment this is made.
pub(super) struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
