//! Which statements run now.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// A running statement.
#[derive(Debug, Clone)]
pub struct Query {
    /// Its number.
    pub id: u64,
    /// Its text.
    pub sql: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: i64,
    /// Whether it ends by itself.
    pub unbounded: bool,
}

/// The running statements of an engine.
#[derive(Debug, Default)]
pub struct Queries {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Query>>,
}

impl Queries {
    /// A statement begins; it is listed until the guard goes.
    pub fn begin(self: &Arc<Self>, sql: &str, unbounded: bool) -> Running {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let query = Query { id, sql: sql.into(), started_ms: crate::stream::driver::now_ms(), unbounded };
        self.running.lock().insert(id, query);
        Running { queries: self.clone(), id }
    }

    /// Those that run now.
    pub fn list(&self) -> Vec<Query> {
        self.running.lock().values().cloned().collect()
    }
}

/// Lists a statement as running as long as it lives.
#[derive(Debug)]
pub struct Running {
    queries: Arc<Queries>,
    id: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.queries.running.lock().remove(&self.id);
    }
}
