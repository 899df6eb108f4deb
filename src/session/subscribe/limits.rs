//! The end of a subscription that has one: after so many rows, or after so long.

use std::pin::Pin;

use datafusion::{execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter};
use futures::{Stream, StreamExt};

use crate::sql::SubscribeOptions;

/// The same rows, up to where they are to end.
pub(super) fn bounded(rows: SendableRecordBatchStream, options: &SubscribeOptions) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let rows: Pin<Box<dyn Stream<Item = _> + Send>> = match options.timeout {
        // It begins with the first poll: a ticket may be redeemed long after it was given.
        Some(timeout) => Box::pin(futures::stream::once(async move { rows.take_until(tokio::time::sleep(timeout)) }).flatten()),
        None => rows,
    };
    let Some(limit) = options.max_rows else { return Box::pin(RecordBatchStreamAdapter::new(schema, rows)) };
    let limited = futures::stream::unfold((rows, limit), |(mut rows, left)| async move {
        if left == 0 {
            // Dropping the rows here stops the work.
            return None;
        }
        Some(match rows.next().await? {
            Ok(batch) if batch.num_rows() > left => (Ok(batch.slice(0, left)), (rows, 0)),
            Ok(batch) => {
                let left = left - batch.num_rows();
                (Ok(batch), (rows, left))
            }
            Err(error) => (Err(error), (rows, 0)),
        })
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, limited))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use arrow::{
        array::Int64Array,
        datatypes::{DataType, Field, Schema},
        record_batch::RecordBatch,
    };

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(0..rows))]).unwrap()
    }

    async fn counts(options: SubscribeOptions) -> Vec<usize> {
        let endless = futures::stream::iter([3, 0, 4, 5].map(|rows| Ok(batch(rows)))).chain(futures::stream::pending());
        let rows = bounded(Box::pin(RecordBatchStreamAdapter::new(batch(0).schema(), endless)), &options);
        rows.map(|batch| batch.unwrap().num_rows()).collect().await
    }

    #[tokio::test]
    async fn it_ends_after_so_many_rows_or_so_long() {
        assert_eq!(counts(SubscribeOptions { max_rows: Some(5), ..Default::default() }).await, [3, 0, 2]);
        assert_eq!(counts(SubscribeOptions { max_rows: Some(12), ..Default::default() }).await, [3, 0, 4, 5]);
        assert_eq!(counts(SubscribeOptions { timeout: Some(Duration::from_millis(50)), ..Default::default() }).await, [3, 0, 4, 5]);
        let both = SubscribeOptions { max_rows: Some(100), timeout: Some(Duration::from_millis(50)), ..Default::default() };
        assert_eq!(counts(both).await, [3, 0, 4, 5]);
    }
}
