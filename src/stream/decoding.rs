//! Decoding of what epochs read, on threads that stay: the next epoch is decoded while the views of this one run.
//!
//! What records decode to depends on their source's declaration and on the columns that views need, not on the pipeline's state: so it can be
//! done ahead. Where the needed columns have changed in between, it is done again.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IntoParallelRefIterator, ParallelIterator},
};
use tokio::sync::oneshot;

use super::pipeline::EpochCut;
use crate::{
    catalog::SourceDef,
    decode::{Decoded, Decoder},
    error::{Error, Result},
    source::Slice,
};

/// Below so many payload bytes one thread decodes: handing them out would cost longer.
const PARALLEL_BYTES: usize = 256 << 10;

/// What decodes for a pipeline: its sources, each for the columns that views need.
#[derive(Debug)]
pub struct Decoding {
    sources: BTreeMap<String, SourceDecoding>,
    threads: usize,
}

#[derive(Debug)]
struct SourceDecoding {
    def: Arc<SourceDef>,
    needed: Vec<usize>,
    /// Decoders that nobody uses just now. They learn what records look like, and so are kept.
    spare: Mutex<Vec<Decoder>>,
}

/// An epoch's rows before any view has seen them.
#[derive(Debug)]
pub struct DecodedEpoch {
    /// For each source one batch a slice, in the slices' order.
    pub sources: BTreeMap<String, Vec<Decoded>>,
    /// How long the epoch waited for it.
    pub waited: Duration,
    /// What it was decoded for.
    by: Arc<Decoding>,
}

/// An epoch that is being decoded.
#[derive(Debug)]
pub struct Ahead(oneshot::Receiver<Result<DecodedEpoch>>);

impl Decoding {
    /// For sources, each with the positions of the columns that are needed, on so many threads.
    pub fn new(sources: impl IntoIterator<Item = (Arc<SourceDef>, Vec<usize>)>, threads: usize) -> Result<Self> {
        let one = |(def, needed): (Arc<SourceDef>, Vec<usize>)| {
            let spare = Mutex::new(vec![Decoder::new(&def, &needed)?]);
            Ok((def.name.clone(), SourceDecoding { def, needed, spare }))
        };
        Ok(Self { sources: sources.into_iter().map(one).collect::<Result<_>>()?, threads })
    }

    /// Decodes an epoch, on several threads where there is enough to do.
    pub fn decode(self: &Arc<Self>, cut: &EpochCut) -> Result<DecodedEpoch> {
        self.decode_slices(&cut.slices, cut.now_ms)
    }

    /// Begins to decode an epoch on other threads.
    pub fn begin(self: &Arc<Self>, cut: &EpochCut) -> Result<Ahead> {
        let (decoding, slices, now_ms) = (self.clone(), cut.slices.clone(), cut.now_ms);
        let (done, decoded) = oneshot::channel();
        pool()?.spawn(move || {
            let panicked = |_| Err(Error::Internal("a decoder panicked".into()));
            // Whoever wanted it may have gone.
            let _ = done.send(catch_unwind(AssertUnwindSafe(|| decoding.decode_slices(&slices, now_ms))).unwrap_or_else(panicked));
        });
        Ok(Ahead(decoded))
    }

    fn decode_slices(self: &Arc<Self>, slices: &BTreeMap<String, Vec<Slice>>, now_ms: i64) -> Result<DecodedEpoch> {
        let started = Instant::now();
        let decoded = |(name, source): (&String, &SourceDecoding)| {
            let slices = slices.get(name).map(Vec::as_slice).unwrap_or_default();
            Ok((name.clone(), source.decode(slices, now_ms, self.threads)?))
        };
        let sources = self.sources.iter().map(decoded).collect::<Result<_>>()?;
        Ok(DecodedEpoch { sources, waited: started.elapsed(), by: self.clone() })
    }
}

impl SourceDecoding {
    fn decode(&self, slices: &[Slice], now_ms: i64, threads: usize) -> Result<Vec<Decoded>> {
        let bytes: usize = slices.iter().map(|slice| slice.records.byte_len()).sum();
        if bytes < PARALLEL_BYTES || slices.len() < 2 || threads < 2 {
            return slices.iter().map(|slice| self.decode_one(slice, now_ms)).collect();
        }
        pool()?.install(|| slices.par_iter().map(|slice| self.decode_one(slice, now_ms)).collect())
    }

    fn decode_one(&self, slice: &Slice, now_ms: i64) -> Result<Decoded> {
        let spare = self.spare.lock().pop();
        let mut decoder = spare.map_or_else(|| Decoder::new(&self.def, &self.needed), Ok)?;
        let decoded = decoder.decode(slice.partition, &slice.records, now_ms);
        self.spare.lock().push(decoder);
        decoded
    }
}

impl DecodedEpoch {
    /// Whether it was decoded by this, and so for the columns that are needed now.
    pub fn is_by(&self, decoding: &Arc<Decoding>) -> bool {
        Arc::ptr_eq(&self.by, decoding)
    }
}

impl Ahead {
    /// What was decoded, when it is.
    pub async fn done(self) -> Result<DecodedEpoch> {
        let started = Instant::now();
        let decoded = self.0.await.map_err(|_| Error::Internal("an epoch's decoding was lost".into()))??;
        Ok(DecodedEpoch { waited: started.elapsed(), ..decoded })
    }
}

/// The threads that decode, for all pipelines. Threads that come and go would begin with fresh memory each time, which the system has to clear.
fn pool() -> Result<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let made = || ThreadPoolBuilder::new().thread_name(|number| format!("decode {number}")).build().ok();
    POOL.get_or_init(made).as_ref().ok_or_else(|| Error::External("no threads to decode with could be started".into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{catalog::Definition, source::RecordsBuilder, sql};

    fn source() -> Arc<SourceDef> {
        let text = "CREATE SOURCE events (n BIGINT, t TEXT) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')";
        let Definition::Source(source) = sql::parse_definition(text).unwrap() else { panic!("no source") };
        source
    }

    /// Slices of different lengths, with a bad record in each, and more bytes than one thread is given.
    fn cut() -> EpochCut {
        let slice = |partition: i32| {
            let mut builder = RecordsBuilder::new();
            let end = 700 + i64::from(partition) * 100;
            (0..end).for_each(|n| builder.push(n, None, None, Some(format!(r#"{{"n":{n},"t":"partition {partition}, record {n}"}}"#).as_bytes()), vec![]));
            builder.push(end, None, None, Some(b"{"), vec![]);
            Slice { partition, begin: 0, end: end + 1, records: builder.finish() }
        };
        let slices: Vec<Slice> = (0..12).map(slice).collect();
        assert!(slices.iter().map(|slice| slice.records.byte_len()).sum::<usize>() > PARALLEL_BYTES);
        EpochCut { slices: BTreeMap::from([("events".into(), slices)]), ..EpochCut::default() }
    }

    #[tokio::test]
    async fn threads_change_nothing() {
        let cut = cut();
        let decoding = |threads| Arc::new(Decoding::new([(source(), vec![0, 1])], threads).unwrap());
        let (one, many) = (decoding(1), decoding(3));
        let expected = one.decode(&cut).unwrap();
        let ahead = many.begin(&cut).unwrap();
        for decoded in [many.decode(&cut).unwrap(), ahead.done().await.unwrap()] {
            assert!(decoded.is_by(&many) && !decoded.is_by(&one));
            for (decoded, expected) in decoded.sources["events"].iter().zip(&expected.sources["events"]) {
                assert_eq!((&decoded.batch, &decoded.errors), (&expected.batch, &expected.errors));
                assert_eq!(decoded.errors.len(), 1);
            }
        }
        assert_eq!(decoding(2).decode(&EpochCut::default()).unwrap().sources["events"].len(), 0);
    }
}
