//! A result on its way out: heartbeats, cancellation and shutdown around the session's stream of batches.

use std::{panic::AssertUnwindSafe, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::CompressionType};
use arrow_flight::FlightData;
use futures::{FutureExt, Stream, StreamExt, stream::BoxStream};
use tokio::{sync::watch, time::Instant};
use tonic::Status;

use super::{
    encode::Encoder,
    status::status,
    wire::{viewed_bytes, wire_batch},
};
use crate::error::{Error, Result};

/// Written out, a column of one batch must stay below Arrow's 2 GiB of text.
const MAX_VIEWED_BYTES: usize = 1 << 30;

/// A result to be sent.
pub(crate) struct Rows {
    /// The session's batches; dropped with this, which stops the work.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
    /// The schema that the client was told.
    pub schema: SchemaRef,
    /// How the columns are compressed, if the client wants them so.
    pub compression: Option<CompressionType>,
    /// In an unbounded result, a batch without rows is sent after this long without any.
    pub heartbeat: Option<Duration>,
    /// Turns true when a client cancels this result by its ticket.
    pub cancelled: watch::Receiver<bool>,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl Rows {
    /// The messages of the result, its schema first.
    pub fn into_messages(self) -> Result<impl Stream<Item = Result<FlightData, Status>> + Send + 'static, Status> {
        let encoder = Encoder::new(self.compression).map_err(status)?;
        let first = encoder.schema(&self.schema);
        let sending = Sending { rows: self, encoder, current: None, last_sent: Instant::now() };
        let rest = futures::stream::unfold(Some(sending), |state| async move {
            let mut sending = state?;
            match sending.next().await {
                Some(Ok(message)) => Some((Ok(message), Some(sending))),
                // Dropping `sending` here frees the plan as soon as the result has ended, not when the client hangs up.
                Some(Err(failure)) => Some((Err(failure), None)),
                None => None,
            }
        });
        Ok(futures::stream::once(async move { Ok(first) }).chain(rest))
    }
}

struct Sending {
    rows: Rows,
    encoder: Encoder,
    /// The batch being sent, and how many of its rows have gone.
    current: Option<(RecordBatch, usize)>,
    last_sent: Instant,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        loop {
            if *self.rows.stopping.borrow() {
                return Some(Err(Status::unavailable("the server is stopping")));
            }
            if *self.rows.cancelled.borrow() {
                return Some(Err(Status::cancelled("the statement was cancelled")));
            }
            if let Some((batch, sent)) = self.current.take() {
                return Some(self.piece(batch, sent).map_err(status));
            }
            let heartbeat_due = self.rows.heartbeat.map(|every| self.last_sent + every);
            tokio::select! {
                biased;
                Ok(_) = self.rows.cancelled.wait_for(|yes| *yes) => {}
                Ok(_) = self.rows.stopping.wait_for(|yes| *yes) => {}
                // A panic below must end this result, not the connection with everything else on it.
                batch = AssertUnwindSafe(self.rows.batches.next()).catch_unwind() => match batch {
                    Ok(None) => return None,
                    // A bounded result needs no empty batches, and clients before Arrow 15 take one for the end.
                    Ok(Some(Ok(batch))) if batch.num_rows() == 0 && heartbeat_due.is_none() => {}
                    Ok(Some(Ok(batch))) => self.current = Some((batch, 0)),
                    Ok(Some(Err(failure))) => return Some(Err(status(failure))),
                    Err(_) => return Some(Err(status(Error::Internal("the statement's execution panicked, see the server's log".into())))),
                },
                () = sleep_until(heartbeat_due) => {
                    let empty = RecordBatch::new_empty(self.rows.schema.clone());
                    self.current = Some((empty, 0));
                }
            }
        }
    }

    /// One message of `batch`, whose first `sent` rows have gone; the rest becomes the current batch.
    fn piece(&mut self, batch: RecordBatch, sent: usize) -> Result<FlightData> {
        let batch = if sent == 0 && batch.schema_ref() != &self.rows.schema { self.wire(batch)? } else { batch };
        let (message, rows) = self.encoder.encode(&batch, sent)?;
        if sent + rows < batch.num_rows() {
            self.current = Some((batch, sent + rows));
        }
        self.last_sent = Instant::now();
        Ok(message)
    }

    /// The batch in wire types. One whose texts share buffers is written out part by part.
    fn wire(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        if rows > 1 && viewed_bytes(&batch) > MAX_VIEWED_BYTES {
            let (first, second) = (batch.slice(0, rows / 2), batch.slice(rows / 2, rows - rows / 2));
            let rest = std::mem::replace(&mut self.rows.batches, futures::stream::empty().boxed());
            self.rows.batches = futures::stream::iter([Ok(second)]).chain(rest).boxed();
            return self.wire(first);
        }
        wire_batch(&batch, &self.rows.schema)
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
