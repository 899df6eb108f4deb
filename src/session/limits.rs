//! What one statement may take from the others: a place among those that run, memory, time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::record_batch::RecordBatch;
use datafusion::{
    common::{Result as DataFusionResult, resources_datafusion_err},
    execution::{
        SendableRecordBatchStream,
        memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
    },
    physical_plan::stream::RecordBatchStreamAdapter,
};
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::error::{Error, Result};

/// A text of more bytes is no statement that anybody wrote.
pub(super) const MAX_SQL_BYTES: usize = 1 << 20;

/// What statements may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementLimits {
    /// So many queries run at once; others wait.
    pub running: usize,
    /// So many wait; others are refused.
    pub waiting: usize,
    /// One that has waited so long is refused.
    pub wait: Duration,
    /// Bytes that one query may hold; what can be is put on disk instead.
    pub memory: usize,
    /// Bytes that all queries together may put on disk.
    pub spill: usize,
    /// A query that takes longer ends; a session may set another time.
    pub timeout: Option<Duration>,
}

impl StatementLimits {
    /// The defaults, of a server that may hold so many bytes.
    pub fn of(memory_limit: usize) -> Self {
        Self { running: 64, waiting: 512, wait: Duration::from_secs(60), memory: memory_limit / 2, spill: 16 << 30, timeout: None }
    }
}

/// The queries that run, and those that wait until they may.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    limits: StatementLimits,
}

impl Gate {
    /// Nobody is there yet.
    pub fn new(limits: StatementLimits) -> Self {
        Self { places: Arc::new(Semaphore::new(limits.running)), waiting: AtomicUsize::new(0), limits }
    }

    /// A place among those that run, as long as it is held.
    pub async fn enter(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let running = self.limits.running;
        let _waits = Waits::new(&self.waiting, self.limits.waiting).ok_or_else(|| {
            Error::Exhausted(format!("{running} queries run and {} wait already (max_statements, max_queued): try again later", self.limits.waiting))
        })?;
        match tokio::time::timeout(self.limits.wait, self.places.clone().acquire_owned()).await {
            Ok(place) => place.map_err(|_| Error::Cancelled("the server is stopping".into())),
            Err(_) => Err(Error::Exhausted(format!(
                "the query has waited {} for one of the {running} that run to end (max_statements, queue_timeout): try again later",
                humantime::format_duration(self.limits.wait)
            ))),
        }
    }
}

/// One who waits.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Self(waiting);
        (before < most).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One query's share of the server's memory. Operators that can put what they hold on disk have equal parts of it, so that the others find room.
#[derive(Debug)]
pub(super) struct QueryPool {
    share: FairSpillPool,
    all: Arc<dyn MemoryPool>,
    limit: usize,
}

impl QueryPool {
    /// At most so much of it.
    pub fn new(all: Arc<dyn MemoryPool>, limit: usize) -> Self {
        Self { share: FairSpillPool::new(limit), all, limit }
    }
}

impl std::fmt::Display for QueryPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a query of at most {} bytes in {}", self.limit, self.all)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.share.register(consumer);
        self.all.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.share.unregister(consumer);
        self.all.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.share.grow(reservation, additional);
        self.all.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.all.shrink(reservation, shrink);
        self.share.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DataFusionResult<()> {
        self.share.try_grow(reservation, additional).map_err(|_| {
            resources_datafusion_err!(
                "the query holds {} bytes of memory and its {} needs {additional} more, which is above query_memory_limit ({}): ask for less at once, or start the server with a greater one",
                self.share.reserved(),
                reservation.consumer().name(),
                self.limit
            )
        })?;
        self.all.try_grow(reservation, additional).inspect_err(|_| self.share.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.share.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

/// When a query is to have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    /// So long from now, or never.
    pub fn after(timeout: Option<Duration>) -> Self {
        Self { at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)), timeout: timeout.unwrap_or_default() }
    }

    fn error(self) -> Error {
        let timeout = humantime::format_duration(self.timeout);
        Error::Timeout(format!("the query took longer than {timeout}, its statement_timeout: ask for less, or SET tidegate.statement_timeout"))
    }

    /// Ends when the time is over, with the error that says so.
    pub async fn over(self) -> Error {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.error()
    }

    /// Waits for a part of the query's work.
    pub async fn wait<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.at {
            None => work.await,
            Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(self.error())),
        }
    }

    /// The same rows, which end with an error when the time is over.
    pub fn rows(self, rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let Some(at) = self.at else { return rows };
        let schema = rows.schema();
        let rows = futures::stream::unfold(Some(rows), move |rows| async move {
            let mut rows = rows?;
            match tokio::time::timeout_at(at, rows.next()).await {
                Ok(next) => Some((next?, Some(rows))),
                // Dropping the rows stops the work.
                Err(_) => Some((DataFusionResult::<RecordBatch>::Err(self.error().into()), None)),
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, rows))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_waits_or_is_refused() {
        let limits = StatementLimits { running: 2, waiting: 1, wait: Duration::from_millis(50), ..StatementLimits::of(1 << 30) };
        let gate = Arc::new(Gate::new(limits));
        let first = gate.enter().await.unwrap();
        let _second = gate.enter().await.unwrap();
        let waits = {
            let gate = gate.clone();
            tokio::spawn(async move { gate.enter().await.map(drop) })
        };
        while gate.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = gate.enter().await.unwrap_err().to_string();
        assert!(refused.contains("2 queries run and 1 wait"), "{refused}");
        drop(first);
        waits.await.unwrap().unwrap();
        let _third = gate.enter().await.unwrap();
        let refused = gate.enter().await.unwrap_err().to_string();
        assert!(refused.contains("has waited 50ms"), "{refused}");
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_query_takes_its_share_and_gives_it_back() {
        let all: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1000));
        let pool: Arc<dyn MemoryPool> = Arc::new(QueryPool::new(all.clone(), 600));
        let reservation = MemoryConsumer::new("sort").register(&pool);
        reservation.try_grow(500).unwrap();
        let refused = reservation.try_grow(200).unwrap_err().to_string();
        assert!(refused.contains("query_memory_limit (600)"), "{refused}");
        let other = MemoryConsumer::new("other").register(&all);
        other.try_grow(450).unwrap();
        assert!(reservation.try_grow(80).is_err(), "the server has no more");
        assert_eq!((pool.reserved(), all.reserved()), (500, 950));
        drop(reservation);
        assert_eq!((pool.reserved(), all.reserved()), (0, 450));
    }

    #[tokio::test]
    async fn time_is_over_while_rows_come_too() {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        let batch = RecordBatch::new_empty(schema.clone());
        let endless = futures::stream::iter([Ok(batch)]).chain(futures::stream::pending());
        let mut rows = Deadline::after(Some(Duration::from_millis(20))).rows(Box::pin(RecordBatchStreamAdapter::new(schema, endless)));
        assert!(rows.next().await.unwrap().is_ok());
        let error = Error::from(rows.next().await.unwrap().unwrap_err());
        assert!(matches!(&error, Error::Timeout(said) if said.contains("longer than 20ms")), "{error}");
        assert!(rows.next().await.is_none());
    }
}
