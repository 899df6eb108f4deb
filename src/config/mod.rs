//! Configuration in two stages: what was typed (file < environment < flags), then one checked value.
//!
//! Unknown keys are refused in the file and in the environment, so that a misspelt setting is not silently a default.

mod typed;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use crate::units::{Size, Span};
pub use typed::{LogFormat, Typed};
use typed::{Texts, TypedJwt};

use crate::{
    access::{IssuerConfig, KeySource as JwtKeys},
    catalog::KeySource,
    error::{Error, Result},
    session::{ClientLimits, EngineConfig, Setting, StatementLimits},
    tls::TlsFiles,
};

/// Where the server listens if nobody says.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:50051";
/// Where the data is kept if nobody says.
pub const DEFAULT_DATA_DIR: &str = "./tidegate-data";

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    listen: SocketAddr,
    http: Option<SocketAddr>,
    engine: EngineConfig,
    heartbeat_interval: Duration,
    tls: TlsChoice,
    insecure: bool,
    init: Vec<PathBuf>,
    log: LogConfig,
}

/// Where TLS comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsChoice {
    /// There is none.
    None,
    /// From files.
    Files(TlsFiles),
    /// From a certificate in the data directory, which is made if there is none; and who vouches for clients, if they have to show one.
    SelfSigned {
        /// See [`TlsFiles::client_ca`].
        client_ca: Option<PathBuf>,
    },
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// A filter as `tracing` takes it.
    pub filter: String,
    /// Text for people or JSON for machines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "warn,tidegate=info".to_owned(), format: LogFormat::Text }
    }
}

impl Config {
    /// Reads the file (if there is one), the environment, and lays the flags over them.
    pub fn load(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>, flags: Typed) -> Result<Self> {
        let from_file = file.map(Typed::from_file).transpose()?.unwrap_or_default();
        let from_environment = Typed::from_environment(environment)?;
        Self::check(flags.over(from_environment).over(from_file))
    }

    /// Checks what was typed.
    pub fn check(typed: Typed) -> Result<Self> {
        let listen = address(typed.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?;
        let http = typed.http.as_deref().map(address).transpose()?;
        let mut engine = EngineConfig::new(typed.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()));
        for path in typed.allow_paths.unwrap_or_default() {
            engine.allowed_paths.push(folder(&path)?);
        }
        let seconds = Duration::from_secs;
        set(&mut engine.min_epoch_interval, "min_epoch_interval", typed.min_epoch_interval.map(|span| span.0), Duration::ZERO, seconds(60))?;
        set(&mut engine.checkpoint_interval, "checkpoint_interval", typed.checkpoint_interval.map(|span| span.0), Duration::from_millis(100), seconds(86_400))?;
        engine.checkpoint_url = typed.checkpoint_url.map(url).transpose()?;
        set(&mut engine.max_epoch_bytes, "max_epoch_bytes", typed.max_epoch_bytes.map(|size| size.0), 1 << 10, 4 << 30)?;
        set(&mut engine.max_epoch_rows, "max_epoch_rows", typed.max_epoch_rows.map(|size| size.0), 1, 1 << 30)?;
        set(&mut engine.threads, "threads", typed.threads.map(|size| size.0), 1, 1024)?;
        if let Some(device) = typed.device {
            engine.device = device.parse().map_err(|_| Error::Invalid(format!("device is 'auto', 'cpu' or 'gpu', not '{device}'")))?;
        }
        set(&mut engine.memory_limit, "memory_limit", typed.memory_limit.map(|size| size.0), 16 << 20, usize::MAX)?;
        engine.statements = StatementLimits::of(engine.memory_limit);
        let statements = &mut engine.statements;
        set(&mut statements.running, "max_statements", typed.max_statements.map(|size| size.0), 1, 100_000)?;
        set(&mut statements.waiting, "max_queued", typed.max_queued.map(|size| size.0), 0, 1_000_000)?;
        set(&mut statements.wait, "queue_timeout", typed.queue_timeout.map(|span| span.0), Duration::from_millis(1), seconds(86_400))?;
        set(&mut statements.memory, "query_memory_limit", typed.query_memory_limit.map(|size| size.0), 1 << 20, usize::MAX)?;
        set(&mut statements.spill, "spill_limit", typed.spill_limit.map(|size| size.0), 0, usize::MAX)?;
        let mut timeout = Duration::ZERO;
        set(&mut timeout, "statement_timeout", typed.statement_timeout.map(|span| span.0), Duration::from_millis(1), seconds(7 * 86_400))?;
        statements.timeout = (!timeout.is_zero()).then_some(timeout);
        engine.clients = ClientLimits::of(engine.memory_limit);
        let clients = &mut engine.clients;
        let (short, hour) = (Duration::from_millis(100), seconds(3600));
        set(&mut clients.connections, "max_connections", typed.max_connections.map(|size| size.0), 1, 1_000_000)?;
        set(&mut clients.handshake_timeout, "handshake_timeout", typed.handshake_timeout.map(|span| span.0), short, hour)?;
        set(&mut clients.keepalive_interval, "keepalive_interval", typed.keepalive_interval.map(|span| span.0), short, hour)?;
        set(&mut clients.sessions, "max_sessions", typed.max_sessions.map(|size| size.0), 1, 1_000_000)?;
        set(&mut clients.session_timeout, "session_timeout", typed.session_timeout.map(|span| span.0), short, seconds(30 * 86_400))?;
        set(&mut clients.prepared, "max_prepared_statements", typed.max_prepared_statements.map(|size| size.0), 1, 1_000_000)?;
        set(&mut clients.message, "max_message_size", typed.max_message_size.map(|size| size.0), 64 << 10, 1 << 30)?;
        set(&mut clients.header, "max_header_size", typed.max_header_size.map(|size| size.0), 4 << 10, 1 << 20)?;
        let mut heartbeat_interval = seconds(5);
        set(&mut heartbeat_interval, "heartbeat_interval", typed.heartbeat_interval.map(|span| span.0), Duration::from_millis(100), seconds(3600))?;
        let tls = tls(typed.tls_cert, typed.tls_key, typed.tls_client_ca, typed.tls_self_signed.unwrap_or(false))?;
        let insecure = typed.insecure.unwrap_or(false);
        set(&mut engine.access.token_lifetime, "token_lifetime", typed.token_lifetime.map(|span| span.0), seconds(60), seconds(365 * 86_400))?;
        if let Some(file) = typed.secret_key_file {
            engine.secret_key = KeySource::File(file);
        }
        engine.access.issuer = typed.auth.and_then(|auth| auth.jwt).map(issuer).transpose()?;
        let log = LogConfig { filter: filter(typed.log.as_deref().unwrap_or("info"))?, format: typed.log_format.unwrap_or_default() };
        let init = typed.init.unwrap_or_default();
        engine.around = around(&engine, listen, http, heartbeat_interval, &init, &log);
        engine.around.extend(security(&engine, &tls, insecure));
        Ok(Self { listen, http, engine, heartbeat_interval, tls, insecure, init, log })
    }

    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where to serve metrics and health, if anywhere.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// How the engine is to be started.
    pub fn engine(&self) -> &EngineConfig {
        &self.engine
    }

    /// How often a silent subscription sends an empty batch.
    pub fn heartbeat_interval(&self) -> Duration {
        self.heartbeat_interval
    }

    /// Where TLS comes from.
    pub fn tls(&self) -> &TlsChoice {
        &self.tls
    }

    /// Whether whoever reaches the port may be let in, wherever it is.
    pub fn insecure(&self) -> bool {
        self.insecure
    }

    /// SQL scripts to run before listening, in order.
    pub fn init(&self) -> &[PathBuf] {
        &self.init
    }

    /// What to log.
    pub fn log(&self) -> &LogConfig {
        &self.log
    }
}

/// The settings that are not the engine's own, for `system.settings`.
fn around(engine: &EngineConfig, listen: SocketAddr, http: Option<SocketAddr>, heartbeat: Duration, init: &[PathBuf], log: &LogConfig) -> Vec<Setting> {
    let paths = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    let format = |format: LogFormat| match format {
        LogFormat::Text => "text".to_owned(),
        LogFormat::Json => "json".to_owned(),
    };
    let setting = |name, value: String, default: &str, description| Setting { name, value, default: default.to_owned(), description };
    vec![
        setting("listen", listen.to_string(), DEFAULT_LISTEN, "where Flight SQL is served"),
        setting("http", http.map(|address| address.to_string()).unwrap_or_default(), "", "where metrics and health are served; nowhere if empty"),
        setting("data_dir", engine.data_dir.display().to_string(), DEFAULT_DATA_DIR, "where the catalog and the checkpoints live"),
        setting("checkpoint_url", engine.checkpoint_url.clone().unwrap_or_default(), "", "where checkpoints live; in the data directory if empty"),
        setting("init", paths(init), "", "SQL scripts that were run before listening"),
        setting("heartbeat_interval", humantime::format_duration(heartbeat).to_string(), "5s", "how often a silent subscription sends an empty batch"),
        setting("log", log.filter.clone(), &LogConfig::default().filter, "what is logged"),
        setting("log_format", format(log.format), &format(LogFormat::default()), "how it is logged: text or json"),
    ]
}

/// The same for what is about security.
fn security(engine: &EngineConfig, tls: &TlsChoice, insecure: bool) -> Vec<Setting> {
    let path = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let (files, client_ca, self_signed) = match tls {
        TlsChoice::None => (None, None, false),
        TlsChoice::Files(files) => (Some(files), files.client_ca.as_ref(), false),
        TlsChoice::SelfSigned { client_ca } => (None, client_ca.as_ref(), true),
    };
    let key_file = match &engine.secret_key {
        KeySource::File(file) => file.display().to_string(),
        KeySource::DataDir | KeySource::Given(_) => String::new(),
    };
    let issuer = engine.access.issuer.as_ref().map(|issuer| issuer.issuer.clone()).unwrap_or_default();
    let setting = |name, value: String, default: &str, description| Setting { name, value, default: default.to_owned(), description };
    vec![
        setting("tls_cert", path(files.map(|files| &files.cert)), "", "the certificate of TLS"),
        setting("tls_key", path(files.map(|files| &files.key)), "", "its key"),
        setting("tls_client_ca", path(client_ca), "", "who vouches for clients, which then have to show a certificate"),
        setting("tls_self_signed", self_signed.to_string(), "false", "whether the certificate is one that was made in the data directory"),
        setting("insecure", insecure.to_string(), "false", "whether everybody may be let in on addresses that others reach"),
        setting("token_lifetime", humantime::format_duration(engine.access.token_lifetime).to_string(), "12h", "how long a token counts"),
        setting("secret_key_file", key_file, "", "the file with the key that secrets are encrypted with; in the data directory if empty"),
        setting("auth", issuer, "", "the external issuer whose tokens count"),
    ]
}

fn tls(cert: Option<PathBuf>, key: Option<PathBuf>, client_ca: Option<PathBuf>, self_signed: bool) -> Result<TlsChoice> {
    match (cert, key, self_signed) {
        (Some(cert), Some(key), false) => Ok(TlsChoice::Files(TlsFiles { cert, key, client_ca })),
        (None, None, true) => Ok(TlsChoice::SelfSigned { client_ca }),
        (None, None, false) if client_ca.is_none() => Ok(TlsChoice::None),
        (None, None, false) => Err(Error::Invalid("tls_client_ca needs TLS: give tls_cert and tls_key, or tls_self_signed".into())),
        (_, _, true) => Err(Error::Invalid("tls_self_signed makes a certificate: leave tls_cert and tls_key out".into())),
        _ => Err(Error::Invalid("tls_cert and tls_key belong together: give both".into())),
    }
}

fn issuer(typed: TypedJwt) -> Result<IssuerConfig> {
    let keys = match typed.jwks.split_once("://") {
        Some(("http" | "https", _)) => JwtKeys::Url(typed.jwks),
        Some(_) => return Err(Error::Invalid(format!("auth.jwt.jwks is '{}': write an https:// address or a file", typed.jwks))),
        None => JwtKeys::File(typed.jwks.into()),
    };
    let audience = match typed.audience {
        Texts::One(one) => vec![one],
        Texts::Several(several) => several,
    };
    if audience.is_empty() || audience.iter().any(String::is_empty) || typed.issuer.is_empty() {
        return Err(Error::Invalid("auth.jwt needs an issuer and an audience: without them another application's tokens would count".into()));
    }
    let algorithms = typed.algorithms.unwrap_or_else(|| vec!["RS256".into(), "ES256".into()]);
    let algorithms = algorithms.iter().map(|name| IssuerConfig::algorithm(name)).collect::<Result<Vec<_>>>()?;
    if algorithms.is_empty() {
        return Err(Error::Invalid("auth.jwt.algorithms is empty: name one, as in ['RS256']".into()));
    }
    let user_claim = typed.user_claim.unwrap_or_else(|| "sub".into());
    let role_claim = typed.role_claim.unwrap_or_else(|| "roles".into());
    Ok(IssuerConfig { issuer: typed.issuer, audience, keys, algorithms, user_claim, role_claim })
}

/// Lays a value over a default if it was given and lies within its bounds.
fn set<T: PartialOrd + std::fmt::Debug>(target: &mut T, key: &str, given: Option<T>, least: T, most: T) -> Result<()> {
    let Some(value) = given else { return Ok(()) };
    if value < least || value > most {
        return Err(Error::Invalid(format!("{key} is {value:?}, but must be between {least:?} and {most:?}")));
    }
    *target = value;
    Ok(())
}

/// `HOST:PORT`, the host being an IP address or `localhost`: other names would need a look-up that may change its answer.
fn address(text: &str) -> Result<SocketAddr> {
    let malformed = || Error::Invalid(format!("can't listen on '{text}': write HOST:PORT, as in {DEFAULT_LISTEN}"));
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    if !host.eq_ignore_ascii_case("localhost") {
        return Err(malformed());
    }
    Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().map_err(|_| malformed())?))
}

/// Somewhere that checkpoints can be kept; whether it is there shows at the start.
fn url(text: String) -> Result<String> {
    match text.split_once("://") {
        Some(("s3" | "file", place)) if !place.is_empty() => Ok(text),
        _ => Err(Error::Invalid(format!("checkpoint_url is '{text}': write s3://BUCKET/PREFIX or file:///FOLDER"))),
    }
}

fn folder(path: &Path) -> Result<PathBuf> {
    let real = path.canonicalize().map_err(|error| Error::Invalid(format!("can't allow files below '{}': {error}", path.display())))?;
    if real.is_dir() { Ok(real) } else { Err(Error::Invalid(format!("can't allow files below '{}': it is not a folder", path.display()))) }
}

/// A bare level is for Tidegate, everything else then warns; anything more is `tracing`'s own syntax.
fn filter(text: &str) -> Result<String> {
    let text = text.trim().to_ascii_lowercase();
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let filter = match text.as_str() {
        "off" | "error" => text,
        level if levels.contains(&level) => format!("warn,tidegate={level}"),
        _ => text,
    };
    tracing_subscriber::EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| Error::Invalid(format!("can't log at '{filter}': {error}; write a level ({}) or target=level, …", levels.join(", "))))?;
    Ok(filter)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tidegate_kernels::device::Device;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn load(file: &str, variables: &[(&str, &str)], flags: Typed) -> Result<Config> {
        let mut path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path, file.as_bytes()).unwrap();
        Config::load(Some(path.path()), environment(variables), flags)
    }

    fn refused(file: &str, variables: &[(&str, &str)], words: &str) {
        let message = load(file, variables, Typed::default()).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file() {
        let file = "listen = '127.0.0.1:1'\ndata_dir = 'from-file'\nmin_epoch_interval = '7ms'\nlog_format = 'json'";
        let flags = Typed { listen: Some("localhost:3".into()), ..Typed::default() };
        let config = load(file, &[("TIDEGATE_LISTEN", "127.0.0.1:2"), ("TIDEGATE_DATA_DIR", "from-env"), ("HOME", "/")], flags).unwrap();
        assert_eq!(config.listen().to_string(), "127.0.0.1:3");
        assert_eq!(config.engine().data_dir, Path::new("from-env"));
        assert_eq!(config.engine().min_epoch_interval, Duration::from_millis(7));
        assert_eq!(config.log().format, LogFormat::Json);
    }

    #[test]
    fn every_key_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = format!(
            "listen = '[::1]:0'\nhttp = 'localhost:0'\ndata_dir = 'd'\nallow_paths = ['{}']\ninit = ['a.sql']\nmin_epoch_interval = '0s'\nmax_epoch_bytes = '32 MiB'\n\
             max_epoch_rows = 1000\ncheckpoint_interval = '1.5s'\ncheckpoint_url = 's3://b/p'\nthreads = 3\ndevice = 'cpu'\nmax_statements = 5\nmax_queued = 6\nqueue_timeout = '7s'\nquery_memory_limit = '8 MiB'\nspill_limit = '9 MiB'\nstatement_timeout = '10s'\nmax_connections = 11\nhandshake_timeout = '12s'\nkeepalive_interval = '13s'\nmax_sessions = 14\nsession_timeout = '15s'\nmax_prepared_statements = 16\nmax_message_size = '17 MiB'\nmax_header_size = '18 KiB'\nheartbeat_interval = '1s'\nlog = 'tidegate=trace'\nlog_format = 'text'",
            folder.path().display()
        );
        let config = load(&file, &[], Typed::default()).unwrap();
        let engine = config.engine();
        assert_eq!((engine.max_epoch_bytes, engine.max_epoch_rows, engine.threads, engine.device), (32 << 20, 1000, 3, Device::Cpu));
        let limits =
            StatementLimits { running: 5, waiting: 6, wait: Duration::from_secs(7), memory: 8 << 20, spill: 9 << 20, timeout: Some(Duration::from_secs(10)) };
        assert_eq!(engine.statements, limits);
        let clients = ClientLimits {
            connections: 11,
            handshake_timeout: Duration::from_secs(12),
            keepalive_interval: Duration::from_secs(13),
            sessions: 14,
            session_timeout: Duration::from_secs(15),
            prepared: 16,
            message: 17 << 20,
            header: 18 << 10,
            bound: engine.memory_limit / 8,
        };
        assert_eq!(engine.clients, clients);
        assert_eq!(engine.checkpoint_interval, Duration::from_millis(1500));
        assert_eq!(engine.checkpoint_url.as_deref(), Some("s3://b/p"));
        assert_eq!(engine.allowed_paths, [folder.path().canonicalize().unwrap()]);
        assert_eq!(config.heartbeat_interval(), Duration::from_secs(1));
        assert_eq!(config.init(), [PathBuf::from("a.sql")]);
        assert_eq!(config.http().unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(config.log().filter, "tidegate=trace");
        let secure = "tls_cert = 'c'\ntls_key = 'k'\ntls_client_ca = 'a'\ninsecure = true\ntoken_lifetime = '1h'\nsecret_key_file = 'sk'\n[auth.jwt]\nissuer = 'i'\naudience = 'a'\njwks = 'f.json'";
        let config = load(secure, &[], Typed::default()).unwrap();
        assert_eq!(config.tls(), &TlsChoice::Files(TlsFiles { cert: "c".into(), key: "k".into(), client_ca: Some("a".into()) }));
        assert_eq!(config.engine().secret_key, KeySource::File("sk".into()));
        assert!(config.insecure() && config.engine().access.token_lifetime == Duration::from_secs(3600));
        assert_eq!(config.engine().access.issuer.as_ref().map(|issuer| issuer.audience.clone()), Some(vec!["a".to_string()]));
        let config = load("", &[("TIDEGATE_TLS_SELF_SIGNED", "true")], Typed::default()).unwrap();
        assert_eq!(config.tls(), &TlsChoice::SelfSigned { client_ca: None });
    }

    /// `system.settings` lists what can be set.
    #[test]
    fn every_key_is_listed() {
        let file = "http = '127.0.0.1:9'\nmin_epoch_interval = '7ms'\nlog_format = 'json'";
        let settings = load(file, &[], Typed::default()).unwrap().engine().settings();
        let mut names: Vec<&str> = settings.iter().map(|setting| setting.name).collect();
        let mut keys = typed::KEYS;
        names.sort_unstable();
        keys.sort_unstable();
        assert_eq!(names, keys);
        let of = |name: &str| settings.iter().find(|s| s.name == name).map(|s| (s.value.as_str(), s.default.as_str())).unwrap();
        assert_eq!(of("http"), ("127.0.0.1:9", ""));
        assert_eq!(of("min_epoch_interval"), ("7ms", "5ms"));
        assert_eq!(of("log_format"), ("json", "text"));
        // What is called a default is what there is if nobody says anything.
        let untouched = load("", &[], Typed::default()).unwrap().engine().settings();
        let differing: Vec<&Setting> = untouched.iter().filter(|s| s.value != s.default).collect();
        assert!(differing.is_empty(), "{differing:?}");
    }

    #[test]
    fn the_environment_takes_lists_and_numbers() {
        let config = load("", &[("TIDEGATE_THREADS", "2"), ("TIDEGATE_INIT", "a.sql:b.sql")], Typed::default()).unwrap();
        assert_eq!(config.engine().threads, 2);
        assert_eq!(config.init().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        refused("listn = 'x'", &[], "listn");
        refused("listen = 5", &[], "listen");
        refused("", &[("TIDEGATE_LISTN", "x")], "TIDEGATE_LISTN");
        refused("", &[("TIDEGATE_THREADS", "many")], "TIDEGATE_THREADS");
        refused("threads = 0", &[], "threads is 0");
        refused("checkpoint_interval = '5'", &[], "'5'");
        refused("checkpoint_interval = '1ms'", &[], "checkpoint_interval");
        refused("checkpoint_url = '/a/folder'", &[], "checkpoint_url");
        refused("listen = 'example.com:1'", &[], "example.com");
        refused("allow_paths = ['/no/such/folder']", &[], "/no/such/folder");
        refused("log = 'tidegate=loud'", &[], "tidegate=loud");
        refused("a = [", &[], "line 1");
        refused("tls_cert = 'c'", &[], "belong together");
        refused("tls_cert = 'c'\ntls_key = 'k'\ntls_self_signed = true", &[], "leave tls_cert");
        refused("tls_client_ca = 'c'", &[], "needs TLS");
        refused("", &[("TIDEGATE_INSECURE", "maybe")], "TIDEGATE_INSECURE");
        refused("[auth.jwt]\nissuer = 'i'\naudience = 'a'\njwks = 'ftp://x'", &[], "ftp://x");
        refused("[auth.jwt]\nissuer = 'i'\naudience = 'a'\njwks = 'f'\nalgorithms = ['HS256']", &[], "HS256");
        refused("[auth.jwt]\nissuer = 'i'\njwks = 'f'", &[], "audience");
        let missing = Config::load(Some(Path::new("/no/such.toml")), [], Typed::default()).unwrap_err().to_string();
        assert!(missing.contains("/no/such.toml"), "{missing}");
    }

    #[test]
    fn names_that_are_not_settings_are_left_alone() {
        assert!(load("", &[("TIDEGATE_BIN", "x"), ("TIDEGATE_URL", "x"), ("TIDEGATE_TEST_KAFKA", "x")], Typed::default()).is_ok());
    }
}
