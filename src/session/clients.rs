//! What clients may take of the server before any statement runs, and how much of it they have taken. The wire holds them to it.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// What clients may take: connections, sessions, what is kept for them, and the size of what they send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// So many connections are served at once.
    pub connections: usize,
    /// Who has not said what HTTP/2 begins with, or has not shaken hands, by then is let go.
    pub handshake_timeout: Duration,
    /// A connection without a sign of life for this long is asked for one, and ends when none comes for as long again.
    pub keepalive_interval: Duration,
    /// So many sessions are kept.
    pub sessions: usize,
    /// A session that nothing uses for so long is closed, and so are prepared statements.
    pub session_timeout: Duration,
    /// So many prepared statements a session has at once.
    pub prepared: usize,
    /// Bytes of a message with rows; other messages are smaller.
    pub message: usize,
    /// Bytes of the headers of a call.
    pub header: usize,
    /// Bytes of bound parameters that are kept for all clients.
    pub bound: usize,
}

impl ClientLimits {
    /// The defaults, of a server that may hold so many bytes.
    pub fn of(memory_limit: usize) -> Self {
        Self {
            connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(20),
            sessions: 10_000,
            session_timeout: Duration::from_secs(3600),
            prepared: 1_000,
            message: 64 << 20,
            header: 64 << 10,
            bound: memory_limit / 8,
        }
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self::of(2 << 30)
    }
}

/// What clients have taken.
#[derive(Debug, Default)]
pub struct Clients {
    /// Open connections.
    pub connections: AtomicUsize,
    /// Sessions that are kept.
    pub sessions: AtomicUsize,
    /// Prepared statements that are kept.
    pub prepared: AtomicUsize,
    /// Bytes of bound parameters that are kept.
    pub bound: AtomicUsize,
    /// Calls and connections that were refused since the server started, since a limit was reached.
    pub refused: AtomicU64,
}

impl Clients {
    /// Something was refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}
