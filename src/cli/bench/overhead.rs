//! What the look inside costs: the recording that every epoch does, measured on its own, against the time of the epochs themselves.
//!
//! A run with recording against one without would drown the difference in the runs' own noise; so everything that an epoch calls for
//! its figures is called here many times, clock reads included.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{datatypes::Schema, record_batch::RecordBatch};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

use crate::stream::{
    driver::now_ms,
    figures::{Below, EpochFigures, PipelineFigures, ViewFigures},
    pipeline::EpochReport,
};

const ROUNDS: u32 = 20_000;

/// Time that one epoch of one view with one operator spends on figures. The fastest of several rounds.
pub async fn recording() -> Duration {
    let pipeline = PipelineFigures::default();
    let view = Arc::new(ViewFigures::default());
    view.insert(0);
    let batch = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let mut best = Duration::MAX;
    for _ in 0..5 {
        // Making the stream is the benchmark's: an epoch has one anyway.
        let plain = |batch: &RecordBatch| Box::pin(RecordBatchStreamAdapter::new(batch.schema(), futures::stream::iter([Ok(batch.clone())])));
        let started = Instant::now();
        for _ in 0..ROUNDS {
            let mut stream = plain(&batch);
            while stream.next().await.is_some() {}
        }
        let without = started.elapsed();
        let started = Instant::now();
        for epoch in 0..ROUNDS {
            one_epoch(&pipeline, &view, u64::from(epoch), plain(&batch)).await;
        }
        best = best.min(started.elapsed().saturating_sub(without) / ROUNDS);
    }
    best
}

/// The calls of `stream::driver`, `stream::pipeline`, `stream::view` and `stream::aggregate` in one epoch.
async fn one_epoch(pipeline: &PipelineFigures, view: &ViewFigures, epoch: u64, rows: datafusion::execution::SendableRecordBatchStream) {
    let (started, started_ms) = (Instant::now(), now_ms());
    let fetch = started.elapsed();
    let checkpoint = started.elapsed() - fetch;
    let (decode, execute, state, publish) = (Instant::now(), Instant::now(), Instant::now(), Instant::now());
    let (operator, below) = (Instant::now(), Arc::new(Below::default()));
    let mut counted = below.counted(rows);
    while counted.next().await.is_some() {}
    view.record(0, below.rows(), 1, operator.elapsed().saturating_sub(below.time()));
    let plan = Instant::now();
    if view.is_watched() {
        std::hint::black_box(plan.elapsed());
    }
    if let Some(figures) = view.operator(0) {
        figures.holds(1, 1);
    }
    let report =
        EpochReport { decode: decode.elapsed(), execute: execute.elapsed(), state: state.elapsed(), publish: publish.elapsed(), ..EpochReport::default() };
    let since_last = Some(started.elapsed());
    pipeline.record(EpochFigures { epoch, started_ms, report, duration: started.elapsed(), since_last, delay: Duration::ZERO, fetch, checkpoint });
}
