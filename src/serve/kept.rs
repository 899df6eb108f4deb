//! What is kept for clients between their calls, counted in bytes: texts of statements, schemas, bound parameters.

use std::{
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::datatypes::{Field, Schema};
use tonic::Status;

use super::sessions::ClientSession;
use crate::session::{ClientLimits, Clients};

/// So little is always kept: what there may be many of is bounded in number.
const LITTLE: usize = 4 << 10;

/// Counts what is kept.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    /// What clients may take.
    pub limits: ClientLimits,
    clients: Arc<Clients>,
}

/// So many bytes are kept while this is there.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: usize,
    clients: Arc<Clients>,
}

/// One of a session's prepared statements, while this is there.
pub(crate) struct Place {
    session: Arc<ClientSession>,
    clients: Arc<Clients>,
}

impl Keeper {
    /// Counts with these limits.
    pub fn new(limits: ClientLimits, clients: Arc<Clients>) -> Self {
        Self { limits, clients }
    }

    /// Keeps so many bytes, if there is room.
    pub fn keep(&self, bytes: usize) -> Result<Kept, Status> {
        let before = self.clients.bound.fetch_add(bytes, Ordering::Relaxed);
        let kept = Kept { bytes, clients: self.clients.clone() };
        if bytes > LITTLE && before.saturating_add(bytes) > self.limits.bound {
            self.clients.refuse();
            return Err(Status::resource_exhausted(format!(
                "statements of clients and their parameters hold {before} bytes, and {bytes} more are too many: bind fewer rows at once, close prepared statements, or try again later"
            )));
        }
        Ok(kept)
    }

    /// One more prepared statement of a session, if it may have that many.
    pub fn place(&self, session: &Arc<ClientSession>) -> Result<Place, Status> {
        let most = self.limits.prepared;
        let take = |count: usize| (count < most).then_some(count + 1);
        if session.prepared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            self.clients.refuse();
            return Err(Status::resource_exhausted(format!(
                "the session has {most} prepared statements, as many as it may (max_prepared_statements): close some"
            )));
        }
        self.clients.prepared.fetch_add(1, Ordering::Relaxed);
        Ok(Place { session: session.clone(), clients: self.clients.clone() })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clients.bound.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let count: &AtomicUsize = &self.session.prepared;
        count.fetch_sub(1, Ordering::Relaxed);
        self.clients.prepared.fetch_sub(1, Ordering::Relaxed);
    }
}

/// About how many bytes a schema takes.
pub(crate) fn schema_bytes(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| size_of::<Field>() + field.name().len()).sum()
}
