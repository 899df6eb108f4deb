//! What readers see: all views of a pipeline at one epoch, swapped in as one.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::{Mutex, RwLock};

use super::{drift::DriftFigures, figures::PipelineFigures, history::History, outbox::Outbox, segments::Snapshot, view::PublishedView};

/// A pipeline at one epoch.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// The epoch; 0 before the first.
    pub epoch: u64,
    /// Its sources.
    pub sources: BTreeMap<String, PublishedSource>,
    /// Its views.
    pub views: BTreeMap<String, PublishedView>,
}

/// A source at one epoch.
#[derive(Debug, Clone)]
pub struct PublishedSource {
    /// For each partition the offset of the first record that the epoch has not read.
    pub offsets: BTreeMap<i32, i64>,
    /// The watermark in nanoseconds since 1970; `None` if there is none yet or the source has no event time.
    pub watermark: Option<i64>,
    /// Each partition's own watermark, and whether it is idle.
    pub partitions: BTreeMap<i32, (Option<i64>, bool)>,
    /// Bad records, as many as are kept.
    pub errors: Snapshot,
    /// How many records were bad, ever.
    pub errors_total: u64,
    /// How many rows were read, ever.
    pub rows_total: u64,
    /// How records have differed from the declaration, up to now.
    pub drift: Arc<DriftFigures>,
    /// What sinks of its bad records have still to write.
    pub outboxes: Vec<Arc<Outbox>>,
}

/// Where a pipeline puts what it publishes.
#[derive(Debug, Default)]
pub struct Board {
    current: RwLock<Arc<Published>>,
    figures: PipelineFigures,
    history: Mutex<History>,
}

impl Board {
    /// What is published now; stays as it is for whoever holds it.
    pub fn current(&self) -> Arc<Published> {
        self.current.read().clone()
    }

    /// What the pipeline has done, for whoever looks inside.
    pub fn figures(&self) -> &PipelineFigures {
        &self.figures
    }

    /// What was published at an epoch, if that is still kept; else the oldest and the newest epochs that are.
    pub fn at(&self, epoch: u64) -> Result<Arc<Published>, Option<(u64, u64)>> {
        self.history.lock().at(epoch)
    }

    /// Publishes an epoch.
    pub fn publish(&self, published: Published) {
        let published = Arc::new(published);
        self.history.lock().push(published.clone());
        *self.current.write() = published;
    }
}
