//! The kernels inside, each on its own: `cargo bench --bench kernels`, and a name or a part of one behind it for some of them.
//!
//! Figures of a whole job are `tidegate bench`'s; these say which part of it a change has moved.

use std::{hint::black_box, sync::Arc};

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use tidegate::{
    catalog::Definition,
    decode::Decoder,
    source::{Records, RecordsBuilder},
    sql,
    stream::row_index::RowIndex,
};
use tidegate_udfs::window::Windows;

/// Records or keys at once.
const BATCH: usize = 8192;

fn main() {
    divan::main();
}

/// JSON's structural pass, and the walk to the end: of a hundred fields only the last is declared.
#[divan::bench]
fn scan(bencher: Bencher<'_, '_>) {
    let field = |at: usize| format!("\"field_{at}\":\"value {at}\",\"number_{at}\":{at}.25");
    let fields = (0..50).map(field).collect::<Vec<_>>().join(",");
    decode(bencher, "last BOOLEAN", |record| format!("{{{fields},\"last\":{}}}", record % 2 == 0));
}

/// JSON's numbers, texts and times: sixteen values a record, all declared.
#[divan::bench(args = ["BIGINT", "DOUBLE", "TEXT", "TIMESTAMP"])]
fn values(bencher: Bencher<'_, '_>, data_type: &str) {
    let columns = (0..16).map(|at| format!("c{at} {data_type}")).collect::<Vec<_>>().join(",");
    let value = |seed: usize| match data_type {
        "BIGINT" => (seed * 7919 % 100_003).to_string(),
        "DOUBLE" => format!("{}.{}", seed % 97, seed * 7919 % 100_003),
        "TEXT" => format!("\"text {}\"", seed * 7919 % 100_003),
        _ => format!("\"2024-03-{:02}T12:{:02}:{:02}.{:03}Z\"", 1 + seed % 31, seed % 60, seed * 7 % 60, seed % 1000),
    };
    decode(bencher, &columns, |record| {
        let values = (0..16).map(|at| format!("\"c{at}\":{}", value(record * 16 + at)));
        format!("{{{}}}", values.collect::<Vec<_>>().join(","))
    });
}

/// Looks groups up by two columns, among so many.
#[divan::bench(args = [1000, 100_000, 1_000_000])]
fn groups(bencher: Bencher<'_, '_>, groups: usize) {
    let keys = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<ArrayRef> {
        let numbers: Vec<i64> = numbers.map(|number| number as i64).collect();
        let texts = StringViewArray::from_iter_values(numbers.iter().map(|number| format!("team {}", number % 20)));
        vec![Arc::new(Int64Array::from(numbers)), Arc::new(texts)]
    };
    let all = keys(&mut (0..groups));
    let mut index = RowIndex::over(all.iter().map(|column| column.data_type().clone())).expect("keys have bytes");
    for (row, hash) in (0..).zip(index.hashes_of(&all, groups).expect("as above")) {
        index.add(hash, row);
    }
    let wanted = keys(&mut (0..BATCH).map(|at| at * 7919 % groups));
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let hashes = index.hashes_of(black_box(&wanted), BATCH).expect("as above");
        hashes.into_iter().filter_map(|hash| index.first(hash)).map(u64::from).sum::<u64>()
    });
}

/// Assigns times to windows of a minute; hopping ones begin every ten seconds.
#[divan::bench(args = ["tumble", "hop"])]
fn windows(bencher: Bencher<'_, '_>, kind: &str) {
    const SECOND: i64 = 1_000_000_000;
    let windows = if kind == "tumble" { Windows::tumble(60 * SECOND, 0) } else { Windows::hop(60 * SECOND, 10 * SECOND, 0) };
    let windows = windows.expect("lengths are positive");
    let times: Vec<i64> = (0..BATCH as i64).map(|at| at * 123_456_789).collect();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| black_box(&times).iter().flat_map(|time| windows.ends_of(*time)).fold(0i64, i64::wrapping_add));
}

/// Decodes a batch of records into these columns.
fn decode(bencher: Bencher<'_, '_>, columns: &str, payload: impl Fn(usize) -> String) {
    let text = format!("CREATE SOURCE events ({columns}) WITH (connector = 'kafka', topic = 'memory', 'bootstrap.servers' = 'memory:0', format = 'json')");
    let Ok(Definition::Source(source)) = sql::parse_definition(&text) else { panic!("the columns make a source") };
    let all: Vec<usize> = (0..source.columns.len()).collect();
    let mut decoder = Decoder::new(&source, &all).expect("the columns can be read");
    let records = records((0..BATCH).map(payload));
    let bytes = records.bytes().len();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let decoded = decoder.decode(0, black_box(&records), 0).expect("decoding never fails on data");
        assert!(decoded.errors.is_empty(), "{:?}", decoded.errors[0]);
        decoded.batch
    });
}

fn records(payloads: impl Iterator<Item = String>) -> Records {
    let mut builder = RecordsBuilder::new();
    for (offset, payload) in (0..).zip(payloads) {
        builder.push(offset, None, None, Some(payload.as_bytes()), vec![]);
    }
    builder.finish()
}
