//! What stands for a broker and for readers where a pipeline runs from memory: topics whose records are cut into epochs, and a view's rows.

use arrow::array::RecordBatch;

use crate::{
    source::{RecordsBuilder, Slice},
    stream::published::Board,
};

/// A topic. What is pushed is the next epoch's until it is cut off.
pub(super) struct Topic {
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    /// The offset of the first record that was not cut off yet,
    begin: i64,
    /// and of the next one that comes.
    end: i64,
    records: RecordsBuilder,
}

impl Topic {
    /// An empty one with so many partitions.
    pub(super) fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Partition::default()).collect() }
    }

    /// Adds a record to a partition.
    pub(super) fn push(&mut self, partition: usize, timestamp_ms: Option<i64>, key: Option<&[u8]>, payload: &[u8]) {
        let partition = &mut self.partitions[partition];
        partition.records.push(partition.end, timestamp_ms, key, Some(payload), vec![]);
        partition.end += 1;
    }

    /// What came since this was asked last, of each partition that has any.
    pub(super) fn cut(&mut self) -> Vec<Slice> {
        let with_records = (0..).zip(&mut self.partitions).filter(|(_, partition)| partition.end > partition.begin);
        let slice = |(number, partition): (i32, &mut Partition)| {
            let begin = std::mem::replace(&mut partition.begin, partition.end);
            Slice { partition: number, begin, end: partition.end, records: std::mem::take(&mut partition.records).finish() }
        };
        with_records.map(slice).collect()
    }
}

/// The rows of the only view on a board.
pub(super) fn rows(board: &Board) -> anyhow::Result<Vec<RecordBatch>> {
    let published = board.current();
    let view = published.views.values().next().ok_or_else(|| anyhow::anyhow!("the view is gone"))?;
    anyhow::ensure!(view.failure.is_none(), "the view failed: {:?}", view.failure);
    Ok(view.contents.batches().collect::<crate::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_what_came_since_the_one_before() {
        let mut topic = Topic::new(3);
        let cut = |topic: &mut Topic| {
            let slices = topic.cut();
            slices.iter().map(|slice| (slice.partition, slice.begin..slice.end, slice.records.len())).collect::<Vec<_>>()
        };
        for partition in [0, 2, 0] {
            topic.push(partition, None, None, b"{}");
        }
        assert_eq!(cut(&mut topic), [(0, 0..2, 2), (2, 0..1, 1)]);
        topic.push(2, None, None, b"{}");
        assert_eq!(cut(&mut topic), [(2, 1..2, 1)]);
        assert_eq!(cut(&mut topic), []);
    }
}
