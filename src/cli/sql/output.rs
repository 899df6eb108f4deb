//! Rows as text: tables for people, CSV and JSON lines for programs.

use std::{io::Write, sync::Arc};

use anyhow::Result;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, StringArray},
    csv,
    datatypes::{DataType, Field, Schema, SchemaRef},
    json::writer::{LineDelimited, WriterBuilder},
    util::{
        display::{ArrayFormatter, FormatOptions},
        pretty::pretty_format_batches_with_options,
    },
};

/// A table is shown after this many rows, though more come: its widths need all of them in memory.
const TABLE_ROWS: usize = 1000;

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Tables.
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// One object a line.
    Json,
}

/// Writes results to standard output.
pub(super) struct Output {
    format: Format,
    schema: SchemaRef,
    /// Rows of the table that has not been shown yet.
    waiting: Vec<RecordBatch>,
    /// Whether the result has shown anything, its header included.
    begun: bool,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format, schema: Arc::new(Schema::empty()), waiting: vec![], begun: false }
    }

    /// A statement without a result has taken effect.
    pub fn done(&mut self) -> Result<()> {
        match self.format {
            Format::Table => print(b"ok\n"),
            // A program reads rows, and there are none.
            Format::Csv | Format::Json => Ok(()),
        }
    }

    /// A result of these columns follows.
    pub fn begin(&mut self, schema: SchemaRef) {
        self.schema = schema;
        self.waiting.clear();
        self.begun = false;
    }

    /// Takes rows; CSV and JSON show them at once.
    pub fn batch(&mut self, batch: RecordBatch) -> Result<()> {
        // A heartbeat.
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.format {
            Format::Table => {
                self.waiting.push(batch);
                let rows: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
                if rows >= TABLE_ROWS { self.pause() } else { Ok(()) }
            }
            Format::Csv => {
                let text = csv_lines(&batch, !self.begun)?;
                self.begun = true;
                print(&text)
            }
            Format::Json => print(&json_lines(&batch)?),
        }
    }

    /// No rows came for a while: what waits is shown.
    pub fn pause(&mut self) -> Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { self.table() }
    }

    /// The result has ended.
    pub fn end(&mut self) -> Result<()> {
        match self.format {
            Format::Table if self.begun && self.waiting.is_empty() => Ok(()),
            Format::Table => self.table(),
            Format::Csv if !self.begun => print(&csv_lines(&RecordBatch::new_empty(self.schema.clone()), true)?),
            Format::Csv | Format::Json => Ok(()),
        }
    }

    fn table(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            self.waiting.push(RecordBatch::new_empty(self.schema.clone()));
        }
        let options = FormatOptions::new().with_null("NULL").with_display_error(true);
        let text = pretty_format_batches_with_options(&self.waiting, &options)?.to_string();
        self.waiting.clear();
        self.begun = true;
        print(format!("{text}\n").as_bytes())
    }
}

/// Writes and flushes: what is shown of a stream must not wait for more of it.
fn print(bytes: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(bytes)?;
    output.flush()?;
    Ok(())
}

fn csv_lines(batch: &RecordBatch, with_header: bool) -> Result<Vec<u8>> {
    let mut text = vec![];
    csv::WriterBuilder::new().with_header(with_header).build(&mut text).write(&as_text(batch, |data_type| !data_type.is_nested())?)?;
    Ok(text)
}

fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut text = vec![];
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut text);
    writer.write(&as_text(batch, has_json)?)?;
    writer.finish()?;
    Ok(text)
}

/// Whether a type has a form of its own in JSON.
fn has_json(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => false,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => has_json(item.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| has_json(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.len() == 2 && matches!(pair[0].data_type(), DataType::Utf8 | DataType::LargeUtf8) && has_json(pair[1].data_type()),
            _ => false,
        },
        _ => true,
    }
}

/// The batch with the columns that the format can't hold as their display text.
fn as_text(batch: &RecordBatch, fits: fn(&DataType) -> bool) -> Result<RecordBatch> {
    let mut fields = vec![];
    let mut columns: Vec<ArrayRef> = vec![];
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if fits(field.data_type()) {
            fields.push(field.as_ref().clone());
            columns.push(column.clone());
            continue;
        }
        let options = FormatOptions::new().with_null("NULL");
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let texts = (0..column.len()).map(|row| if column.is_null(row) { Ok(None) } else { formatter.value(row).try_to_string().map(Some) });
        let texts: StringArray = texts.collect::<Result<Vec<_>, _>>()?.into();
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(Arc::new(texts));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{array::Int64Array, datatypes::Int64Type};

    use super::*;

    fn batch() -> RecordBatch {
        let numbers = Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef;
        let texts = Arc::new(StringArray::from(vec![Some("a,\"b\""), None])) as ArrayRef;
        let lists = Arc::new(arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None])) as ArrayRef;
        RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("t", texts, true), ("l", lists, true)]).unwrap()
    }

    #[test]
    fn json_says_null() {
        let text = String::from_utf8(json_lines(&batch()).unwrap()).unwrap();
        assert_eq!(text, "{\"n\":1,\"t\":\"a,\\\"b\\\"\",\"l\":[1,null]}\n{\"n\":null,\"t\":null,\"l\":null}\n");
    }

    #[test]
    fn csv_quotes_and_holds_lists_as_text() {
        let text = String::from_utf8(csv_lines(&batch(), true).unwrap()).unwrap();
        assert_eq!(text, "n,t,l\n1,\"a,\"\"b\"\"\",\"[1, NULL]\"\n,,\n");
        assert!(csv_lines(&batch(), false).unwrap().starts_with(b"1,"));
    }
}
