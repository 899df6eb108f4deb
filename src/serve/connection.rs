//! One TCP connection of the port: it has to say something sensible soon, is counted, and forgets its session's name when it ends.

use std::{
    future::Future,
    io::{Error, ErrorKind, IoSlice, Result},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::transport::server::Connected;

use super::sessions::Sessions;
use crate::{
    session::{ClientLimits, Clients},
    tls::Transport,
};

/// What a client of HTTP/2 says first has so many bytes.
const PREFACE_BYTES: usize = 24;
/// So many connections beyond those that are served are told why they are not.
const TOLD: usize = 32;
/// How long they may listen.
const TELLING: Duration = Duration::from_secs(5);

/// One TCP connection, as its calls carry it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionId {
    /// Its number.
    pub number: u64,
    /// Where the client is.
    pub address: IpAddr,
    /// Whether it is one too many: its calls are told so.
    pub surplus: bool,
}

/// A TCP connection.
pub(crate) struct Connection {
    stream: Transport,
    id: ConnectionId,
    sessions: Arc<Sessions>,
    clients: Arc<Clients>,
    /// What is missing of the first words, and when they have to be there; for one too many, when it has to be gone.
    wanted: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// How long nothing may be taken of what is written. HTTP/2 gives a silent peer up before, but waits for it to take the words that say so.
    patience: Duration,
    /// When that is over, while something waits to be taken.
    stalled: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// Lets so many connections in.
pub(crate) struct Door {
    places: Arc<Semaphore>,
    surplus: Arc<Semaphore>,
    handshake: Duration,
    keepalive: Duration,
    sessions: Arc<Sessions>,
    clients: Arc<Clients>,
}

impl Door {
    /// Lets in as many as these limits say.
    pub fn new(limits: &ClientLimits, sessions: Arc<Sessions>, clients: Arc<Clients>) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let (handshake, keepalive) = (limits.handshake_timeout, limits.keepalive_interval);
        Self { places: places(limits.connections), surplus: places(TOLD), handshake, keepalive, sessions, clients }
    }

    /// An accepted connection; `None`: it is to be closed, since there are too many.
    pub fn enter(&self, stream: Transport, address: IpAddr) -> Option<Connection> {
        // Number 0 stands for calls that came over no connection of ours.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (place, surplus) = match self.places.clone().try_acquire_owned() {
            Ok(place) => (place, false),
            Err(_) => {
                self.clients.refuse();
                (self.surplus.clone().try_acquire_owned().ok()?, true)
            }
        };
        self.clients.connections.fetch_add(1, Ordering::Relaxed);
        let (wanted, patience) = if surplus { (usize::MAX, TELLING.min(self.handshake)) } else { (PREFACE_BYTES, self.handshake) };
        Some(Connection {
            stream,
            id: ConnectionId { number: NEXT.fetch_add(1, Ordering::Relaxed), address, surplus },
            sessions: self.sessions.clone(),
            clients: self.clients.clone(),
            wanted,
            deadline: Some(Box::pin(tokio::time::sleep(patience))),
            patience: self.keepalive.saturating_mul(2),
            stalled: None,
            _place: place,
        })
    }
}

impl Connection {
    /// What became of a try to write; an error once nothing was taken for too long.
    fn taken<T>(&mut self, context: &mut Context<'_>, tried: Poll<Result<T>>) -> Poll<Result<T>> {
        if tried.is_ready() {
            self.stalled = None;
            return tried;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        stalled.as_mut().poll(context).map(|()| Err(Error::from(ErrorKind::TimedOut)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sessions.leave(self.id.number);
        self.clients.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionId;

    fn connect_info(&self) -> ConnectionId {
        self.id
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(Error::from(ErrorKind::TimedOut)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.deadline.is_some() {
            self.wanted = self.wanted.saturating_sub(buffer.filled().len().saturating_sub(before));
            if self.wanted == 0 {
                self.deadline = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(context, tried)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.taken(context, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_flush(context);
        self.taken(context, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_shutdown(context);
        self.taken(context, tried)
    }
}
