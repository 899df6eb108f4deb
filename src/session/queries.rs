//! Which statements run now, and how one is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    common::Result as DataFusionResult,
    execution::{RecordBatchStream, SendableRecordBatchStream},
};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    access::Caller,
    error::{Error, Result},
};

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
    /// Whose it is.
    pub caller: Caller,
    /// The objects that it reads.
    pub reads: BTreeSet<String>,
    kill: watch::Sender<Option<&'static str>>,
}

/// The running statements of an engine.
#[derive(Debug, Default)]
pub struct Queries {
    /// The number of the last one; as many have begun.
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Query>>,
}

impl Queries {
    /// A statement of somebody's begins, which reads these objects; it is listed until the guard goes.
    pub fn begin(self: &Arc<Self>, caller: &Caller, sql: &str, unbounded: bool, reads: BTreeSet<String>) -> Running {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (kill, killed) = watch::channel(None);
        let (sql, started_ms, caller) = (crate::sql::redacted(sql), crate::stream::driver::now_ms(), caller.clone());
        let query = Query { id, sql, started_ms, unbounded, caller, reads, kill };
        self.running.lock().insert(id, query);
        Running { queries: self.clone(), id, killed }
    }

    /// Those that run now.
    pub fn list(&self) -> Vec<Query> {
        self.running.lock().values().cloned().collect()
    }

    /// How many have begun since the server started.
    pub fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Ends a statement, if it is one of `mine`; its client is told.
    pub fn kill(&self, id: u64, mine: impl Fn(&Query) -> bool) -> Result<()> {
        match self.running.lock().get(&id).filter(|query| mine(query)) {
            Some(query) => {
                query.kill.send_replace(Some("was killed"));
                Ok(())
            }
            None => Err(Error::NotFound(format!("there is no query {id} to kill, perhaps it has ended: SHOW QUERIES lists those that run"))),
        }
    }

    /// Ends a statement for this reason.
    pub fn end(&self, id: u64, why: &'static str) {
        if let Some(query) = self.running.lock().get(&id) {
            query.kill.send_replace(Some(why));
        }
    }
}

/// Lists a statement as running as long as it lives.
#[derive(Debug)]
pub struct Running {
    queries: Arc<Queries>,
    id: u64,
    killed: watch::Receiver<Option<&'static str>>,
}

impl Running {
    /// Completes with what the client is told when the statement is killed, and never if it is not.
    pub fn killed(&self) -> BoxFuture<'static, Error> {
        let (mut killed, id) = (self.killed.clone(), self.id);
        async move {
            let why = killed.wait_for(Option::is_some).await.ok().and_then(|why| *why);
            let Some(why) = why else {
                // The statement is over, so nobody can kill it any more.
                return std::future::pending().await;
            };
            Error::Cancelled(format!("query {id} {why}"))
        }
        .boxed()
    }

    /// Waits for a part of the statement's work, unless it is killed before.
    pub async fn unless_killed<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            done = work => Ok(done),
            killed = self.killed() => Err(killed),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.queries.running.lock().remove(&self.id);
    }
}

/// A statement's rows, which end with an error when it is killed.
pub struct Killable {
    /// `None` once it was killed: the work stops at once.
    rows: Option<SendableRecordBatchStream>,
    schema: SchemaRef,
    killed: BoxFuture<'static, Error>,
}

impl Killable {
    /// These rows, until [`Running::killed`] completes.
    pub fn new(rows: SendableRecordBatchStream, killed: BoxFuture<'static, Error>) -> Self {
        Self { schema: rows.schema(), rows: Some(rows), killed }
    }
}

impl Stream for Killable {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.rows.is_some()
            && let Poll::Ready(error) = self.killed.poll_unpin(context)
        {
            self.rows = None;
            return Poll::Ready(Some(Err(error.into())));
        }
        match &mut self.rows {
            Some(rows) => rows.poll_next_unpin(context),
            None => Poll::Ready(None),
        }
    }
}

impl RecordBatchStream for Killable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::Schema;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    #[tokio::test]
    async fn a_killed_query_ends_with_a_sentence_and_then_is_gone() {
        let queries = Arc::new(Queries::default());
        let begin = |sql: &str, unbounded| queries.begin(&Caller::server(), sql, unbounded, BTreeSet::new());
        let kill = |id| queries.kill(id, |_| true);
        let (running, other) = (begin("SELECT 1", false), begin("SELECT 2", true));
        assert_eq!(queries.list().iter().map(|q| (q.id, q.unbounded)).collect::<Vec<_>>(), [(1, false), (2, true)]);
        let killed = running.killed();
        let endless = futures::stream::pending().map(move |batch| {
            let _listed = &running;
            batch
        });
        let mut rows = Killable::new(Box::pin(RecordBatchStreamAdapter::new(Arc::new(Schema::empty()), endless)), killed);
        assert!(futures::poll!(rows.next()).is_pending());
        assert!(queries.kill(1, |_| false).is_err(), "another one's");
        kill(1).unwrap();
        let error = Error::from(rows.next().await.unwrap().unwrap_err());
        assert!(matches!(&error, Error::Cancelled(said) if said == "query 1 was killed"), "{error}");
        assert!(rows.next().await.is_none());
        assert_eq!(queries.list().len(), 1, "the work is dropped with the error");
        let error = kill(1).unwrap_err();
        assert!(matches!(error, Error::NotFound(_)), "{error}");
        assert!(futures::poll!(other.killed()).is_pending(), "only the one that was named");
        assert_eq!(other.unless_killed(async { 7 }).await.unwrap(), 7);
        assert_eq!(queries.begun(), 2);
    }
}
