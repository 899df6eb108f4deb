//! Avro: what arrow-avro writes is read back the same, whatever is done to the bytes of one record harms no other, and no payload costs more than
//! its length.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray},
    array::{StructArray, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use arrow_avro::{
    schema::FingerprintStrategy,
    writer::{WriterBuilder, format::AvroSoeFormat},
};

use super::*;
use crate::catalog::AvroDef;

/// Numbers that look like chance, and are the same each time.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn some<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(4) > 0).then(|| value(self))
    }

    fn text(&mut self) -> String {
        (0..self.below(20)).map(|_| ['a', 'Z', 'ñ', '€', '"', '\n'][self.below(6)]).collect()
    }

    fn long(&mut self) -> i64 {
        let bits = self.below(64);
        (self.next() as i64) << bits >> self.below(64)
    }
}

fn bare(schema: &str, columns: Vec<ColumnDef>) -> SourceDef {
    SourceDef { format: Format::Avro(Arc::new(AvroDef { schema: schema.into(), registry: None })), ..source(columns, None) }
}

fn decode_avro<P: AsRef<[u8]>>(schema: &str, columns: Vec<ColumnDef>, payloads: &[P]) -> Decoded {
    let all: Vec<usize> = (0..columns.len()).collect();
    Decoder::new(&bare(schema, columns), &all).unwrap().decode(0, &records(payloads), 0).unwrap()
}

/// The same rows, or the reason against the one payload.
fn one(schema: &str, columns: Vec<ColumnDef>, payload: &[u8]) -> Result<Vec<Cell>, String> {
    let decoded = decode_avro(schema, columns, &[payload]);
    match decoded.errors.as_slice() {
        [] => Ok(rows(&decoded).remove(0)),
        [bad] => Err(bad.reason.clone()),
        more => panic!("{more:?}"),
    }
}

/// Rows of most types, as arrow-avro takes them.
fn batch(chance: &mut Chance, count: usize) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef)> = vec![];
    macro_rules! column {
        ($name:literal, $array:expr) => {
            columns.push(($name, Arc::new($array)))
        };
    }
    column!("flag", BooleanArray::from_iter((0..count).map(|_| chance.some(|c| c.below(2) == 0))));
    column!("i", Int32Array::from_iter((0..count).map(|_| chance.some(|c| c.long() as i32))));
    column!("l", Int64Array::from_iter((0..count).map(|_| chance.some(Chance::long))));
    column!("f", Float32Array::from_iter((0..count).map(|_| chance.some(|c| c.long() as f32 / 7.0))));
    column!("d", Float64Array::from_iter((0..count).map(|_| chance.some(|c| c.long() as f64 / 7.0))));
    column!("t", StringArray::from_iter((0..count).map(|_| chance.some(Chance::text))));
    column!("b", BinaryArray::from_iter((0..count).map(|_| chance.some(|c| c.text().into_bytes()))));
    column!("day", Date32Array::from_iter((0..count).map(|_| chance.some(|c| c.long() as i32))));
    column!("at", TimestampMicrosecondArray::from_iter((0..count).map(|_| chance.some(Chance::long))));
    let decimals = Decimal128Array::from_iter((0..count).map(|_| chance.some(|c| i128::from(c.long() >> 1))));
    column!("dec", decimals.with_precision_and_scale(20, 3).unwrap());
    column!(
        "list",
        ListArray::from_iter_primitive::<Int64Type, _, _>(
            (0..count).map(|_| chance.some(|c| (0..c.below(5)).map(|_| c.some(Chance::long)).collect::<Vec<_>>()))
        )
    );
    let x: ArrayRef = Arc::new(Int64Array::from_iter((0..count).map(|_| chance.some(Chance::long))));
    let y: ArrayRef = Arc::new(StringArray::from_iter((0..count).map(|_| chance.some(Chance::text))));
    let fields = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)]);
    let valid = (0..count).map(|_| chance.below(4) > 0).collect::<Vec<bool>>();
    column!("part", StructArray::new(fields, vec![x, y], Some(valid.into())));
    let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

/// arrow-avro's schema and its records without their header.
fn written(batch: &RecordBatch) -> (String, Vec<Vec<u8>>) {
    let schema = arrow_avro::schema::AvroSchema::try_from(batch.schema_ref().as_ref()).unwrap().json_string;
    let record = |row| {
        let builder = WriterBuilder::new(batch.schema_ref().as_ref().clone()).with_fingerprint_strategy(FingerprintStrategy::Id(7));
        let mut writer = builder.build::<_, AvroSoeFormat>(Vec::new()).unwrap();
        writer.write(&batch.slice(row, 1)).unwrap();
        writer.finish().unwrap();
        writer.into_inner()[5..].to_vec()
    };
    (schema, (0..batch.num_rows()).map(record).collect())
}

fn columns_of(batch: &RecordBatch) -> Vec<ColumnDef> {
    batch.schema_ref().fields().iter().map(|field| column(field.name(), field.data_type().clone())).collect()
}

#[test]
fn what_arrow_avro_writes_is_read_back() {
    let mut chance = Chance(5);
    for round in 0..40 {
        let batch = batch(&mut chance, 1 + round % 7);
        let (schema, payloads) = written(&batch);
        let decoded = decode_avro(&schema, columns_of(&batch), &payloads);
        assert!(decoded.errors.is_empty(), "{schema}: {:?}", decoded.errors);
        let want: Vec<Vec<Cell>> = (0..batch.num_rows()).map(|row| batch.columns().iter().map(|array| cell(array, row)).collect()).collect();
        assert_eq!(rows(&decoded), want);
    }
}

#[test]
fn a_damaged_record_harms_no_other() {
    let mut chance = Chance(9);
    let mut bad = 0;
    for _ in 0..60 {
        let batch = batch(&mut chance, 3);
        let (schema, mut payloads) = written(&batch);
        for _ in 0..1 + chance.below(3) {
            let at = chance.below(payloads[1].len());
            match chance.below(4) {
                0 => payloads[1].truncate(at),
                1 => payloads[1].insert(at, chance.next() as u8),
                _ => payloads[1][at] = chance.next() as u8,
            }
            if payloads[1].is_empty() {
                break;
            }
        }
        let decoded = decode_avro(&schema, columns_of(&batch), &payloads);
        let want = |row: usize| batch.columns().iter().map(|array| cell(array, row)).collect::<Vec<_>>();
        let got = rows(&decoded);
        assert_eq!((got.first().unwrap(), got.last().unwrap()), (&want(0), &want(2)));
        assert_eq!(got.len() + decoded.errors.len(), 3);
        assert!(decoded.errors.iter().all(|error| error.record == 1 && !error.reason.is_empty()));
        bad += decoded.errors.len();
    }
    assert!(bad > 20, "only {bad} of 60 were noticed");
}

#[test]
fn a_payload_costs_no_more_than_its_length() {
    let nulls = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}, {"name": "b", "type": "int"}]}"#;
    let b = || vec![column("b", DataType::Int32)];
    // Two billion nulls, stepped over or read, in six bytes.
    let billions = [0xfe, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x02];
    assert!(one(nulls, b(), &billions).unwrap_err().contains("more than the payload has bytes for"));
    assert!(one(nulls, vec![column("a", DataType::Utf8View)], &billions).unwrap_err().contains("more than the payload has bytes for"));
    assert_eq!(one(nulls, b(), &[0x04, 0x00, 0x02]), Ok(vec![Cell::Int(1)]));
    // A block that says i64::MIN.
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x02, 0x00];
    assert!(one(nulls, b(), &least).is_err());

    // Thirty levels of records that each hold the next one twice, and nothing else.
    let mut doubling = r#"{"type": "record", "name": "L0", "fields": []}"#.to_string();
    for level in 1..30 {
        doubling =
            format!(r#"{{"type": "record", "name": "L{level}", "fields": [{{"name": "x", "type": {doubling}}}, {{"name": "y", "type": "L{}"}}]}}"#, level - 1);
    }
    let doubled = format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "a", "type": {doubling}}}, {{"name": "b", "type": "int"}}]}}"#);
    assert!(one(&doubled, b(), &[0x02]).unwrap_err().contains("more records than the payload has bytes for"));
    assert!(one(&doubled, vec![column("a", DataType::Utf8View)], &[0x02]).unwrap_err().contains("more records than the payload has bytes for"));
    let def = |schema: &str| Format::Avro(Arc::new(AvroDef { schema: schema.into(), registry: None }));
    assert!(crate::decode::columns_of(&def(nulls)).unwrap().is_some_and(|columns| columns.len() == 2));

    // A record that speaks of itself, a hundred thousand deep.
    let chain = r#"{"type": "record", "name": "R", "fields": [{"name": "b", "type": "int"}, {"name": "next", "type": ["null", "R"]}]}"#;
    let deep: Vec<u8> = std::iter::repeat_n([0x02, 0x02], 100_000).flatten().chain([0x02, 0x00]).collect();
    assert!(one(chain, b(), &deep).unwrap_err().contains("nest more than 64 deep"));
    assert!(one(chain, vec![column("next", DataType::Utf8View)], &deep).unwrap_err().contains("nest more than 64 deep"));
    let shallow = [0x02, 0x02, 0x04, 0x02, 0x06, 0x00];
    assert_eq!(one(chain, vec![at("x", DataType::Int32, &["next", "next", "b"], TimeFormat::Rfc3339)], &shallow), Ok(vec![Cell::Int(3)]));
    assert_eq!(one(chain, vec![column("next", DataType::Utf8View)], &shallow), Ok(vec![text(r#"{"b":2,"next":{"b":3,"next":null}}"#)]));
    assert_eq!(one(chain, vec![at("x", DataType::Int32, &["next", "b"], TimeFormat::Rfc3339)], &[0x02, 0x00]), Ok(vec![Cell::Null]));
}

#[test]
fn a_record_is_just_what_its_schema_says() {
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}}, {"name": "f", "type": "boolean"}]}"#;
    let read = |payload: &[u8]| one(schema, vec![column("e", DataType::Utf8View)], payload);
    assert_eq!(read(&[0x02, 0x01]), Ok(vec![text("B")]));
    for (payload, why) in [
        (&[0x04, 0x01][..], "an enum of 2 symbols has no such number"),
        (&[0x01, 0x01], "an enum of 2 symbols has no such number"),
        (&[0x02, 0x02], "a boolean is neither 0 nor 1"),
        (&[0x02], "1 bytes are to follow, and 0 do"),
        (&[0x02, 0x01, 0x00], "the record ends here, and 1 bytes follow"),
        (&[0x80, 0x80], "a number is cut off"),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "an int has more than 32 bits"),
    ] {
        let said = read(payload).unwrap_err();
        assert!(said.starts_with("malformed Avro at byte ") && said.contains(why), "{payload:?}: {said}");
    }
}

#[test]
fn declarations_that_a_schema_can_t_give_are_refused() {
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "userId", "type": "int"}, {"name": "r", "type": {"type": "record", "name": "S", "fields": [{"name": "x", "type": "int"}]}}]}"#;
    let refused = |columns: Vec<ColumnDef>| Decoder::new(&bare(schema, columns), &[]).unwrap_err().to_string();
    assert!(refused(vec![column("userid", DataType::Int32)]).contains("but userId: name it with PATH '$.userId'"));
    assert!(refused(vec![column("q", DataType::Int32)]).contains("it has userId, r"));
    assert!(refused(vec![column("r", DataType::Int32)]).contains("declare a STRUCT"));
    assert!(refused(vec![at("x", DataType::Int32, &["userId", "x"], TimeFormat::Rfc3339)]).contains("int is no record that a column's PATH could go on in"));
    assert!(Decoder::new(&bare("{}", vec![column("a", DataType::Int32)]), &[]).is_err());
    let struct_of = |name: &str| DataType::Struct(Fields::from(vec![Field::new(name, DataType::Int64, true)]));
    assert!(refused(vec![column("r", struct_of("y"))]).contains("record S has no field y"));
    assert!(Decoder::new(&bare(schema, vec![column("r", struct_of("x"))]), &[]).is_ok());
}

#[test]
fn a_watermark_is_judged_by_the_record_s_own_time() {
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "ts", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]}, {"name": "v", "type": "int"}]}"#;
    let columns = vec![column("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)), column("v", DataType::Int32)];
    let def = SourceDef { watermark: Some(WatermarkDef { column: "ts".into(), bound: Duration::ZERO }), ..bare(schema, columns) };
    let mut builder = RecordsBuilder::new();
    for (offset, payload) in
        [&[0x02, 0xd0, 0x0f, 0x02][..], &[0x00, 0x04], &[0x02, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02, 0x06], &[0x02, 0x00, 0x08]].into_iter().enumerate()
    {
        builder.push(offset as i64, Some(5_000), None, Some(payload), vec![]);
    }
    // Event time counts also where its column isn't needed.
    let decoded = Decoder::new(&def, &[1]).unwrap().decode(0, &builder.finish(), 5_000).unwrap();
    assert_eq!(decoded.event_time, [1_000_000_000, 0]);
    assert_eq!(rows(&decoded), [[Cell::Int(1)], [Cell::Int(4)]]);
    let reasons: Vec<&str> = decoded.errors.iter().map(|bad| bad.reason.as_str()).collect();
    assert!(reasons[0].contains("no value for its watermark column ts") && reasons[1].contains("ts"), "{reasons:?}");
}

#[test]
fn types_that_name_one_another_have_not_too_many_parts() {
    // Each of twenty records has all of them: what nests eight deep has more parts than there is memory for.
    let fields: Vec<String> = (0..20).map(|of| format!(r#"{{"name": "f{of}", "type": ["null", "R{of}"]}}"#)).collect();
    let record = |of: usize, fields: &[String]| format!(r#"{{"type": "record", "name": "R{of}", "fields": [{}]}}"#, fields.join(", "));
    // Each is written out where it is named first, within the one before.
    let mut all = record(19, &fields);
    for of in (0..19).rev() {
        let mut fields = fields.clone();
        fields[of + 1] = format!(r#"{{"name": "f{}", "type": ["null", {all}]}}"#, of + 1);
        all = record(of, &fields);
    }
    let format = Format::Avro(Arc::new(AvroDef { schema: all, registry: None }));
    assert!(crate::decode::columns_of(&format).unwrap_err().to_string().contains("more than 10000 parts: declare the columns that you need"));
}

#[test]
fn decimals_of_more_digits_than_sql_has_are_text() {
    let schema =
        r#"{"type": "record", "name": "R", "fields": [{"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 64, "scale": 2}}]}"#;
    let format = Format::Avro(Arc::new(AvroDef { schema: schema.into(), registry: None }));
    let columns = crate::decode::columns_of(&format).unwrap().unwrap();
    assert_eq!(columns[0].data_type, DataType::Utf8View);
    assert_eq!(one(schema, columns, &[0x02, 0x7b]), Ok(vec![text("1.23")]));
}
