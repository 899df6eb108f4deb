//! Rows of a sink's query as records: payload and key in the sink's format, and what the headers say.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, StringViewArray, UInt64Array},
    compute::{filter_record_batch, take_record_batch},
    datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType},
    record_batch::RecordBatch,
};

use super::changes::newest;
use crate::{
    catalog::{Envelope, KeyFormat},
    error::{Error, Result},
    source::RecordEncoder,
    stream::outbox::Piece,
};

/// What a sink's query gives, and how it is written.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The sink's name.
    pub sink: String,
    /// The view that it reads.
    pub view: String,
    /// The query's columns.
    pub schema: SchemaRef,
    /// The columns that make the key, as positions.
    pub key: Option<Vec<usize>>,
    /// Whether rows can go again.
    pub changing: bool,
    /// What a record says.
    pub envelope: Envelope,
}

/// What a sink's query gives of a piece: its rows, and for each its weight and its number.
#[derive(Debug)]
pub struct Given {
    /// The rows, in the shape's columns.
    pub rows: RecordBatch,
    /// Whether each comes (1) or goes (-1).
    pub weights: Int64Array,
    /// The number of the view's row that it is made of.
    pub numbers: Int64Array,
}

/// What is to be written of a piece: rows that are not records yet.
#[derive(Debug)]
pub struct Due {
    /// The rows, in the columns that are written.
    rows: RecordBatch,
    /// For each whether its key has no row any more; empty: all have one.
    gone: Vec<bool>,
    /// For each the number of the view's row that it is made of.
    numbers: Vec<i64>,
}

impl Due {
    /// How many records it comes to.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }
}

/// A record with what its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; `None`: a tombstone.
    pub payload: Option<Vec<u8>>,
    /// The epoch that made it.
    pub epoch: u64,
    /// The number of the view's row that it is made of.
    pub sequence: u64,
    /// Further headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

impl Shape {
    /// The columns of what is written: those of the query, and in changes `_op` and `_epoch`.
    pub fn written(&self) -> SchemaRef {
        match self.envelope {
            Envelope::Rows => self.schema.clone(),
            Envelope::Changes => {
                let mut fields: Vec<Arc<Field>> = self.schema.fields().to_vec();
                fields.push(Arc::new(Field::new("_op", DataType::Utf8View, false)));
                fields.push(Arc::new(Field::new("_epoch", DataType::Int64, false)));
                Arc::new(Schema::new(fields))
            }
        }
    }

    /// The rows as changes: with `_op` and `_epoch`.
    pub fn with_ops(&self, given: &Given, piece: &Piece) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = given.rows.columns().to_vec();
        columns.push(Arc::new(given.weights.iter().map(|weight| Some(if weight < Some(0) { "delete" } else { "insert" })).collect::<StringViewArray>()));
        columns.push(Arc::new(Int64Array::from_iter_values(given.numbers.values().iter().map(|number| piece.epoch_of(*number as u64) as i64))));
        Ok(RecordBatch::try_new(self.written(), columns)?)
    }

    /// A row of rows that only come has gone: another definition must have taken the view's place, or it closed a window anew.
    pub fn check_append(&self, given: &Given) -> Result<()> {
        match given.weights.iter().any(|weight| weight < Some(0)) {
            true => Err(Error::Invalid(format!(
                "view {} has taken rows back, and sink {} has no key by which it could: drop it and create it anew",
                self.view, self.sink
            ))),
            false => Ok(()),
        }
    }
}

/// Makes records of rows.
#[derive(Debug)]
pub struct RecordMaker {
    shape: Shape,
    encoder: RecordEncoder,
}

impl RecordMaker {
    /// For a sink of this shape, whose keys are written so.
    pub fn new(shape: Shape, format: KeyFormat) -> Result<Self> {
        let written = shape.written();
        check_types(&shape.sink, written.fields())?;
        let encoder = RecordEncoder::of_sink(&shape.sink, written.fields(), shape.key.as_deref().map(|key| (&format, key)))?;
        Ok(Self { shape, encoder })
    }

    /// What is to be written of a piece, in order.
    pub fn due(&self, given: &Given, piece: &Piece) -> Result<Due> {
        let numbers = || given.numbers.values().to_vec();
        match (self.shape.envelope, &self.shape.key) {
            (Envelope::Changes, _) => Ok(Due { rows: self.shape.with_ops(given, piece)?, gone: vec![], numbers: numbers() }),
            (Envelope::Rows, Some(key)) if self.shape.changing => {
                let became = newest(&given.rows, &given.weights, key)?;
                let rows = take_record_batch(&given.rows, &UInt64Array::from_iter_values(became.iter().map(|newest| newest.row as u64)))?;
                let numbers = became.iter().map(|newest| given.numbers.value(newest.last)).collect();
                Ok(Due { rows, gone: became.iter().map(|newest| newest.gone).collect(), numbers })
            }
            (Envelope::Rows, _) => {
                self.shape.check_append(given)?;
                Ok(Due { rows: given.rows.clone(), gone: vec![], numbers: numbers() })
            }
        }
    }

    /// The records of some rows of it.
    pub fn records(&mut self, due: &Due, range: Range<usize>, piece: &Piece) -> Result<Vec<Numbered>> {
        let rows = due.rows.slice(range.start, range.len());
        let outgoing = if due.gone.is_empty() {
            self.encoder.encode(&rows)?
        } else {
            let gone = &due.gone[range.clone()];
            let of = |gone_ones: bool| filter_record_batch(&rows, &gone.iter().map(|gone| Some(*gone == gone_ones)).collect::<BooleanArray>());
            let mut upserts = self.encoder.encode(&of(false)?)?.into_iter();
            let mut tombstones = self.encoder.tombstones(&of(true)?)?.into_iter();
            gone.iter().filter_map(|gone| if *gone { tombstones.next() } else { upserts.next() }).collect()
        };
        Ok(numbered(outgoing, due.numbers[range].iter().copied(), piece))
    }
}

fn numbered(outgoing: Vec<crate::source::Outgoing>, numbers: impl Iterator<Item = i64>, piece: &Piece) -> Vec<Numbered> {
    let with = |(record, number): (crate::source::Outgoing, i64)| Numbered {
        key: record.key,
        payload: record.payload,
        epoch: piece.epoch_of(number as u64),
        sequence: number as u64,
        headers: vec![],
    };
    outgoing.into_iter().zip(numbers).map(with).collect()
}

/// The records of some rows of a piece of a source's bad records: as they were, with where they stood and why they are bad.
pub fn letters(topic: &str, piece: &Piece, range: Range<usize>) -> Vec<Numbered> {
    let rows = &piece.rows;
    let (partitions, offsets) = (rows.column(0).as_primitive::<Int32Type>(), rows.column(1).as_primitive::<Int64Type>());
    let (times, reasons) = (rows.column(2).as_primitive::<TimestampMillisecondType>(), rows.column(3).as_string_view());
    let (keys, payloads) = (rows.column(4).as_binary::<i32>(), rows.column(5).as_binary::<i32>());
    let letter = |row: usize| {
        let sequence = piece.begin + row as u64;
        let mut headers = vec![
            ("tidegate-topic", topic.as_bytes().to_vec()),
            ("tidegate-partition", partitions.value(row).to_string().into_bytes()),
            ("tidegate-offset", offsets.value(row).to_string().into_bytes()),
            ("tidegate-reason", reasons.value(row).as_bytes().to_vec()),
        ];
        if times.is_valid(row) {
            headers.push(("tidegate-timestamp", times.value(row).to_string().into_bytes()));
        }
        let bytes = |column: &BinaryArray| column.is_valid(row).then(|| column.value(row).to_vec());
        Numbered { key: bytes(keys), payload: bytes(payloads), epoch: piece.epoch_of(sequence), sequence, headers }
    };
    range.map(letter).collect()
}

/// What JSON has no form for is said when the sink is made, not when the first row comes.
fn check_types(sink: &str, fields: &Fields) -> Result<()> {
    for field in fields {
        if !writable(field.data_type()) {
            return Err(Error::Unsupported(format!(
                "sink {sink}: column {} is {}, which can't be written as JSON: cast it, as in CAST({0} AS TEXT)",
                field.name(),
                field.data_type()
            )));
        }
    }
    Ok(())
}

fn writable(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => writable(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| writable(field.data_type())),
        DataType::Boolean | DataType::Utf8 | DataType::Utf8View | DataType::Binary | DataType::Date32 => true,
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::Timestamp(..) => true,
        other => (other.is_integer() || other.is_floating()) && *other != DataType::Float16,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn given(rows: &[(i64, i64, i64)]) -> (Given, Piece) {
        let schema = schema();
        let column = |of: fn(&(i64, i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
        let batch = RecordBatch::try_new(schema, vec![column(|r| r.0), column(|r| r.1)]).unwrap();
        let weights = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
        let numbers = Int64Array::from_iter_values((0..rows.len()).map(|row| row as i64 + 100));
        let piece = Piece { begin: 100, rows: batch.clone(), epochs: vec![(7, 2), (9, rows.len() as u64 - 2)] };
        (Given { rows: batch, weights, numbers }, piece)
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
    }

    fn written(envelope: Envelope, key: Option<Vec<usize>>, changing: bool, rows: &[(i64, i64, i64)]) -> Result<Vec<String>> {
        let shape = Shape { sink: "s".into(), view: "v".into(), schema: schema(), key, changing, envelope };
        let (given, piece) = given(rows);
        let mut maker = RecordMaker::new(shape, KeyFormat::Json)?;
        let due = maker.due(&given, &piece)?;
        // One by one they are what they are together.
        let records = maker.records(&due, 0..due.count(), &piece)?;
        let singly = (0..due.count()).map(|row| maker.records(&due, row..row + 1, &piece)).collect::<Result<Vec<_>>>()?;
        assert_eq!(singly.concat(), records);
        let text = |bytes: Option<Vec<u8>>| bytes.map_or("-".into(), |bytes| String::from_utf8(bytes).unwrap());
        Ok(records.into_iter().map(|r| format!("{} {} {} {}", text(r.key), text(r.payload), r.epoch, r.sequence)).collect())
    }

    #[test]
    fn rows_that_only_come_are_written_as_they_are() {
        let rows = [(1, 10, 1), (1, 11, 1), (2, 20, 1)];
        assert_eq!(
            written(Envelope::Rows, None, false, &rows).unwrap(),
            ["- {\"k\":1,\"v\":10} 7 100", "- {\"k\":1,\"v\":11} 7 101", "- {\"k\":2,\"v\":20} 9 102"]
        );
        assert_eq!(written(Envelope::Rows, Some(vec![0]), false, &rows).unwrap()[2], "{\"k\":2} {\"k\":2,\"v\":20} 9 102");
        assert!(written(Envelope::Rows, None, false, &[(1, 1, 1), (1, 1, 1), (1, 1, -1)]).unwrap_err().to_string().contains("taken rows back"));
    }

    #[test]
    fn a_key_has_its_last_row_or_a_tombstone() {
        let rows = [(1, 10, 1), (2, 20, -1), (1, 10, -1), (1, 11, 1)];
        assert_eq!(written(Envelope::Rows, Some(vec![0]), true, &rows).unwrap(), ["{\"k\":2} - 7 101", "{\"k\":1} {\"k\":1,\"v\":11} 9 103"]);
        assert_eq!(written(Envelope::Rows, Some(vec![]), true, &rows).unwrap(), ["{} {\"k\":1,\"v\":11} 9 103"]);
        // Numbers rise: a tombstone has that of the last row that changed its key, not of the first that went.
        let rows = [(1, 10, -1), (1, 11, 1), (2, 20, 1), (1, 11, -1)];
        assert_eq!(written(Envelope::Rows, Some(vec![0]), true, &rows).unwrap(), ["{\"k\":2} {\"k\":2,\"v\":20} 9 102", "{\"k\":1} - 9 103"]);
    }

    #[test]
    fn changes_say_what_they_are() {
        let rows = [(1, 10, 1), (1, 10, -1), (1, 11, 1)];
        assert_eq!(
            written(Envelope::Changes, None, true, &rows).unwrap(),
            [
                "- {\"_epoch\":7,\"_op\":\"insert\",\"k\":1,\"v\":10} 7 100",
                "- {\"_epoch\":7,\"_op\":\"delete\",\"k\":1,\"v\":10} 7 101",
                "- {\"_epoch\":9,\"_op\":\"insert\",\"k\":1,\"v\":11} 9 102"
            ]
        );
    }
}
