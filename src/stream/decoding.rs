//! Decoding of what epochs read, on threads that stay: the next epoch is decoded while the views of this one run.
//!
//! What records decode to depends on their source's declaration and on the columns that views need, not on the pipeline's state: so it can be
//! done ahead. Where the needed columns have changed in between, it is done again.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IntoParallelIterator, IntoParallelRefIterator, ParallelIterator},
};
use tidegate_kernels::device::{Device, DeviceError, Gpu};
use tokio::sync::oneshot;

use super::{
    pipeline::EpochCut,
    placement::{Costs, Place},
};
use crate::{
    catalog::SourceDef,
    decode::{Decoded, Decoder, OnDevice},
    device::{Devices, Done},
    error::{Error, Result},
    source::Slice,
};

/// Below so many payload bytes one thread decodes: handing them out would cost longer.
const PARALLEL_BYTES: usize = 256 << 10;
/// A batch for a GPU ends when it has so many records,
const GPU_RECORDS: usize = 64 << 10;
/// or so many payload bytes.
const GPU_BYTES: usize = 64 << 20;
/// So many records are looked at for the keys that they have, before any are decoded on a GPU.
const LEARNT_FROM: usize = 2000;

/// What decodes for a pipeline: its sources, each for the columns that views need.
#[derive(Debug)]
pub struct Decoding {
    sources: BTreeMap<String, SourceDecoding>,
    threads: usize,
}

/// Decodes the records of one source.
#[derive(Debug)]
pub struct SourceDecoding {
    def: Arc<SourceDef>,
    needed: Vec<usize>,
    /// Where it is decoded,
    wish: Device,
    /// and what that has cost.
    costs: Mutex<Costs>,
    /// What is on the GPU for it.
    uploaded: Mutex<Option<Arc<Uploaded>>>,
    /// From how many records it was learnt which keys they have.
    learnt: Mutex<usize>,
    /// Decoders that nobody uses just now. They learn what records look like, and so are kept.
    spare: Mutex<Vec<Decoder>>,
}

/// A source's columns on a GPU.
#[derive(Debug)]
struct Uploaded {
    /// On which.
    gpu: Gpu,
    columns: OnDevice,
    /// The keys at the top of records that it tells of.
    noted: BTreeSet<String>,
}

/// What decodes for a source: for which columns, and where.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The source.
    pub def: Arc<SourceDef>,
    /// The positions of the columns that are needed, rising.
    pub needed: Vec<usize>,
    /// Where it is to be done.
    pub device: Device,
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
    /// For these sources, on so many threads.
    pub fn new(sources: impl IntoIterator<Item = Wanted>, threads: usize) -> Result<Self> {
        let one = |wanted: Wanted| Ok((wanted.def.name.clone(), SourceDecoding::new(wanted)?));
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
    /// For one source.
    pub fn new(Wanted { def, needed, device }: Wanted) -> Result<Self> {
        let decoder = Decoder::new(&def, &needed)?;
        // Where a GPU can't read it, nobody asks for one.
        let wish = if decoder.not_on_device().is_some() { Device::Cpu } else { device };
        Ok(Self { def, needed, wish, costs: Mutex::default(), uploaded: Mutex::default(), learnt: Mutex::default(), spare: Mutex::new(vec![decoder]) })
    }

    /// Decodes slices of its topic, on several threads where there is enough to do: one batch a slice.
    pub fn decode(&self, slices: &[Slice], now_ms: i64, threads: usize) -> Result<Vec<Decoded>> {
        if slices.is_empty() {
            return Ok(vec![]);
        }
        let bytes: usize = slices.iter().map(|slice| slice.records.byte_len()).sum();
        self.let_go_of_what_was_lost();
        if self.costs.lock().place(self.wish, bytes) == Place::Gpu {
            let started = Instant::now();
            if let Some(decoded) = self.decode_on_gpu(slices, now_ms, threads) {
                self.costs.lock().took(Place::Gpu, bytes, started.elapsed());
                return Ok(decoded);
            }
            self.costs.lock().failed();
        }
        let started = Instant::now();
        let decoded = self.decode_here(slices, bytes, now_ms, threads)?;
        self.costs.lock().took(Place::Cpu, bytes, started.elapsed());
        Ok(decoded)
    }

    /// A GPU that is lost can be opened again only when nobody has anything on it any more.
    fn let_go_of_what_was_lost(&self) {
        self.uploaded.lock().take_if(|there| Devices::get().is_lost(&there.gpu));
    }

    /// Decodes on the GPU; `None`: there is none, or it failed, and the CPU is to do it.
    fn decode_on_gpu(&self, slices: &[Slice], now_ms: i64, threads: usize) -> Option<Vec<Decoded>> {
        let devices = Devices::get();
        let gpu = match self.wish {
            Device::Gpu => devices.gpu().ok()?,
            // Nobody waits for one that only might be faster.
            Device::Auto | Device::Cpu => devices.ready()?,
        };
        self.learn(slices, now_ms).ok()?;
        let mut decoded = Vec::with_capacity(slices.len());
        let mut left = slices;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(batch_of(left));
            decoded.extend(self.decode_batch_on_gpu(&gpu, batch, now_ms, threads)?);
            left = rest;
        }
        Some(decoded)
    }

    /// The same for one batch. One at a time holds memory of the GPU: whoever held some and waited for more could wait for ever.
    fn decode_batch_on_gpu(&self, gpu: &Gpu, batch: &[Slice], now_ms: i64, threads: usize) -> Option<Vec<Decoded>> {
        let devices = Devices::get();
        let uploaded = self.upload(gpu)?;
        let started = Instant::now();
        let landed = match uploaded.columns.read(batch) {
            Ok(landed) => landed,
            Err(error) => {
                devices.failed(gpu, &error);
                return None;
            }
        };
        let waited = started.elapsed();
        let one = |position: usize| self.with_decoder(|decoder| decoder.decode_landed(&uploaded.columns, &landed, position, &batch[position], now_ms));
        let read: Result<Vec<Decoded>> = match threads < 2 || batch.len() < 2 {
            true => (0..batch.len()).map(one).collect(),
            false => pool().and_then(|pool| pool.install(|| (0..batch.len()).into_par_iter().map(one).collect())),
        };
        match read {
            Ok(read) => {
                let rows = batch.iter().map(|slice| slice.records.len()).sum();
                devices.done(&Done { rows, bytes: landed.bytes, left_over: landed.left_over(), timing: landed.timing, waited });
                Some(read)
            }
            Err(error) => {
                devices.failed(gpu, &DeviceError::Batch(format!("what was read of source {} can't be used: {error}", self.def.name)));
                None
            }
        }
    }

    /// Looks at the first records for the keys that they have, which the GPU is told of. What is decoded of them is of no use.
    fn learn(&self, slices: &[Slice], now_ms: i64) -> Result<()> {
        let mut learnt = self.learnt.lock();
        for slice in slices.iter().filter(|slice| !slice.records.is_empty()) {
            if *learnt == LEARNT_FROM {
                break;
            }
            let (some, _) = slice.records.clone().split_at(LEARNT_FROM - *learnt);
            *learnt += some.len();
            self.with_decoder(|decoder| decoder.decode(slice.partition, &some, now_ms).map(|_| ()))?;
        }
        Ok(())
    }

    /// What is on the GPU for this source: what was, unless records have other keys by now. `None`: it can't be put there now.
    fn upload(&self, gpu: &Gpu) -> Option<Arc<Uploaded>> {
        let (mut uploaded, spare) = (self.uploaded.lock(), self.spare.lock());
        let mut noted: BTreeSet<String> = spare.iter().flat_map(Decoder::noted).collect();
        if let Some(known) = uploaded.as_ref().filter(|known| known.gpu.is(gpu)) {
            noted.extend(known.noted.iter().cloned());
            if known.noted == noted {
                return Some(known.clone());
            }
        }
        let first = spare.first()?;
        // In the order in which records have them, as far as that is known.
        let mut keys = first.noted();
        keys.extend(noted.iter().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
        match first.put_on(gpu, keys) {
            Ok(columns) => {
                let now = Arc::new(Uploaded { gpu: gpu.clone(), columns, noted });
                *uploaded = Some(now.clone());
                Some(now)
            }
            Err(error) => {
                Devices::get().failed(gpu, &error);
                None
            }
        }
    }

    fn decode_here(&self, slices: &[Slice], bytes: usize, now_ms: i64, threads: usize) -> Result<Vec<Decoded>> {
        if bytes < PARALLEL_BYTES || slices.len() < 2 || threads < 2 {
            return slices.iter().map(|slice| self.decode_one(slice, now_ms)).collect();
        }
        pool()?.install(|| slices.par_iter().map(|slice| self.decode_one(slice, now_ms)).collect())
    }

    fn decode_one(&self, slice: &Slice, now_ms: i64) -> Result<Decoded> {
        self.with_decoder(|decoder| decoder.decode(slice.partition, &slice.records, now_ms))
    }

    fn with_decoder<T>(&self, decode: impl FnOnce(&mut Decoder) -> Result<T>) -> Result<T> {
        let spare = self.spare.lock().pop();
        let mut decoder = spare.map_or_else(|| Decoder::new(&self.def, &self.needed), Ok)?;
        let decoded = decode(&mut decoder);
        self.spare.lock().push(decoder);
        decoded
    }
}

/// How many of these runs make a batch for a GPU.
fn batch_of(slices: &[Slice]) -> usize {
    let (mut records, mut bytes) = (0, 0);
    let fits = |slice: &&Slice| {
        (records, bytes) = (records + slice.records.len(), bytes + slice.records.byte_len());
        records <= GPU_RECORDS && bytes <= GPU_BYTES
    };
    slices.iter().take_while(fits).count().max(1)
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
        let decoding = |threads| Arc::new(Decoding::new([Wanted { def: source(), needed: vec![0, 1], device: Device::Cpu }], threads).unwrap());
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
