//! Which session a call belongs to: by bearer token, else by cookie, else by connection.
//!
//! ADBC sends no cookies unless asked to, and without a password it has no token: there the connection is the client.
//! The JDBC driver keeps cookies, so its session outlives a reconnect.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tonic::{Request, metadata::MetadataMap, transport::server::Connected};

use super::{
    frontend::{Backend, Frontend},
    session_options::OptionValue,
};

/// The cookie that names a session.
const COOKIE: &str = "tidegate_session";

/// A session unused this long is closed.
const IDLE: Duration = Duration::from_secs(3600);

/// More sessions than this make those unused longest go.
const MAX_SESSIONS: usize = 10_000;

/// One client's state on the server.
pub(crate) struct ClientSession {
    /// What the call's token, cookie or connection stands for.
    pub key: String,
    /// The session that prepares and executes.
    pub frontend: Arc<dyn Frontend>,
    /// Options that the client has set, for it to read back.
    pub options: Mutex<BTreeMap<String, OptionValue>>,
    used: Mutex<Instant>,
}

/// All sessions.
pub(crate) struct Sessions {
    backend: Arc<dyn Backend>,
    by_key: Mutex<HashMap<String, Arc<ClientSession>>>,
    /// The session key of each open connection that has no other name.
    connections: Mutex<HashMap<u64, String>>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { backend, by_key: Mutex::default(), connections: Mutex::default() })
    }

    /// The session of a call, made if it is the first, and the cookie to offer if the call had no name for it.
    pub fn of<T>(&self, request: &Request<T>) -> (Arc<ClientSession>, Option<String>) {
        if let Some(name) = bearer(request.metadata()).or_else(|| cookie(request.metadata())) {
            return (self.by_key(&name), None);
        }
        let connection = request.extensions().get::<ConnectionId>().map_or(0, |id| id.0);
        let key = self.connections.lock().entry(connection).or_insert_with(new_key).clone();
        let offer = format!("{COOKIE}={key}; Path=/; HttpOnly");
        (self.by_key(&key), Some(offer))
    }

    /// Ends a session; statements that run go on to their end.
    pub fn close(&self, session: &ClientSession) {
        self.by_key.lock().remove(&session.key);
        self.connections.lock().retain(|_, key| *key != session.key);
    }

    /// Closes what has been idle too long.
    pub fn sweep(&self) {
        self.by_key.lock().retain(|_, session| session.used.lock().elapsed() <= IDLE);
    }

    fn by_key(&self, key: &str) -> Arc<ClientSession> {
        let mut sessions = self.by_key.lock();
        if let Some(session) = sessions.get(key) {
            *session.used.lock() = Instant::now();
            return session.clone();
        }
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.values().min_by_key(|session| *session.used.lock()).map(|session| session.key.clone());
            if let Some(oldest) = oldest {
                sessions.remove(&oldest);
            }
        }
        let session = Arc::new(ClientSession {
            key: key.to_owned(),
            frontend: self.backend.clone().session(),
            options: Mutex::default(),
            used: Mutex::new(Instant::now()),
        });
        sessions.insert(key.to_owned(), session.clone());
        session
    }
}

/// A fresh, unguessable session key.
pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn bearer(metadata: &MetadataMap) -> Option<String> {
    let (scheme, token) = metadata.get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn cookie(metadata: &MetadataMap) -> Option<String> {
    let headers = metadata.get_all("cookie");
    let pairs = headers.iter().filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(';'));
    let values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == COOKIE);
    values.map(|(_, value)| value.trim_matches('"').to_owned()).find(|value| !value.is_empty())
}

/// One TCP connection, as the number that its calls carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionId(u64);

/// A TCP connection that forgets its session's name when it ends.
pub(crate) struct Connection {
    stream: TcpStream,
    id: ConnectionId,
    sessions: Arc<Sessions>,
}

impl Connection {
    /// Wraps an accepted connection.
    pub fn new(stream: TcpStream, sessions: Arc<Sessions>) -> Self {
        // Number 0 stands for calls that came over no connection of ours.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { stream, id: ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed)), sessions }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sessions.connections.lock().remove(&self.id.0);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

mod io {
    //! The connection reads and writes as its stream does.

    use std::{
        io::{IoSlice, Result},
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Connection;

    impl AsyncRead for Connection {
        fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Connection {
        fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            Pin::new(&mut self.stream).poll_write(context, bytes)
        }

        fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
            Pin::new(&mut self.stream).poll_write_vectored(context, slices)
        }

        fn is_write_vectored(&self) -> bool {
            self.stream.is_write_vectored()
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_headers() {
        let mut metadata = MetadataMap::new();
        assert_eq!(bearer(&metadata), None);
        metadata.insert("authorization", "Basic YTpi".parse().unwrap());
        assert_eq!(bearer(&metadata), None);
        metadata.insert("authorization", "bearer t0ken".parse().unwrap());
        assert_eq!(bearer(&metadata).as_deref(), Some("t0ken"));
        metadata.insert("cookie", "a=b; tidegate_session=\"xyz\"".parse().unwrap());
        assert_eq!(cookie(&metadata).as_deref(), Some("xyz"));
    }
}
