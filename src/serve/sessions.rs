//! Which session a call belongs to: by bearer token, else by cookie, else by connection; each name stands for another session with each user.
//!
//! ADBC sends no cookies unless asked to, and without a password it has no token: there the connection is the client.
//! The JDBC driver keeps cookies, so its session outlives a reconnect.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tonic::{Request, Status, metadata::MetadataMap, transport::server::Connected};

use super::{
    auth,
    frontend::{Backend, Frontend},
    session_options::OptionValue,
    status::status,
};
use crate::{
    access::{Access, Caller, Who},
    error::Error,
    tls::Transport,
};

/// The cookie that names a session.
const COOKIE: &str = "tidegate_session";

/// A session unused this long is closed.
const IDLE: Duration = Duration::from_secs(3600);

/// More sessions than this make those unused longest go.
const MAX_SESSIONS: usize = 10_000;

/// Nobody's name for a session opens another one's.
type Key = (Who, String);

/// One client's state on the server.
pub(crate) struct ClientSession {
    /// Whom it is for, and what the call's token, cookie or connection stands for.
    key: Key,
    /// The session that prepares and executes.
    pub frontend: Arc<dyn Frontend>,
    /// Options that the client has set, for it to read back.
    pub options: Mutex<BTreeMap<String, OptionValue>>,
    used: Mutex<Instant>,
}

/// All sessions.
pub(crate) struct Sessions {
    backend: Arc<dyn Backend>,
    access: Arc<Access>,
    by_key: Mutex<HashMap<Key, Arc<ClientSession>>>,
    /// The name of the session of each open connection that has no other one.
    connections: Mutex<HashMap<u64, String>>,
}

impl ClientSession {
    /// Whom it is for.
    pub fn who(&self) -> &Who {
        &self.key.0
    }
}

impl Sessions {
    /// No sessions yet.
    pub fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { access: backend.access(), backend, by_key: Mutex::default(), connections: Mutex::default() })
    }

    /// Lets a call in: finds its session, makes it if it is the first, and leaves it with the call. Gives the cookie to offer if the call had
    /// no name for it.
    pub async fn enter<T>(&self, request: &mut Request<T>) -> Result<Option<String>, Status> {
        let (caller, named) = auth::admit(&self.access, request).await?;
        let (name, offer) = match named.or_else(|| cookie(request.metadata())) {
            Some(name) => (name, None),
            None => {
                let connection = request.extensions().get::<ConnectionId>().map_or(0, |id| id.number);
                let name = self.connections.lock().entry(connection).or_insert_with(new_key).clone();
                let offer = format!("{COOKIE}={name}; Path=/; HttpOnly");
                (name, Some(offer))
            }
        };
        let session = self.by_key(caller, name);
        request.extensions_mut().insert(session);
        Ok(offer)
    }

    /// The session of a call that is not let in any more, if it had one before: of whoever has made the first user, and of users who have changed
    /// their passwords. They are in the middle of the statement that did it.
    pub fn leaving<T>(&self, request: &mut Request<T>) -> Option<Arc<ClientSession>> {
        let header = request.metadata().get("authorization");
        let key = self.access.ended(header.map(|header| header.as_bytes())).or_else(|| {
            let token = header.and_then(|header| header.to_str().ok()).and_then(|header| header.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim().to_owned());
            let connection = request.extensions().get::<ConnectionId>().map_or(0, |id| id.number);
            let name = token.or_else(|| cookie(request.metadata())).or_else(|| self.connections.lock().get(&connection).cloned());
            name.map(|name| (Who::Anyone, name))
        })?;
        let session = self.by_key.lock().get(&key).cloned()?;
        request.extensions_mut().insert(session.clone());
        Some(session)
    }

    /// The session of a call that was let in.
    pub fn of<T>(&self, request: &Request<T>) -> Result<Arc<ClientSession>, Status> {
        let session = request.extensions().get::<Arc<ClientSession>>().cloned();
        session.ok_or_else(|| status(Error::Internal("a call came in without a session".into())))
    }

    /// The token for a client that shakes hands.
    pub async fn token<T>(&self, request: &Request<T>) -> Result<String, Status> {
        auth::token(&self.access, request).await
    }

    /// Ends a session; statements that run go on to their end.
    pub fn close(&self, session: &ClientSession) {
        self.by_key.lock().remove(&session.key);
        self.connections.lock().retain(|_, name| *name != session.key.1);
    }

    /// Closes what has been idle too long.
    pub fn sweep(&self) {
        self.by_key.lock().retain(|_, session| session.used.lock().elapsed() <= IDLE);
    }

    fn by_key(&self, caller: Caller, name: String) -> Arc<ClientSession> {
        let key = (caller.who.clone(), name);
        let mut sessions = self.by_key.lock();
        if let Some(session) = sessions.get(&key) {
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
            key: key.clone(),
            frontend: self.backend.clone().session(caller),
            options: Mutex::default(),
            used: Mutex::new(Instant::now()),
        });
        sessions.insert(key, session.clone());
        session
    }
}

/// A fresh, unguessable session key.
pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn cookie(metadata: &MetadataMap) -> Option<String> {
    let headers = metadata.get_all("cookie");
    let pairs = headers.iter().filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(';'));
    let values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == COOKIE);
    values.map(|(_, value)| value.trim_matches('"').to_owned()).find(|value| !value.is_empty())
}

/// One TCP connection, as its calls carry it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionId {
    number: u64,
    /// Where the client is.
    pub address: IpAddr,
}

/// A TCP connection that forgets its session's name when it ends.
pub(crate) struct Connection {
    stream: Transport,
    id: ConnectionId,
    sessions: Arc<Sessions>,
}

impl Connection {
    /// Wraps an accepted connection.
    pub fn new(stream: Transport, address: IpAddr, sessions: Arc<Sessions>) -> Self {
        // Number 0 stands for calls that came over no connection of ours.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { stream, id: ConnectionId { number: NEXT.fetch_add(1, Ordering::Relaxed), address }, sessions }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sessions.connections.lock().remove(&self.id.number);
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
        assert_eq!(cookie(&metadata), None);
        metadata.insert("cookie", "a=b; tidegate_session=\"xyz\"".parse().unwrap());
        assert_eq!(cookie(&metadata).as_deref(), Some("xyz"));
    }
}
