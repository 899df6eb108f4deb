//! Follows a plan over a payload's bytes.
//!
//! Nothing that the bytes say is believed: lengths and counts are held against what is left of them, and nesting against a bound, so a payload
//! costs time and memory in proportion to its length, whatever is in it.

use arrow::datatypes::TimeUnit;

use super::{
    super::{
        drift::shown,
        values::{Natural, RowColumns, ValueColumn},
    },
    resolve::{As, Fields, Plan, Read, Take, Walk},
};
use crate::source::avro::{AvroSchema, Kind, Logical, TypeId};

/// How deep values nest; only schemas that speak of themselves come near it.
const MAX_DEPTH: usize = 64;
/// How many records of a payload may take no byte of it, beside those around something that does.
const MOST_EMPTY: usize = 10_000;

/// Why a payload can't be read.
enum Stop {
    /// It isn't what its schema says, noticed at this byte.
    Malformed(usize, String),
    /// It is, but not as the reader wants it; a whole reason.
    Reason(String),
    /// It isn't a value of the column's type: the end of a sentence that begins with the column, and the value, if it can be shown.
    Misfit(String, Option<String>),
    /// The same of a column: a whole reason.
    Column(usize, String, Option<String>),
}

/// Why a payload is bad.
pub(super) enum Bad {
    /// It isn't what its schema says.
    Malformed(String),
    /// It can't be read as the reader's schema has it.
    Unread(String),
    /// A value isn't one of its column's type; with the value, if it can be shown.
    Retyped(String, usize, Option<String>),
}

type Step<T = ()> = Result<T, Stop>;

impl Plan {
    /// Appends a payload's values to their columns; the error is the reason why it is bad, and parts of the row may have been appended then.
    pub(super) fn read(&self, payload: &[u8], rows: &mut RowColumns) -> Result<(), Bad> {
        let mut cursor = Cursor::at_the_beginning_of(payload);
        let read = self.walk(&self.top, &mut cursor, rows).and_then(|()| match payload.len() - cursor.pos {
            0 => Ok(()),
            more => malformed(cursor.pos, format!("the record ends here, and {more} bytes follow")),
        });
        read.map_err(|stop| match stop {
            Stop::Malformed(at, what) => Bad::Malformed(format!("malformed Avro at byte {at}: {what}")),
            Stop::Reason(reason) | Stop::Misfit(reason, _) => Bad::Unread(reason),
            Stop::Column(column, reason, value) => Bad::Retyped(reason, column, value),
        })
    }

    /// The values of some of the top record's fields, as JSON, of a payload that has been read.
    pub(super) fn show(&self, payload: &[u8], fields: &[usize]) -> Vec<Option<String>> {
        let mut values = vec![None; fields.len()];
        let mut cursor = Cursor::at_the_beginning_of(payload);
        // A record within a union has its branch's number before it.
        let branches = match &self.writer.at(self.writer.root()).kind {
            Kind::Union(branches) => branches.as_slice(),
            _ => &[],
        };
        let top = match branches.is_empty() {
            true => Some(self.writer.root()),
            false => cursor.branch(branches.len()).ok().map(|branch| branches[branch]),
        };
        let Some(Kind::Record(record)) = top.map(|top| &self.writer.at(top).kind) else { return values };
        for (at, field) in record.fields.iter().enumerate() {
            let shows = fields.iter().position(|&shown| shown == at);
            let mut json = String::new();
            let passed = match shows {
                Some(_) => write_json(&self.writer, field.of, &mut cursor, 0, &mut json),
                None => skip(&self.writer, field.of, &mut cursor, 0),
            };
            match (passed, shows) {
                (Err(_), _) => break,
                (Ok(()), Some(place)) => values[place] = Some(shown(json.as_bytes())),
                (Ok(()), None) => {}
            }
        }
        values
    }

    fn walk(&self, walk: &Walk, cursor: &mut Cursor<'_>, rows: &mut RowColumns) -> Step {
        let fields = match walk {
            Walk::Record(fields) => fields,
            Walk::Union(branches) => {
                return match &branches[cursor.branch(branches.len())?] {
                    Ok(Some(walk)) => self.walk(walk, cursor, rows),
                    // Null takes no bytes.
                    Ok(None) => Ok(()),
                    Err(why) => Err(Stop::Reason(why.clone())),
                };
            }
        };
        for (of, takes) in &fields.written {
            if takes.is_empty() {
                skip(&self.writer, *of, cursor, 0)?;
                continue;
            }
            let start = *cursor;
            for take in takes {
                *cursor = start;
                match take {
                    Take::Put(column, read) => {
                        let put = self.value(read, cursor, rows.column(*column), 0);
                        put.map_err(|stop| match stop {
                            Stop::Misfit(misfit, value) => Stop::Column(*column, rows.reason(*column, &misfit), value),
                            Stop::Reason(reason) => Stop::Column(*column, reason, None),
                            other => other,
                        })?;
                    }
                    Take::Into(walk) => self.walk(walk, cursor, rows)?,
                }
            }
        }
        for (column, constant) in &fields.missing {
            constant.put(rows.column(*column)).map_err(|misfit| Stop::Reason(rows.reason(*column, &misfit)))?;
        }
        Ok(())
    }

    fn value(&self, read: &Read, cursor: &mut Cursor<'_>, column: &mut dyn ValueColumn, depth: usize) -> Step {
        if depth > MAX_DEPTH {
            return malformed(cursor.pos, format!("values nest more than {MAX_DEPTH} deep"));
        }
        let value = match read {
            Read::Null => {
                column.put_null();
                return Ok(());
            }
            Read::Bool => Natural::Bool(cursor.boolean()?),
            Read::Int(wanted) => number(cursor.int()?.into(), *wanted),
            Read::Long(wanted) => number(cursor.long()?, *wanted),
            Read::Float(As::Double) => Natural::Double(cursor.float()?.into()),
            Read::Float(_) => Natural::Float(cursor.float()?),
            Read::Double => Natural::Double(cursor.double()?),
            Read::Bytes => Natural::Bytes(cursor.sized()?),
            Read::Text => Natural::Text(cursor.text()?),
            Read::Fixed(size) => Natural::Bytes(cursor.take(*size)?),
            Read::Decimal(scale, size) => {
                let bytes = match size {
                    Some(size) => cursor.take(*size)?,
                    None => cursor.sized()?,
                };
                match decimal(bytes) {
                    Some(digits) => Natural::Decimal(digits, *scale),
                    None => return Err(Stop::Misfit(format!("has a decimal of more than 38 digits where {} is expected", column.expected()), None)),
                }
            }
            Read::Uuid => {
                let text = uuid(cursor.take(16)?).unwrap_or_default();
                return put(column, &Natural::Text(&text));
            }
            Read::Enum(symbols) => {
                let at = cursor.pos;
                match usize::try_from(cursor.int()?).ok().and_then(|number| symbols.get(number)) {
                    Some(Ok(symbol)) => Natural::Text(symbol),
                    Some(Err(why)) => return Err(Stop::Reason(why.clone())),
                    None => return malformed(at, format!("an enum of {} symbols has no such number", symbols.len())),
                }
            }
            Read::Json(of) => {
                let mut json = String::new();
                write_json(&self.writer, *of, cursor, depth, &mut json)?;
                return put(column, &Natural::Text(&json));
            }
            Read::Array(item) => {
                let Some(items) = column.items() else { return Err(misfit("an array", column)) };
                cursor.each_item(|cursor| self.value(item, cursor, items.item(), depth + 1))?;
                items.close();
                return Ok(());
            }
            Read::Map(value) => {
                let Some(items) = column.items() else { return Err(misfit("a map", column)) };
                cursor.each_item(|cursor| {
                    let key = cursor.text()?;
                    let Some(parts) = items.item().parts() else { return Err(Stop::Reason("a map is read into no struct".into())) };
                    put(parts.part(0), &Natural::Text(key))?;
                    self.value(value, cursor, parts.part(1), depth + 1)?;
                    parts.close();
                    Ok(())
                })?;
                items.close();
                return Ok(());
            }
            Read::Record(fields) => {
                if column.parts().is_none() {
                    return Err(misfit("a record", column));
                }
                return self.parts(fields, cursor, column, depth);
            }
            Read::Union(branches) => {
                return match &branches[cursor.branch(branches.len())?] {
                    Ok(read) => self.value(read, cursor, column, depth + 1),
                    Err(why) => Err(Stop::Misfit(format!("has a value that it can't have: {why}"), None)),
                };
            }
        };
        put(column, &value)
    }

    /// Reads a record into a column of structs.
    fn parts(&self, fields: &Fields, cursor: &mut Cursor<'_>, column: &mut dyn ValueColumn, depth: usize) -> Step {
        let Some(parts) = column.parts() else { return Ok(()) };
        for (of, takes) in &fields.written {
            if takes.is_empty() {
                skip(&self.writer, *of, cursor, depth + 1)?;
                continue;
            }
            let start = *cursor;
            for take in takes {
                *cursor = start;
                // A struct's parts have paths of one name, so nothing lies further in.
                if let Take::Put(part, read) = take {
                    self.value(read, cursor, parts.part(*part), depth + 1)?;
                }
            }
        }
        for (part, constant) in &fields.missing {
            constant.put(parts.part(*part)).map_err(|misfit| Stop::Misfit(misfit, None))?;
        }
        parts.close();
        Ok(())
    }
}

/// Appends a value to a column.
fn put(column: &mut dyn ValueColumn, value: &Natural<'_>) -> Step {
    column.put(value).map_err(|misfit| Stop::Misfit(misfit, value.written().map(|text| shown(text.as_bytes()))))
}

fn misfit(what: &str, column: &dyn ValueColumn) -> Stop {
    Stop::Misfit(format!("has {what} where {} is expected", column.expected()), None)
}

fn malformed<T>(at: usize, what: impl Into<String>) -> Step<T> {
    Err(Stop::Malformed(at, what.into()))
}

/// A whole number as what the reader's schema has it stand for.
fn number(value: i64, wanted: As) -> Natural<'static> {
    match wanted {
        As::Number => Natural::Int(value.into()),
        As::Float => Natural::Float(value as f32),
        As::Double => Natural::Double(value as f64),
        // A date is an int, which a writer of longs doesn't write.
        As::Date => i32::try_from(value).map_or(Natural::Int(value.into()), Natural::Date),
        As::Timestamp(unit) => Natural::Timestamp(value, unit),
        As::TimeOfDay(unit) => Natural::TimeOfDay(value, unit),
    }
}

/// Big-endian two's complement of any length; `None` beyond 38 digits.
pub(super) fn decimal(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let fill = if negative { 0xff } else { 0 };
    let (more, low) = bytes.split_at(bytes.len().saturating_sub(16));
    if more.iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut whole = [fill; 16];
    whole[16 - low.len()..].copy_from_slice(low);
    let value = i128::from_be_bytes(whole);
    ((value < 0) == negative && value.unsigned_abs() < 10u128.pow(38)).then_some(value)
}

/// Sixteen bytes as a UUID is written.
pub(super) fn uuid(bytes: &[u8]) -> Option<String> {
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    let hex = format!("{number:032x}");
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// Steps over a value.
fn skip(schema: &AvroSchema, of: TypeId, cursor: &mut Cursor<'_>, depth: usize) -> Step {
    if depth > MAX_DEPTH {
        return malformed(cursor.pos, format!("values nest more than {MAX_DEPTH} deep"));
    }
    match &schema.at(of).kind {
        Kind::Null => Ok(()),
        Kind::Boolean => cursor.boolean().map(drop),
        Kind::Int => cursor.int().map(drop),
        Kind::Long => cursor.long().map(drop),
        Kind::Float => cursor.take(4).map(drop),
        Kind::Double => cursor.take(8).map(drop),
        Kind::Bytes => cursor.sized().map(drop),
        // What text is, is the schema's word: all of it is held to that.
        Kind::String => cursor.text().map(drop),
        Kind::Fixed(fixed) => cursor.take(fixed.size).map(drop),
        Kind::Enum(of) => {
            let at = cursor.pos;
            match usize::try_from(cursor.int()?).is_ok_and(|number| number < of.symbols.len()) {
                true => Ok(()),
                false => malformed(at, format!("an enum of {} symbols has no such number", of.symbols.len())),
            }
        }
        Kind::Record(record) => {
            cursor.record()?;
            record.fields.iter().try_for_each(|field| skip(schema, field.of, cursor, depth + 1))
        }
        Kind::Union(branches) => {
            let branch = cursor.branch(branches.len())?;
            skip(schema, branches[branch], cursor, depth + 1)
        }
        Kind::Array(items) => cursor.each_item(|cursor| skip(schema, *items, cursor, depth + 1)),
        Kind::Map(values) => cursor.each_item(|cursor| {
            cursor.text()?;
            skip(schema, *values, cursor, depth + 1)
        }),
    }
}

/// Writes a value as JSON.
fn write_json(schema: &AvroSchema, of: TypeId, cursor: &mut Cursor<'_>, depth: usize, out: &mut String) -> Step {
    if depth > MAX_DEPTH {
        return malformed(cursor.pos, format!("values nest more than {MAX_DEPTH} deep"));
    }
    let described = schema.at(of);
    let count = |value: i64| match described.logical {
        Logical::Date => number(value, As::Date),
        Logical::TimeMillis => number(value, As::TimeOfDay(TimeUnit::Millisecond)),
        Logical::TimeMicros => number(value, As::TimeOfDay(TimeUnit::Microsecond)),
        Logical::Timestamp(digits) | Logical::LocalTimestamp(digits) => number(value, As::Timestamp(super::resolve::unit(digits))),
        _ => number(value, As::Number),
    };
    let value = match &described.kind {
        Kind::Null => {
            out.push_str("null");
            return Ok(());
        }
        Kind::Boolean => Natural::Bool(cursor.boolean()?),
        Kind::Int => count(cursor.int()?.into()),
        Kind::Long => count(cursor.long()?),
        Kind::Float => Natural::Float(cursor.float()?),
        Kind::Double => Natural::Double(cursor.double()?),
        Kind::String => Natural::Text(cursor.text()?),
        Kind::Bytes | Kind::Fixed(_) => {
            let bytes = match &described.kind {
                Kind::Fixed(fixed) => cursor.take(fixed.size)?,
                _ => cursor.sized()?,
            };
            match described.logical {
                Logical::Decimal(_, scale) if decimal(bytes).is_some() => Natural::Decimal(decimal(bytes).unwrap_or_default(), scale),
                Logical::Uuid => {
                    quote(&uuid(bytes).unwrap_or_default(), out);
                    return Ok(());
                }
                // As Avro's own JSON has bytes: the characters of those numbers.
                _ => {
                    quote(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>(), out);
                    return Ok(());
                }
            }
        }
        Kind::Enum(of) => {
            let at = cursor.pos;
            match usize::try_from(cursor.int()?).ok().and_then(|number| of.symbols.get(number)) {
                Some(symbol) => Natural::Text(symbol),
                None => return malformed(at, format!("an enum of {} symbols has no such number", of.symbols.len())),
            }
        }
        Kind::Union(branches) => {
            let branch = cursor.branch(branches.len())?;
            return write_json(schema, branches[branch], cursor, depth + 1, out);
        }
        Kind::Record(record) => {
            cursor.record()?;
            out.push('{');
            for (at, field) in record.fields.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                quote(&field.name, out);
                out.push(':');
                write_json(schema, field.of, cursor, depth + 1, out)?;
            }
            out.push('}');
            return Ok(());
        }
        Kind::Array(items) => {
            out.push('[');
            let begin = out.len();
            cursor.each_item(|cursor| {
                if out.len() > begin {
                    out.push(',');
                }
                write_json(schema, *items, cursor, depth + 1, out)
            })?;
            out.push(']');
            return Ok(());
        }
        Kind::Map(values) => {
            out.push('{');
            let begin = out.len();
            cursor.each_item(|cursor| {
                if out.len() > begin {
                    out.push(',');
                }
                quote(cursor.text()?, out);
                out.push(':');
                write_json(schema, *values, cursor, depth + 1, out)
            })?;
            out.push('}');
            return Ok(());
        }
    };
    let written = value.written().unwrap_or_default();
    match value {
        Natural::Bool(_) | Natural::Int(_) | Natural::Decimal(..) => out.push_str(&written),
        Natural::Float(value) if value.is_finite() => out.push_str(&written),
        Natural::Double(value) if value.is_finite() => out.push_str(&written),
        _ => quote(&written, out),
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// A place in a payload.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// How many items of arrays and maps may still come. Each is a byte at least in all that is real, but for items that are nothing (nulls,
    /// records without fields), of which a few bytes could count billions.
    items_left: usize,
    /// The same of records within records, of which a schema may have any number that hold nothing.
    records_left: usize,
}

impl<'a> Cursor<'a> {
    fn at_the_beginning_of(payload: &'a [u8]) -> Self {
        Self { bytes: payload, pos: 0, items_left: payload.len(), records_left: payload.len() * MAX_DEPTH + MOST_EMPTY }
    }

    /// A record begins.
    fn record(&mut self) -> Step {
        match self.records_left.checked_sub(1) {
            Some(left) => {
                self.records_left = left;
                Ok(())
            }
            None => malformed(self.pos, "it has more records than the payload has bytes for"),
        }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        match self.bytes.get(self.pos..).and_then(|rest| rest.get(..count)) {
            Some(taken) => {
                self.pos += count;
                Ok(taken)
            }
            None => malformed(self.pos, format!("{count} bytes are to follow, and {} do", self.bytes.len() - self.pos)),
        }
    }

    fn boolean(&mut self) -> Step<bool> {
        let at = self.pos;
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => malformed(at, "a boolean is neither 0 nor 1"),
        }
    }

    /// A zigzag number of up to ten bytes.
    fn long(&mut self) -> Step<i64> {
        let start = self.pos;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some(&byte) = self.bytes.get(self.pos) else { return malformed(start, "a number is cut off") };
            self.pos += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        malformed(start, "a number has more than 64 bits")
    }

    fn int(&mut self) -> Step<i32> {
        let at = self.pos;
        i32::try_from(self.long()?).or_else(|_| malformed(at, "an int has more than 32 bits"))
    }

    fn float(&mut self) -> Step<f32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(f32::from_le_bytes(bytes))
    }

    fn double(&mut self) -> Step<f64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(f64::from_le_bytes(bytes))
    }

    /// Bytes behind their number.
    fn sized(&mut self) -> Step<&'a [u8]> {
        let at = self.pos;
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => malformed(at, format!("a length is {length}")),
        }
    }

    fn text(&mut self) -> Step<&'a str> {
        let at = self.pos;
        let bytes = self.sized()?;
        simdutf8::basic::from_utf8(bytes).or_else(|_| malformed(at, "a string is not valid UTF-8"))
    }

    /// The branch of a union of so many.
    fn branch(&mut self, branches: usize) -> Step<usize> {
        let at = self.pos;
        let branch = self.long()?;
        match usize::try_from(branch).ok().filter(|branch| *branch < branches) {
            Some(branch) => Ok(branch),
            None => malformed(at, format!("a union of {branches} has no branch {branch}")),
        }
    }

    /// The blocks of an array or a map, up to the empty one.
    fn each_item(&mut self, mut item: impl FnMut(&mut Self) -> Step) -> Step {
        loop {
            let at = self.pos;
            let said = self.long()?;
            if said == 0 {
                return Ok(());
            }
            // A negative number says that the block's size in bytes follows, for those who step over it.
            let size = if said < 0 { Some(self.long()?) } else { None };
            let count = said.unsigned_abs();
            match usize::try_from(count).ok().and_then(|count| self.items_left.checked_sub(count)) {
                Some(left) => self.items_left = left,
                None => return malformed(at, format!("a block counts {count} items, more than the payload has bytes for")),
            }
            let begin = self.pos;
            for _ in 0..count {
                item(self)?;
            }
            if size.is_some_and(|size| usize::try_from(size) != Ok(self.pos - begin)) {
                return malformed(at, "a block has another size than it says");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_any_length() {
        assert_eq!(decimal(&[]), Some(0));
        assert_eq!(decimal(&[0xff]), Some(-1));
        assert_eq!(decimal(&[0x00, 0xff]), Some(255));
        assert_eq!(decimal(&[0xff; 40]), Some(-1));
        assert_eq!(decimal(&[0x7f; 16]), None);
        assert_eq!(decimal(&[0x01; 17]), None);
        assert_eq!(decimal(&10i128.pow(37).to_be_bytes()), Some(10i128.pow(37)));
        assert_eq!(decimal(&10i128.pow(38).to_be_bytes()), None);
        // The sign must survive the cut to sixteen bytes.
        let mut long = vec![0];
        long.extend([0x80; 16]);
        assert_eq!(decimal(&long), None);
    }

    #[test]
    fn uuids() {
        assert_eq!(uuid(&0x0123_4567_89ab_cdef_0123_4567_89ab_cdefu128.to_be_bytes()).unwrap(), "01234567-89ab-cdef-0123-456789abcdef");
    }
}
