//! One run of a query that several readers share: each takes the next batch that nobody has taken. However unevenly they read, and if only
//! one does, each row goes to one of them, once, and none waits for another.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock, Weak},
};

use arrow::array::RecordBatch;
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use tonic::Status;

use crate::error::{Error, Result};

type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The parts of a result, one an endpoint.
#[derive(Debug)]
pub(crate) struct Parts {
    count: u16,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The parts that somebody has asked for.
    fetched: BTreeSet<u16>,
    /// The run, as long as somebody reads it; `None` before it begins.
    run: Option<Weak<Run>>,
    ended: Arc<OnceLock<Ended>>,
}

/// How a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    Failed,
}

struct Run {
    batches: tokio::sync::Mutex<Batches>,
    ended: Arc<OnceLock<Ended>>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Parts {
    /// So many parts of a result that nobody has asked for yet.
    pub fn new(count: u16) -> Self {
        Self { count, state: Mutex::default() }
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// What the reader of a part gets; `begin` begins the run for the first of them. A part is given once: its rows are nobody else's.
    pub fn fetch(&self, part: u16, begin: impl FnOnce() -> Batches) -> Result<Batches, Status> {
        let mut state = self.state.lock();
        if part >= self.count {
            return Err(Status::not_found("the result has no such part"));
        }
        if !state.fetched.insert(part) {
            return Err(Status::failed_precondition("this part of the result has been fetched already: execute the statement again"));
        }
        let run = match &state.run {
            Some(run) => run.upgrade(),
            None => {
                let run = Arc::new(Run { batches: tokio::sync::Mutex::new(begin()), ended: state.ended.clone() });
                state.run = Some(Arc::downgrade(&run));
                Some(run)
            }
        };
        match (run, state.ended.get()) {
            (Some(run), _) => Ok(run.batches()),
            // Others have read all of it.
            (None, Some(Ended::Whole)) => Ok(futures::stream::empty().boxed()),
            (None, Some(Ended::Failed)) => Err(Status::aborted("another part of the result has failed: execute the statement again")),
            (None, None) => Err(Status::aborted("the readers of the result's other parts have hung up before its end: execute the statement again")),
        }
    }
}

impl Run {
    fn batches(self: Arc<Self>) -> Batches {
        futures::stream::unfold(self, |run| async move {
            let batch = run.next().await?;
            Some((batch, run))
        })
        .fuse()
        .boxed()
    }

    async fn next(&self) -> Option<Result<RecordBatch>> {
        let mut batches = self.batches.lock().await;
        match self.ended.get() {
            Some(Ended::Whole) => return None,
            Some(Ended::Failed) => return Some(Err(Error::Cancelled("another part of the result has failed".into()))),
            None => {}
        }
        let batch = batches.next().await;
        let ended = match &batch {
            None => Some(Ended::Whole),
            Some(Err(_)) => Some(Ended::Failed),
            Some(Ok(_)) => None,
        };
        if let Some(ended) = ended {
            self.ended.get_or_init(|| ended);
            // What it holds is free now, and not only when the slowest reader is done.
            *batches = futures::stream::empty().boxed();
        }
        batch
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use futures::TryStreamExt;

    use super::*;

    fn numbers(count: i64) -> Batches {
        let batch = |n| RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![n])) as ArrayRef)]).unwrap();
        futures::stream::iter(0..count).map(move |n| Ok(batch(n))).boxed()
    }

    fn number(batch: &RecordBatch) -> i64 {
        batch.column(0).as_primitive::<Int64Type>().value(0)
    }

    #[tokio::test]
    async fn each_row_goes_to_one_reader() {
        let parts = Parts::new(3);
        let mut readers: Vec<Batches> = (0..3).map(|part| parts.fetch(part, || numbers(100)).unwrap()).collect();
        let mut all = vec![];
        for turn in 0.. {
            let reader = &mut readers[turn % 7 % 3];
            match reader.next().await {
                Some(batch) => all.push(number(&batch.unwrap())),
                None => break,
            }
        }
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        for mut reader in readers {
            assert!(reader.next().await.is_none());
        }
        assert_eq!(parts.fetch(1, || numbers(1)).err().unwrap().code(), tonic::Code::FailedPrecondition);
        assert_eq!(parts.fetch(3, || numbers(1)).err().unwrap().code(), tonic::Code::NotFound);
    }

    #[tokio::test]
    async fn who_reads_one_part_after_the_other_gets_everything() {
        let parts = Parts::new(2);
        let first: Vec<RecordBatch> = parts.fetch(0, || numbers(10)).unwrap().try_collect().await.unwrap();
        let second: Vec<RecordBatch> = parts.fetch(1, || numbers(10)).unwrap().try_collect().await.unwrap();
        assert_eq!((first.len(), second.len()), (10, 0));
    }

    #[tokio::test]
    async fn what_fails_fails_for_all() {
        let failing = || numbers(1).chain(futures::stream::iter([Err(Error::Invalid("bad data".into()))])).boxed();
        let parts = Parts::new(3);
        let (mut one, mut other) = (parts.fetch(0, failing).unwrap(), parts.fetch(1, failing).unwrap());
        assert!(one.next().await.unwrap().is_ok());
        assert!(other.next().await.unwrap().unwrap_err().to_string().contains("bad data"));
        assert!(one.next().await.unwrap().unwrap_err().to_string().contains("another part"));
        drop((one, other));
        assert!(parts.fetch(2, failing).err().unwrap().message().contains("another part"));
    }

    #[tokio::test]
    async fn a_run_ends_with_its_readers() {
        let parts = Parts::new(2);
        let held = Arc::new(());
        let alive = Arc::downgrade(&held);
        let mut reader = parts
            .fetch(0, || {
                numbers(10)
                    .map(move |batch| {
                        let _held = &held;
                        batch
                    })
                    .boxed()
            })
            .unwrap();
        assert!(reader.next().await.unwrap().is_ok());
        drop(reader);
        assert!(alive.upgrade().is_none(), "nobody reads, and the run goes on");
        assert!(parts.fetch(1, || numbers(1)).err().unwrap().message().contains("hung up"));
    }
}
