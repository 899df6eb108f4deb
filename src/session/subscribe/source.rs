//! Subscriptions over a source: a pipeline of their own, which waits for its one follower.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::AsArray,
    compute::concat_batches,
    datatypes::{Int64Type, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use tokio::sync::mpsc;

use super::ops::{pair_up, with_ops};
use crate::{
    error::{Error, Result},
    source::FeedState,
    stream::{
        changes::{EpochChanges, Follower},
        driver::Driver,
        hidden::pair_field,
    },
};

/// How a private pipeline's changes become rows of a subscription.
pub(super) struct Ops {
    /// The result's columns.
    pub schema: SchemaRef,
    /// Rows come and go.
    pub changing: bool,
    /// What names a row.
    pub key: Option<Vec<usize>>,
}

/// Hands the changes of a private pipeline on until nobody listens.
pub(super) async fn follow(driver: &Driver, mut follower: Follower, ops: Ops, output: mpsc::Sender<Result<RecordBatch>>) {
    let work = async {
        let mut epoch = 0;
        loop {
            // The pipeline waits for its only follower.
            let changes = follower.next(epoch).await?.ok_or_else(|| Error::Internal("a subscription's own pipeline has not waited for it".into()))?;
            for change in changes {
                epoch = change.epoch;
                if !give_changes(&change, &ops, &output).await? {
                    return Ok::<(), Error>(());
                }
            }
        }
    };
    tokio::select! {
        result = work => if let Err(error) = result {
            // The client may have gone.
            let _ = output.send(Err(error)).await;
        },
        reason = failure_of(driver) => {
            // The client may have gone.
            let _ = output.send(Err(Error::External(reason))).await;
        },
        () = output.closed() => {}
    }
}

/// Waits until a private pipeline can't go on, and says why.
async fn failure_of(driver: &Driver) -> String {
    loop {
        let status = driver.status();
        let failed = status.feeds.into_values().find_map(|feed| match feed.state {
            FeedState::Failed(reason) => Some(reason),
            FeedState::Running | FeedState::Connecting(_) => None,
        });
        if let Some(reason) = status.failure.or(failed) {
            return reason;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn give_changes(change: &EpochChanges, ops: &Ops, output: &mpsc::Sender<Result<RecordBatch>>) -> Result<bool> {
    // In one batch, so that no update is torn at a border.
    if let Some(first) = change.batches.first() {
        let batch = concat_batches(first.schema_ref(), change.batches.iter())?;
        let mut fields = batch.schema_ref().fields().to_vec();
        let mut columns = batch.columns().to_vec();
        if ops.changing {
            let width = batch.num_columns() - 1;
            let rows = batch.project(&(0..width).collect::<Vec<_>>())?;
            let pairs = pair_up(&rows, Some(batch.column(width).as_primitive::<Int64Type>()), ops.key.as_deref())?;
            fields.push(pair_field());
            columns.push(Arc::new(pairs));
        }
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())))?;
        let batch = with_ops(&batch, &ops.schema, change.epoch)?;
        if batch.num_rows() > 0 && output.send(Ok(batch)).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
