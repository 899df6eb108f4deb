//! The batches that a client uploads. Whatever its bytes say, reading them ends in batches of a bounded size or in a sentence.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use arrow_flight::{FlightData, decode::FlightRecordBatchStream, error::FlightError};
use futures::{Stream, TryStreamExt, stream::BoxStream};
use tonic::{Code, Status};

use super::extent::extent;
use crate::error::Error;

/// A batch has at most so many columns: each is looked at one by one, whatever it holds.
const MOST_COLUMNS: usize = 10_000;

thread_local! {
    /// Whether this thread reads a client's bytes just now.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Batches as they come in.
pub(crate) struct Batches {
    inner: FlightRecordBatchStream,
    /// The most bytes of one batch, written out.
    most: u64,
    is_over: bool,
}

impl Batches {
    /// The batches of these messages, of at most so many bytes each when they are written out. The first message may hold the command alone,
    /// without a schema: ADBC's scripts and arrow-rs's updates do that.
    pub fn new<S>(messages: S, most: usize) -> Self
    where
        S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
    {
        hush();
        let with_data = messages.try_filter(|message| std::future::ready(!message.data_header.is_empty()));
        let with_data: BoxStream<'static, _> = Box::pin(with_data.map_err(FlightError::from));
        Self { inner: FlightRecordBatchStream::new_from_flight_data(with_data), most: most as u64, is_over: false }
    }

    /// The schema, once it has come.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.inner.schema()
    }

    fn check(&self, batch: &RecordBatch) -> Result<(), FlightError> {
        if batch.num_columns() > MOST_COLUMNS {
            return Err(FlightError::protocol(format!("a batch has {} columns, more than the {MOST_COLUMNS} that are taken", batch.num_columns())));
        }
        // Where a table has columns that the batch lacks, rows without columns become values too.
        let mut all = (batch.num_rows() as u64).saturating_mul(8);
        if all > self.most {
            return Err(self.too_large(batch));
        }
        for column in batch.columns() {
            all = all.saturating_add(extent(column, self.most));
            if all > self.most {
                return Err(self.too_large(batch));
            }
        }
        Ok(())
    }

    fn too_large(&self, batch: &RecordBatch) -> FlightError {
        FlightError::protocol(format!("written out, a batch of {} rows takes more than {} bytes: send fewer rows in a batch", batch.num_rows(), self.most))
    }
}

impl Stream for Batches {
    type Item = Result<RecordBatch, FlightError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // Arrow checks much of what bytes say, and relies on the rest: where that is not so it panics.
        let polled = quietly(|| {
            let polled = Pin::new(&mut self.inner).poll_next(context);
            match polled {
                Poll::Ready(Some(Ok(batch))) => Poll::Ready(Some(self.check(&batch).map(|()| batch))),
                other => other,
            }
        });
        let polled = polled.unwrap_or_else(|why| Poll::Ready(Some(Err(FlightError::DecodeError(format!("the bytes are not what they say to be: {why}"))))));
        self.is_over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }
}

/// What became of an upload that could not be read: what a limit has refused is told as it was.
pub(crate) fn unreadable(error: &FlightError, sentence: impl FnOnce(&FlightError) -> String) -> Error {
    match error {
        FlightError::Tonic(status) if status.code() == Code::ResourceExhausted => Error::Exhausted(status.message().to_owned()),
        other => Error::Invalid(sentence(other)),
    }
}

/// Does something that may panic over a client's bytes: that is the client's error, and no event of the server's log.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = READING.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    READING.set(before);
    done.map_err(|panic| match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (_, Some(text)) => (*text).to_owned(),
        _ => "they make no sense".to_owned(),
    })
}

fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if READING.get() {
                tracing::debug!("an upload could not be read: {info}");
            } else {
                usual(info);
            }
        }));
    });
}
