//! Where queries run: on threads of their own, so that a heavy plan keeps nobody from being answered.

use std::{any::Any, panic::AssertUnwindSafe, pin::Pin};

use datafusion::{
    common::Result as DataFusionResult,
    execution::{RecordBatchStream, SendableRecordBatchStream},
};
use futures::{
    FutureExt, Stream, StreamExt,
    task::{Context, Poll},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinHandle,
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};

use crate::error::{Error, Result};

/// So many hand-overs wait for their reader before a query waits for it.
const AHEAD: usize = 2;
/// What is there at once is handed over together, up to about so many bytes and batches: each hand-over wakes a thread.
const TOGETHER_BYTES: usize = 1 << 20;
const TOGETHER: usize = 16;

type Batch = DataFusionResult<RecordBatch>;

/// Threads that plan and execute queries.
#[derive(Debug)]
pub(super) struct Compute {
    runtime: Option<Runtime>,
}

impl Compute {
    /// So many threads.
    pub fn new(threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("query").enable_all().build();
        Ok(Self { runtime: Some(runtime.map_err(|e| Error::External(format!("no threads to run queries on: {e}")))?) })
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<Task<T>> {
        let runtime = self.runtime.as_ref().ok_or_else(|| Error::Cancelled("the server is stopping".into()))?;
        Ok(Task(runtime.spawn(work)))
    }

    /// Runs something there; dropping this stops it.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.spawn(work)?.await.unwrap_or_else(|e| Err(panicked(&e)))
    }

    /// The same rows, worked out there; dropping them stops the work. So does `until` when it ends, also while nobody reads: with its error.
    pub fn rows(&self, mut rows: SendableRecordBatchStream, until: impl Future<Output = Error> + Send + 'static) -> Result<SendableRecordBatchStream> {
        let schema = rows.schema();
        let (sender, receiver) = mpsc::channel(AHEAD);
        let task = self.spawn(async move {
            let sent = async move {
                while let Some(batch) = rows.next().await {
                    let (together, rest) = together(batch, &mut rows);
                    if sender.send(together).await.is_err() {
                        break;
                    }
                    match rest {
                        Rest::Some => {}
                        Rest::None => break,
                        Rest::Panicked(panic) => std::panic::resume_unwind(panic),
                    }
                }
            };
            tokio::select! {
                () = sent => Ok(()),
                why = until => Err(why),
            }
        })?;
        Ok(Box::pin(Rows { schema, receiver, ready: vec![].into_iter(), task: Some(task) }))
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        // What still runs is not waited for: this may be an asynchronous thread, which must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What may come after some batches.
enum Rest {
    Some,
    None,
    Panicked(Box<dyn Any + Send>),
}

/// A batch and those behind it that need no waiting for.
fn together(first: Batch, rows: &mut SendableRecordBatchStream) -> (Vec<Batch>, Rest) {
    let size = |batch: &Batch| batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
    let mut bytes = size(&first);
    let mut batches = vec![first];
    while bytes < TOGETHER_BYTES && batches.len() < TOGETHER {
        // What was there before a panic is still handed over.
        match std::panic::catch_unwind(AssertUnwindSafe(|| rows.next().now_or_never())) {
            Ok(None) => break,
            Ok(Some(None)) => return (batches, Rest::None),
            Ok(Some(Some(batch))) => {
                bytes += size(&batch);
                batches.push(batch);
            }
            Err(panic) => return (batches, Rest::Panicked(panic)),
        }
    }
    (batches, Rest::Some)
}

/// A task that ends when nobody waits for it any more.
#[derive(Debug)]
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = std::result::Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(context)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn panicked(error: &tokio::task::JoinError) -> Error {
    match error.is_panic() {
        true => Error::Internal("the statement's execution panicked, see the server's log".into()),
        false => Error::Cancelled("the server is stopping".into()),
    }
}

struct Rows {
    schema: SchemaRef,
    receiver: mpsc::Receiver<Vec<Batch>>,
    /// What was handed over and not yet read.
    ready: std::vec::IntoIter<Batch>,
    task: Option<Task<Result<()>>>,
}

impl Stream for Rows {
    type Item = Batch;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Poll::Ready(Some(batch));
            }
            match self.receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(batches)) => self.ready = batches.into_iter(),
                // No more rows: or the task has not come to its end.
                Poll::Ready(None) => break,
            }
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        match task.poll_unpin(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(ended) => {
                self.task = None;
                let ended = ended.unwrap_or_else(|error| Err(panicked(&error)));
                Poll::Ready(ended.err().map(|error| Err(error.into())))
            }
        }
    }
}

impl RecordBatchStream for Rows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn empty() -> RecordBatch {
        RecordBatch::new_empty(Arc::new(Schema::empty()))
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_no_end() {
        let compute = Compute::new(1).unwrap();
        let rows = futures::stream::iter(0..3).map(|n| if n < 2 { Ok(empty()) } else { panic!("odd data") });
        let mut rows = compute.rows(Box::pin(RecordBatchStreamAdapter::new(empty().schema(), rows)), std::future::pending()).unwrap();
        assert!(rows.next().await.unwrap().is_ok() && rows.next().await.unwrap().is_ok());
        assert!(rows.next().await.unwrap().unwrap_err().to_string().contains("panicked"));
        assert!(rows.next().await.is_none());
        assert!(compute.run::<()>(async { panic!("odd plan") }).await.unwrap_err().to_string().contains("panicked"));
        assert_eq!(compute.run(async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_ends_while_nobody_reads() {
        let compute = Compute::new(1).unwrap();
        let held = Arc::new(());
        let until = tokio::time::sleep(std::time::Duration::from_millis(20));
        let endless = futures::stream::repeat_with({
            let held = held.clone();
            move || {
                let _held = &held;
                Ok(empty())
            }
        });
        let endless = Box::pin(RecordBatchStreamAdapter::new(empty().schema(), endless));
        let mut rows = compute.rows(endless, async move {
            until.await;
            Error::Timeout("over".into())
        });
        while Arc::strong_count(&held) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut read: Vec<_> = rows.as_mut().unwrap().collect().await;
        assert!(read.pop().unwrap().unwrap_err().to_string().contains("over"));
        assert_eq!(read.iter().filter(|batch| batch.is_ok()).count(), AHEAD * TOGETHER);
    }

    #[tokio::test]
    async fn nobody_works_for_a_reader_who_has_gone() {
        let compute = Compute::new(1).unwrap();
        let alive = Arc::new(());
        let held = alive.clone();
        let endless = futures::stream::repeat_with(move || {
            let _held = &held;
            Ok(empty())
        });
        let mut rows = compute.rows(Box::pin(RecordBatchStreamAdapter::new(empty().schema(), endless)), std::future::pending()).unwrap();
        assert!(rows.next().await.unwrap().is_ok());
        drop(rows);
        for _ in 0..200 {
            if Arc::strong_count(&alive) == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the work goes on");
    }
}
