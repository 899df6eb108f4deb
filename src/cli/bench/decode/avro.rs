//! Avro, bare and behind a schema registry's header, beside arrow-avro's readers.

use arrow::{array::RecordBatch, datatypes::Schema};
use arrow_avro::{
    reader::ReaderBuilder,
    schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, FingerprintStrategy, SCHEMA_METADATA_KEY, SchemaStore},
    writer::{
        WriterBuilder,
        format::{AvroBinaryFormat, AvroFormat, AvroSoeFormat},
    },
};
use axum::{Router, routing::get};
use serde_json::json;

use super::{BATCH, Contest, Layout, Rival, event::Event, needed::events_source, records, rows::rows};
use crate::source::{Records, registry::Needs};

/// The schema that records are written with.
const SCHEMA: &str = r#"{"type": "record", "name": "Event", "fields": [
  {"name": "id", "type": "string"}, {"name": "index", "type": "int"}, {"name": "period", "type": "int"}, {"name": "timestamp", "type": "string"},
  {"name": "minute", "type": "int"}, {"name": "second", "type": "int"},
  {"name": "type", "type": {"type": "record", "name": "Named", "fields": [{"name": "id", "type": "int"}, {"name": "name", "type": "string"}]}},
  {"name": "possession", "type": "int"}, {"name": "possession_team", "type": "Named"}, {"name": "play_pattern", "type": "Named"},
  {"name": "team", "type": "Named"}, {"name": "player", "type": ["null", "Named"]}, {"name": "position", "type": ["null", "Named"]},
  {"name": "location", "type": ["null", {"type": "array", "items": "double"}]}, {"name": "duration", "type": ["null", "double"]},
  {"name": "related_events", "type": ["null", {"type": "array", "items": "string"}]},
  {"name": "pass", "type": ["null", {"type": "record", "name": "Pass", "fields": [
    {"name": "recipient", "type": ["null", "Named"]}, {"name": "length", "type": "double"}, {"name": "angle", "type": "double"},
    {"name": "height", "type": ["null", "Named"]}, {"name": "end_location", "type": {"type": "array", "items": "double"}}]}]},
  {"name": "shot", "type": ["null", {"type": "record", "name": "Shot", "fields": [
    {"name": "statsbomb_xg", "type": "double"}, {"name": "end_location", "type": {"type": "array", "items": "double"}},
    {"name": "outcome", "type": ["null", "Named"]}]}]},
  {"name": "match_id", "type": "long"}, {"name": "home_team", "type": "string"}, {"name": "away_team", "type": "string"},
  {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
/// What arrow-avro is to read of it.
const NEEDED: &str = r#"{"type": "record", "name": "Event", "fields": [
  {"name": "match_id", "type": "long"}, {"name": "minute", "type": "int"}, {"name": "second", "type": "int"},
  {"name": "type", "type": {"type": "record", "name": "Named", "fields": [{"name": "name", "type": "string"}]}}, {"name": "team", "type": "Named"},
  {"name": "player", "type": ["null", "Named"]},
  {"name": "shot", "type": ["null", {"type": "record", "name": "Shot", "fields": [{"name": "statsbomb_xg", "type": "double"}]}]},
  {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
/// Under which the schema is registered.
const ID: u32 = 7;

/// Records without anything before them.
pub(super) fn bare(events: &[Event]) -> anyhow::Result<Contest> {
    let payloads = written::<AvroBinaryFormat>(&rows(events)?)?;
    let file = file(&payloads);
    let read = Box::new(move |_: &[Records]| Ok(reader().build(file.as_slice())?.collect::<Result<_, _>>()?));
    let rivals = vec![Rival { name: "arrow-avro", read, layout: Layout::Objects }];
    Ok(Contest { case: "avro", source: events_source(&format!("format = 'avro', 'avro.schema' = '{SCHEMA}'"))?, payloads, rivals })
}

/// Records behind the header that names their schema in a registry.
pub(super) async fn behind_a_header(events: &[Event]) -> anyhow::Result<Contest> {
    let payloads = written::<AvroSoeFormat>(&rows(events)?)?;
    let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let options = format!("format = 'avro', 'avro.schema' = '{SCHEMA}', 'schema.registry.url' = 'http://{}'", registry.local_addr()?);
    let source = events_source(&options)?;
    let answers = Router::new().route(&format!("/schemas/ids/{ID}"), get(|| async { json!({ "schema": SCHEMA }).to_string() }));
    let serving = tokio::spawn(async move { axum::serve(registry, answers).await });
    let (needs, first) = (Needs::of(&source)?, records(&payloads[..1]));
    tokio::task::spawn_blocking(move || needs.fetch_for_all(&first)).await??;
    serving.abort();
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(ID), AvroSchema::new(SCHEMA.into()))?;
    let frames = payloads.concat();
    let read = move |_: &[Records]| {
        let mut decoder = reader().with_writer_schema_store(store.clone()).build_decoder()?;
        let (mut batches, mut at) = (vec![], 0);
        while at < frames.len() {
            at += decoder.decode(&frames[at..])?;
            batches.extend(decoder.flush()?);
        }
        Ok(batches)
    };
    let rivals = vec![Rival { name: "arrow-avro", read: Box::new(read), layout: Layout::Objects }];
    Ok(Contest { case: "avro-registry", source, payloads, rivals })
}

/// Records in the blocks of an object container file. arrow-avro's own writer would not name them as the schema does.
fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
    const SYNC: [u8; 16] = [7; 16];
    let mut file = b"Obj\x01".to_vec();
    put_length(&mut file, 1);
    for text in ["avro.schema", SCHEMA] {
        put_length(&mut file, text.len());
        file.extend(text.as_bytes());
    }
    put_length(&mut file, 0);
    file.extend(SYNC);
    for block in payloads.chunks(BATCH) {
        put_length(&mut file, block.len());
        put_length(&mut file, block.iter().map(Vec::len).sum());
        block.iter().for_each(|payload| file.extend(payload));
        file.extend(SYNC);
    }
    file
}

/// A length as Avro's long.
fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut left = (length as u64) << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn reader() -> ReaderBuilder {
    ReaderBuilder::new().with_reader_schema(AvroSchema::new(NEEDED.into())).with_utf8_view(true).with_batch_size(BATCH)
}

/// The rows' schema, with that of Avro.
fn schema(rows: &[RecordBatch]) -> anyhow::Result<Schema> {
    let schema = rows.first().ok_or_else(|| anyhow::anyhow!("there are no rows"))?.schema();
    let compact = serde_json::from_str::<serde_json::Value>(SCHEMA)?.to_string();
    Ok(Schema::clone(&schema).with_metadata([(SCHEMA_METADATA_KEY.to_string(), compact)].into()))
}

fn written<F: AvroFormat>(rows: &[RecordBatch]) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut encoder = WriterBuilder::new(schema(rows)?).with_fingerprint_strategy(FingerprintStrategy::Id(ID)).build_encoder::<F>()?;
    for batch in rows {
        encoder.encode(batch)?;
    }
    Ok(encoder.flush().iter().map(|row| row.to_vec()).collect())
}
