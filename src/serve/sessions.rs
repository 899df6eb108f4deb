//! Which session a call belongs to: by bearer token, else by cookie, else by connection; each name stands for another session with each user.
//!
//! ADBC sends no cookies unless asked to, and without a password it has no token: there the connection is the client.
//! The JDBC driver keeps cookies, so its session outlives a reconnect.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::digest;
use tonic::{
    Request, Status,
    codegen::http::{HeaderMap, header},
};

use super::{
    auth,
    connection::ConnectionId,
    frontend::{Backend, Frontend},
    session_options::OptionValue,
    status::status,
};
use crate::{
    access::{Access, Caller, Who},
    error::Error,
    session::{ClientLimits, Clients},
};

/// The cookie that names a session.
const COOKIE: &str = "tidegate_session";

/// Where there are too many sessions, one that was not used for so long makes room; and one whose connection has ended goes.
const SPARE: Duration = Duration::from_secs(60);

/// A longer name for a session is kept as its digest.
const LONGEST_NAME: usize = 256;

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
    /// Whether a client has come with its name, and may do so again over another connection.
    named: AtomicBool,
    /// Whether the connection that it was made for has ended.
    left: AtomicBool,
    /// How many prepared statements it has.
    pub prepared: AtomicUsize,
    /// How many statements of it run.
    running: AtomicUsize,
}

/// A statement of a session runs: the session is not idle.
pub(crate) struct InUse(Arc<ClientSession>);

impl InUse {
    /// One more of this session.
    pub fn of(session: Arc<ClientSession>) -> Self {
        session.running.fetch_add(1, Ordering::Relaxed);
        Self(session)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.used.lock() = Instant::now();
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call that may come in, before its session is found: whom it is made for, and the name that its token gives the session.
pub(crate) type Admission = Result<(Caller, Option<String>), Status>;

/// All sessions.
pub(crate) struct Sessions {
    backend: Arc<dyn Backend>,
    access: Arc<Access>,
    limits: ClientLimits,
    clients: Arc<Clients>,
    by_key: Mutex<HashMap<Key, Arc<ClientSession>>>,
    /// The name of the session of each open connection that has no other one, and who has used it.
    connections: Mutex<HashMap<u64, (String, HashSet<Who>)>>,
}

impl ClientSession {
    /// Whom it is for.
    pub fn who(&self) -> &Who {
        &self.key.0
    }
}

impl Sessions {
    /// No sessions yet.
    pub fn new(backend: Arc<dyn Backend>, limits: ClientLimits) -> Arc<Self> {
        let (access, clients) = (backend.access(), backend.clients());
        Arc::new(Self { access, backend, limits, clients, by_key: Mutex::default(), connections: Mutex::default() })
    }

    /// Whether a call may come in, told by its headers alone.
    pub async fn admit(&self, headers: &HeaderMap, connection: Option<&ConnectionId>) -> Admission {
        auth::admit(&self.access, headers, connection).await
    }

    /// Lets a call in: finds its session, makes it if it is the first, and leaves it with the call. Gives the cookie to offer if the call had
    /// no name for it.
    pub fn enter<T>(&self, request: &mut Request<T>) -> Result<Option<String>, Status> {
        let admitted = request.extensions().get::<Admission>().cloned();
        let (caller, named) = admitted.unwrap_or_else(|| Err(status(Error::Internal("a call came in unseen".into()))))?;
        let (name, offer) = match named.or_else(|| cookie(request.metadata().as_ref())) {
            Some(name) => (short(name), None),
            None => {
                let connection = request.extensions().get::<ConnectionId>().map_or(0, |id| id.number);
                let mut connections = self.connections.lock();
                let (name, whose) = connections.entry(connection).or_insert_with(|| (new_key(), HashSet::new()));
                whose.insert(caller.who.clone());
                let offer = format!("{COOKIE}={name}; Path=/; HttpOnly");
                (name.clone(), Some(offer))
            }
        };
        let session = self.by_key(caller, name, offer.is_none())?;
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
            let name = token.or_else(|| cookie(request.metadata().as_ref())).map(short);
            let name = name.or_else(|| self.connections.lock().get(&connection).map(|(name, _)| name.clone()));
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
        let mut sessions = self.by_key.lock();
        sessions.remove(&session.key);
        self.count(&sessions);
        drop(sessions);
        self.connections.lock().retain(|_, (name, _)| *name != session.key.1);
    }

    /// A connection has ended: sessions that only it has named are over soon, unless a client comes back with the cookie.
    pub fn leave(&self, connection: u64) {
        let Some((name, whose)) = self.connections.lock().remove(&connection) else { return };
        let sessions = self.by_key.lock();
        for who in whose {
            if let Some(session) = sessions.get(&(who, name.clone())) {
                session.left.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Closes what has been idle too long. One whose statements run is not idle.
    pub fn sweep(&self) {
        let mut sessions = self.by_key.lock();
        sessions.retain(|_, session| !self.is_over(session));
        self.count(&sessions);
    }

    fn is_over(&self, session: &Arc<ClientSession>) -> bool {
        let is_lost = session.left.load(Ordering::Relaxed) && !session.named.load(Ordering::Relaxed);
        let patience = if is_lost { SPARE.min(self.limits.session_timeout) } else { self.limits.session_timeout };
        session.used.lock().elapsed() > patience && session.running.load(Ordering::Relaxed) == 0
    }

    fn count(&self, sessions: &HashMap<Key, Arc<ClientSession>>) {
        self.clients.sessions.store(sessions.len(), Ordering::Relaxed);
    }

    fn by_key(&self, caller: Caller, name: String, named: bool) -> Result<Arc<ClientSession>, Status> {
        let key = (caller.who.clone(), name);
        let mut sessions = self.by_key.lock();
        if let Some(session) = sessions.get(&key).filter(|session| !self.is_over(session)) {
            *session.used.lock() = Instant::now();
            session.named.fetch_or(named, Ordering::Relaxed);
            return Ok(session.clone());
        }
        if sessions.len() >= self.limits.sessions && !sessions.contains_key(&key) {
            self.make_room(&mut sessions)?;
        }
        let session = Arc::new(ClientSession {
            key: key.clone(),
            frontend: self.backend.clone().session(caller),
            options: Mutex::default(),
            used: Mutex::new(Instant::now()),
            named: AtomicBool::new(named),
            left: AtomicBool::new(false),
            prepared: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
        });
        sessions.insert(key, session.clone());
        self.count(&sessions);
        Ok(session)
    }

    /// Whoever has most sessions loses the one that was not used longest, if that is long enough.
    fn make_room(&self, sessions: &mut HashMap<Key, Arc<ClientSession>>) -> Result<(), Status> {
        sessions.retain(|_, session| !self.is_over(session));
        if sessions.len() < self.limits.sessions {
            return Ok(());
        }
        let mut held: HashMap<&Who, (usize, Instant, &Key)> = HashMap::new();
        for (key, session) in sessions.iter() {
            let used = *session.used.lock();
            let of_user = held.entry(&key.0).or_insert((0, used, key));
            of_user.0 += 1;
            if used < of_user.1 {
                (of_user.1, of_user.2) = (used, key);
            }
        }
        let spare = held.into_values().filter(|(_, used, _)| used.elapsed() > SPARE).max_by_key(|(count, ..)| *count).map(|(.., key)| key.clone());
        match spare {
            Some(key) => {
                sessions.remove(&key);
                Ok(())
            }
            None => {
                self.clients.refuse();
                Err(Status::resource_exhausted(format!(
                    "the server has {} sessions, as many as it keeps (max_sessions): close some, or try again in a minute",
                    self.limits.sessions
                )))
            }
        }
    }
}

/// A name as it is kept: tokens of an issuer may be long.
fn short(name: String) -> String {
    if name.len() <= LONGEST_NAME { name } else { URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, name.as_bytes())) }
}

/// A fresh, unguessable session key.
pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let headers = headers.get_all(header::COOKIE);
    let pairs = headers.iter().filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(';'));
    let values = pairs.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == COOKIE);
    values.map(|(_, value)| value.trim_matches('"').to_owned()).find(|value| !value.is_empty())
}

/// Reads a header, for the fuzz targets.
pub(super) fn read_cookie(bytes: &[u8]) {
    if let Ok(value) = header::HeaderValue::from_bytes(bytes) {
        cookie(&HeaderMap::from_iter([(header::COOKIE, value)]));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_headers() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers), None);
        headers.insert(header::COOKIE, "a=b; tidegate_session=\"xyz\"".parse().unwrap());
        assert_eq!(cookie(&headers).as_deref(), Some("xyz"));
    }
}
