//! CSV: a payload is lines, each line a row, each cell a column by its position.
//!
//! A cell's value is judged as JSON's would be (`cell`): lines become objects of JSON, which is read then. That is not the fastest way, but the
//! one in which a number, a time or a text means the same in every format.

use super::{
    Reason,
    cell::Cell,
    drift::{Drift, Drifted, FieldPath, MOST_FIELDS, shown},
    json::JsonReader,
    payload::{BatchReader, PayloadColumn, ReadBatch},
};
use crate::{
    catalog::CsvDef,
    error::{Error, Result},
    source::{Records, RecordsBuilder},
};

/// Reads lines of CSV.
#[derive(Debug)]
pub(super) struct CsvReader {
    def: CsvDef,
    /// For each column its position in a line, from 0, and how its values stand in JSON.
    cells: Vec<(usize, Cell)>,
    /// How many cells a line must have at least.
    width: usize,
    /// How many columns there are.
    columns: usize,
    json: JsonReader,
    /// What stands behind the last declared cell.
    more: More,
}

/// Cells behind the last declared one.
#[derive(Debug, Default)]
struct More {
    /// Records that have any.
    records: u64,
    /// By how far behind it they are: how many records have one, and the first one's text.
    cells: Vec<(u64, String)>,
    /// How many more there are.
    others: u64,
    /// How many the longest line of the record at hand has,
    longest: usize,
    /// and the text of those that are the first of their place.
    fresh: Vec<String>,
}

impl CsvReader {
    /// What reads these columns.
    pub(super) fn new(def: &CsvDef, columns: &[PayloadColumn]) -> Result<Self> {
        let mut cells = vec![];
        let mut next = 0;
        let mut renamed = vec![];
        for column in columns {
            let position = CsvDef::position(&column.name, &column.path, next).map_err(Error::Invalid)?;
            let cell = Cell::of(column).ok_or_else(|| {
                Error::Unsupported(format!("column {} has type {}, which a cell of CSV can't be read as; declare it as TEXT", column.name, column.data_type))
            })?;
            cells.push((position, cell));
            next = position + 1;
            // Batches have all columns, so a bad record is cut off all of them.
            renamed.push(PayloadColumn { path: vec![key(position)], needed: true, ..column.clone() });
        }
        let width = cells.iter().map(|(position, _)| position + 1).max().unwrap_or(0);
        Ok(Self { def: def.clone(), cells, width, columns: columns.len(), json: JsonReader::new(&renamed, false, None)?, more: More::default() })
    }

    /// The lines of a payload as objects of JSON, and how many there are.
    fn as_json(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let text = match simdutf8::compat::from_utf8(payload) {
            Ok(text) => text,
            Err(error) => return Err(format!("the payload is not valid UTF-8 at byte {}", error.valid_up_to())),
        };
        let mut lines = Lines { def: &self.def, text, at: 0 };
        let mut row = vec![];
        let mut number = 0;
        self.more.begin();
        while lines.next(&mut row)? {
            number += 1;
            // A line without anything in it is none, as other readers have it.
            if let [Read { text: "", quoted: false, .. }] = row.as_slice() {
                continue;
            }
            if row.len() < self.width {
                return Err(format!("line {number} has {} cells where {} are expected", row.len(), self.width));
            }
            if row.len() > self.width {
                self.more.line(&row[self.width..], self.def.quote);
            }
            out.push(b'{');
            let mut first = true;
            for (position, cell) in &self.cells {
                let read = &row[*position];
                let text = read.content(self.def.quote);
                if !read.quoted && text == self.def.null {
                    continue;
                }
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                out.extend_from_slice(format!("\"{}\":", key(*position)).as_bytes());
                cell.write(&text, out);
            }
            out.extend_from_slice(b"}\n");
        }
        match number {
            0 => Err("the payload is empty".into()),
            _ => {
                self.more.end();
                Ok(())
            }
        }
    }
}

impl More {
    /// A record begins; the one before may have turned out bad.
    fn begin(&mut self) {
        self.longest = 0;
        self.fresh.clear();
    }

    /// A line has these.
    fn line(&mut self, cells: &[Read<'_>], quote: char) {
        self.longest = self.longest.max(cells.len());
        let known = self.cells.len() + self.fresh.len();
        self.fresh.extend(cells.iter().take(MOST_FIELDS).skip(known).map(|cell| shown(cell.content(quote).as_bytes())));
    }

    /// The record has been read.
    fn end(&mut self) {
        if self.longest == 0 {
            return;
        }
        self.records += 1;
        self.others += self.longest.saturating_sub(MOST_FIELDS) as u64;
        self.cells.extend(self.fresh.drain(..).map(|text| (0, text)));
        self.cells.iter_mut().take(self.longest).for_each(|(records, _)| *records += 1);
    }

    /// What has been seen of lines of which so many cells are declared.
    fn take(&mut self, width: usize) -> Drift {
        let Self { records, cells, others, .. } = std::mem::take(self);
        let mut new = Drifted { records, others, ..Drifted::default() };
        for (at, (records, example)) in cells.into_iter().enumerate() {
            new.add(FieldPath::top(key(width + at)), records, Some(example));
        }
        Drift { new, ..Drift::default() }
    }
}

impl BatchReader for CsvReader {
    fn read(&mut self, records: &Records, wanted: &dyn Fn(usize) -> bool) -> Result<ReadBatch> {
        let mut builder = RecordsBuilder::new();
        let mut reasons = vec![];
        let mut line = vec![];
        for (at, record) in records.iter().enumerate() {
            let Some(payload) = record.value.filter(|_| wanted(at)) else { continue };
            line.clear();
            match self.as_json(payload, &mut line) {
                Ok(()) => builder.push(at as i64, None, None, Some(&line), vec![]),
                Err(reason) => reasons.push(Reason::from(reason).of(at as u32)),
            }
        }
        let json = builder.finish();
        let (mut record_of, mut errors) = (vec![], vec![]);
        for record in json.iter() {
            let (Some(bytes), Some((base, _))) = (record.value, record.value_at) else { continue };
            let at = record.offset as u32;
            let before = record_of.len();
            // Only lines without anything in them.
            if bytes.is_empty() {
                continue;
            }
            let read = self.json.read(bytes, base, |_| {
                record_of.push(at);
                Ok(())
            });
            if let Err(reason) = read {
                record_of.truncate(before);
                self.json.truncate(before);
                errors.push(reason.of(at));
            }
        }
        errors.extend(reasons);
        errors.sort_by_key(|bad| bad.record);
        let columns: Vec<Result<_>> = (0..self.columns).map(|column| self.json.finish(column, json.bytes())).collect();
        Ok(ReadBatch { columns: columns.into_iter().collect::<Result<_>>()?, record_of, errors, drift: self.more.take(self.width) })
    }
}

/// The key of a position in the objects that lines become.
fn key(position: usize) -> String {
    format!("{}", position + 1)
}

/// Takes lines apart, as RFC 4180 has it, but for line ends: either kind will do.
struct Lines<'a> {
    def: &'a CsvDef,
    text: &'a str,
    at: usize,
}

/// A cell as it stands in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Read<'a> {
    /// What stands between the quotes if it is quoted, else all of it.
    text: &'a str,
    quoted: bool,
    /// Whether there are quotes in it, each twice.
    doubled: bool,
}

impl<'a> Read<'a> {
    fn content(&self, quote: char) -> std::borrow::Cow<'a, str> {
        match self.doubled {
            true => self.text.replace(&format!("{quote}{quote}"), &quote.to_string()).into(),
            false => self.text.into(),
        }
    }
}

impl<'a> Lines<'a> {
    /// Reads the next line; false at the end.
    fn next(&mut self, row: &mut Vec<Read<'a>>) -> Result<bool, String> {
        row.clear();
        if self.at >= self.text.len() {
            return Ok(false);
        }
        loop {
            row.push(self.cell()?);
            match self.text[self.at..].chars().next() {
                Some(c) if c == self.def.delimiter => self.at += c.len_utf8(),
                Some('\r') if self.text[self.at + 1..].starts_with('\n') => {
                    self.at += 2;
                    return Ok(true);
                }
                Some(_) => {
                    self.at += 1;
                    return Ok(true);
                }
                None => return Ok(true),
            }
        }
    }

    /// Reads a cell; what follows is a delimiter, a line's end, or nothing.
    fn cell(&mut self) -> Result<Read<'a>, String> {
        let (delimiter, quote) = (self.def.delimiter, self.def.quote);
        let ends = |c: char| c == delimiter || matches!(c, '\n' | '\r');
        let rest = &self.text[self.at..];
        let Some(inner) = rest.strip_prefix(quote) else {
            let end = rest.find(ends).unwrap_or(rest.len());
            self.at += end;
            return Ok(Read { text: &rest[..end], quoted: false, doubled: false });
        };
        let (mut from, mut doubled) = (0, false);
        loop {
            let Some(at) = inner[from..].find(quote) else {
                return Err(format!("malformed CSV at byte {}: a quote is not closed", self.at));
            };
            let close = from + at;
            let behind = close + quote.len_utf8();
            if inner[behind..].starts_with(quote) {
                doubled = true;
                from = behind + quote.len_utf8();
                continue;
            }
            if inner[behind..].chars().next().is_some_and(|c| !ends(c)) {
                return Err(format!("malformed CSV at byte {}: a quoted cell has something behind it", self.at + quote.len_utf8() + behind));
            }
            self.at += quote.len_utf8() + behind;
            return Ok(Read { text: &inner[..close], quoted: true, doubled });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> Result<Vec<Vec<String>>, String> {
        let def = CsvDef::default();
        let mut lines = Lines { def: &def, text, at: 0 };
        let (mut row, mut all) = (vec![], vec![]);
        while lines.next(&mut row)? {
            all.push(row.iter().map(|cell| cell.content(def.quote).into_owned()).collect());
        }
        Ok(all)
    }

    fn by_csv_core(text: &str) -> Vec<Vec<String>> {
        let mut reader = csv_core::Reader::new();
        let (mut out, mut ends) = (vec![0; text.len() + 16], vec![0; text.len() + 16]);
        let (mut input, mut all) = (text.as_bytes(), vec![]);
        // A row may come in several steps: the last one is told when the input has ended.
        let (mut written, mut count) = (0, 0);
        loop {
            let (result, read, more, cells) = reader.read_record(input, &mut out[written..], &mut ends[count..]);
            (input, written, count) = (&input[read..], written + more, count + cells);
            match result {
                csv_core::ReadRecordResult::Record => {}
                csv_core::ReadRecordResult::InputEmpty => continue,
                csv_core::ReadRecordResult::End => return all,
                other => panic!("{other:?}"),
            }
            let text = std::str::from_utf8(&out[..written]).unwrap();
            let starts = std::iter::once(0).chain(ends[..count].iter().copied());
            all.push(starts.zip(&ends[..count]).map(|(start, &end)| text[start..end].to_string()).collect());
            (written, count) = (0, 0);
        }
    }

    #[test]
    fn lines_and_cells() {
        assert_eq!(lines("a,b\r\n\"c,\"\"d\n\",\n").unwrap(), [["a", "b"], ["c,\"d\n", ""]]);
        assert_eq!(lines("").unwrap(), Vec::<Vec<String>>::new());
        assert_eq!(lines(",").unwrap(), [["", ""]]);
        assert_eq!(lines("a \"b\" c").unwrap(), [["a \"b\" c"]]);
        assert_eq!(lines("a,\"b").unwrap_err(), "malformed CSV at byte 2: a quote is not closed");
        assert_eq!(lines("\"a\"b").unwrap_err(), "malformed CSV at byte 3: a quoted cell has something behind it");
    }

    proptest! {
        #[test]
        fn agrees_with_csv_core(text in "([ab,\"\n\r]|é){0,12}") {
            // What it takes for a slip of the pen is an error here, and it passes over empty lines.
            if let Ok(mut found) = lines(&text) {
                found.retain(|row| row.as_slice() != [""] );
                let mut expected = by_csv_core(&text);
                expected.retain(|row| row.as_slice() != [""]);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
