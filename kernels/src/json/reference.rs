//! The decoder on the CPU, as plainly as it can be written.

use super::{
    columns::{Cells, Column, Decoded, Status, view},
    decimal::nearest,
    device::Rows,
    schema::{Compiled, Node, Schema, Type},
    time::timestamp,
};

/// How deep skipped values may nest.
const MOST_DEPTH: usize = 64;

/// Decodes rows.
pub fn decode(schema: &Schema, rows: &Rows<'_>) -> Decoded {
    let count = rows.ranges.len();
    let given = |column: &Compiled| column.place.map(|_| empty(column.data_type, count));
    let mut columns: Vec<Option<Column>> = schema.columns.iter().map(given).collect();
    let mut seen = vec![vec![0; count]; schema.seen_words()];
    let status = rows.ranges.iter().enumerate().map(|(number, &[start, end])| {
        let mut reader =
            Reader { schema, bytes: &rows.payload[start as usize..end as usize], at: 0, base: start, values: vec![None; schema.columns.len()], seen: 0 };
        match reader.row() {
            Ok(()) => {
                columns.iter_mut().zip(reader.values).for_each(|(column, value)| column.iter_mut().for_each(|column| column.set(number, value)));
                seen.iter_mut().enumerate().for_each(|(word, rows)| rows[number] = (reader.seen >> (64 * word)) as u64);
                Status::Decoded
            }
            Err(status) => status,
        }
    });
    Decoded { status: status.collect(), columns, seen }
}

/// A value that was read.
#[derive(Debug, Clone, Copy)]
enum Value {
    Boolean(bool),
    /// Integers, timestamps, and floats' bits.
    Word(u64),
    View(u128),
    Extent([u32; 2]),
}

fn empty(data_type: Type, rows: usize) -> Column {
    let cells = match data_type {
        Type::Boolean => Cells::Boolean(vec![0; rows.div_ceil(8)]),
        Type::Int8 | Type::Int16 | Type::Int32 => Cells::Int32(vec![0; rows]),
        Type::UInt8 | Type::UInt16 | Type::UInt32 => Cells::UInt32(vec![0; rows]),
        Type::Int64 => Cells::Int64(vec![0; rows]),
        Type::Float64 => Cells::Float64(vec![0.0; rows]),
        Type::Text => Cells::Text(vec![0; rows]),
        Type::Timestamp(_) => Cells::Timestamp(vec![0; rows]),
        Type::Raw => Cells::Raw(vec![[0; 2]; rows]),
    };
    Column { valid: vec![0; rows.div_ceil(8)], cells }
}

impl Column {
    fn set(&mut self, row: usize, value: Option<Value>) {
        let Some(value) = value else { return };
        self.valid[row / 8] |= 1 << (row % 8);
        match (&mut self.cells, value) {
            (Cells::Boolean(bits), Value::Boolean(value)) => bits[row / 8] |= u8::from(value) << (row % 8),
            (Cells::Int32(cells), Value::Word(word)) => cells[row] = word as i32,
            (Cells::UInt32(cells), Value::Word(word)) => cells[row] = word as u32,
            (Cells::Int64(cells) | Cells::Timestamp(cells), Value::Word(word)) => cells[row] = word as i64,
            (Cells::Float64(cells), Value::Word(word)) => cells[row] = f64::from_bits(word),
            (Cells::Text(cells), Value::View(view)) => cells[row] = view,
            (Cells::Raw(cells), Value::Extent(extent)) => cells[row] = extent,
            _ => {}
        }
    }
}

/// Reads one row.
struct Reader<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    at: usize,
    /// Where the row lies in the payload.
    base: u32,
    values: Vec<Option<Value>>,
    /// The nodes whose keys have come.
    seen: u128,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn blank(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn row(&mut self) -> Result<(), Status> {
        self.blank();
        if self.peek() != b'{' {
            return Err(Status::NotOneObject);
        }
        self.object(0)?;
        self.blank();
        if self.at == self.bytes.len() { Ok(()) } else { Err(Status::NotOneObject) }
    }

    /// Reads an object that declared paths lead through.
    fn object(&mut self, node: usize) -> Result<(), Status> {
        self.at += 1;
        self.blank();
        if self.peek() == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != b'"' {
                return Err(Status::Structure);
            }
            let key = self.string(true)?;
            let child = self.schema.nodes[node].children.clone().find(|&child| self.schema.nodes[child].key == key);
            self.blank();
            if self.peek() != b':' {
                return Err(Status::Structure);
            }
            self.at += 1;
            self.blank();
            match child {
                Some(child) => self.child(child)?,
                None if node == 0 && self.schema.leave_unknown => return Err(Status::UnknownKey),
                None => self.skip()?,
            }
            self.blank();
            match self.peek() {
                b',' => {
                    self.at += 1;
                    self.blank();
                }
                b'}' => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(Status::Structure),
            }
        }
    }

    /// Reads the value of a node.
    fn child(&mut self, child: usize) -> Result<(), Status> {
        let Node { column, children, .. } = &self.schema.nodes[child];
        let again = self.seen >> child & 1 == 1;
        self.seen |= 1 << child;
        match column {
            // Nothing hangs on how often a key comes that is only noted.
            None if children.is_empty() => self.skip(),
            _ if again => Err(Status::Twice),
            Some(column) => {
                self.values[*column] = match self.schema.columns[*column].data_type {
                    Type::Raw => self.extent()?,
                    data_type => self.value(data_type)?,
                };
                Ok(())
            }
            None if self.peek() == b'{' => self.object(child),
            None if self.schema.leave_blocked => Err(Status::Blocked),
            None => self.skip(),
        }
    }

    /// Moves over a string: its content. One that is `read` has neither escapes nor control characters.
    fn string(&mut self, read: bool) -> Result<&'a [u8], Status> {
        let start = self.at + 1;
        self.at = start;
        loop {
            match self.bytes.get(self.at) {
                None => return Err(Status::Structure),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.bytes[start..self.at - 1]);
                }
                Some(b'\\') if read => return Err(Status::Escape),
                Some(b'\\') => self.at += if self.bytes.get(self.at + 1).is_none_or(u8::is_ascii) { 2 } else { 1 },
                Some(0..0x20) if read => return Err(Status::Control),
                Some(0..0x80) => self.at += 1,
                Some(_) => {
                    let rest = &self.bytes[self.at..self.bytes.len().min(self.at + 4)];
                    let character = rest.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
                    self.at += character.ok_or(Status::Utf8)?.len_utf8();
                }
            }
        }
    }

    /// Moves over a value that nobody reads.
    fn skip(&mut self) -> Result<(), Status> {
        let mut open: Vec<u8> = Vec::new();
        match self.peek() {
            b'"' => return self.string(false).map(|_| ()),
            c if is_word(c) => {
                self.word();
                return Ok(());
            }
            b'{' | b'[' => {}
            _ => return Err(Status::Structure),
        }
        while let Some(&c) = self.bytes.get(self.at) {
            match c {
                b'"' => {
                    self.string(false)?;
                    continue;
                }
                b'{' | b'[' if open.len() == MOST_DEPTH => return Err(Status::TooDeep),
                b'{' | b'[' => open.push(c),
                b'}' | b']' if open.pop() != Some(c - 2) => return Err(Status::Structure),
                b'\\' => return Err(Status::Escape),
                0x80.. => return Err(Status::Utf8),
                _ => {}
            }
            self.at += 1;
            if open.is_empty() {
                return Ok(());
            }
        }
        Err(Status::Structure)
    }

    /// Moves over letters, digits, signs and points.
    fn word(&mut self) -> &'a [u8] {
        let start = self.at;
        while is_word(self.peek()) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    /// Moves over a value that the caller judges.
    fn extent(&mut self) -> Result<Option<Value>, Status> {
        let start = self.at;
        self.skip()?;
        let is_null = &self.bytes[start..self.at] == b"null";
        Ok((!is_null).then_some(Value::Extent([self.base + start as u32, (self.at - start) as u32])))
    }

    /// Reads a column's value.
    fn value(&mut self, data_type: Type) -> Result<Option<Value>, Status> {
        let start = self.at;
        let offset = |at: usize| self.base + at as u32;
        if self.peek() == b'"' {
            if !matches!(data_type, Type::Text | Type::Timestamp(_)) {
                return Err(Status::Value);
            }
            let place = offset(start + 1);
            let text = self.string(true)?;
            return match data_type {
                Type::Timestamp(unit) => timestamp(text, unit).map(|count| Some(Value::Word(count as u64))).ok_or(Status::Value),
                _ => Ok(Some(Value::View(view(text, place)))),
            };
        }
        let place = offset(start);
        let word = self.word();
        let value = match (word, data_type) {
            (b"null", _) => return Ok(None),
            (b"true" | b"false", Type::Boolean) => Some(Value::Boolean(word == b"true")),
            (b"true" | b"false", Type::Text) => Some(Value::View(view(word, place))),
            (_, Type::Text) => number(word).map(|_| Value::View(view(word, place))),
            (_, Type::Int8) => whole::<i8>(word),
            (_, Type::Int16) => whole::<i16>(word),
            (_, Type::Int32) => whole::<i32>(word),
            (_, Type::Int64) => whole::<i64>(word),
            (_, Type::UInt8) => whole::<u8>(word),
            (_, Type::UInt16) => whole::<u16>(word),
            (_, Type::UInt32) => whole::<u32>(word),
            (_, Type::Float64) => number(word).and_then(|number| float(word, &number)).map(|value| Value::Word(value.to_bits())),
            _ => None,
        };
        value.map(Some).ok_or(Status::Value)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// A number's digits without the point, and its power of ten, if the text is a number to JSON's grammar.
fn number(text: &[u8]) -> Option<(Vec<u8>, i64)> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let mantissa_end = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(unsigned.len());
    let (mantissa, exponent) = unsigned.split_at(mantissa_end);
    let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        Some(at) => (&mantissa[..at], Some(&mantissa[at + 1..])),
        None => (mantissa, None),
    };
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let power = match exponent {
        [] => 0,
        [_, b'-', digits_of @ ..] if digits(digits_of) => -clamped(digits_of),
        [_, b'+', digits_of @ ..] | [_, digits_of @ ..] if digits(digits_of) => clamped(digits_of),
        _ => return None,
    };
    if !digits(whole) || (whole.len() > 1 && whole[0] == b'0') || fraction.is_some_and(|fraction| !digits(fraction)) {
        return None;
    }
    let fraction = fraction.unwrap_or_default();
    Some(([whole, fraction].concat(), power - fraction.len() as i64))
}

/// An exponent, held far beyond all doubles.
fn clamped(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |power, digit| if power < 100_000 { power * 10 + i64::from(digit - b'0') } else { power })
}

/// An integer that is written as one and is of a type.
fn whole<T: TryFrom<i64>>(text: &[u8]) -> Option<Value> {
    number(text)?;
    let value: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    T::try_from(value).ok().map(|_| Value::Word(value as u64))
}

/// A number as a float, if the kernel's method finds it.
fn float(text: &[u8], (digits, power): &(Vec<u8>, i64)) -> Option<f64> {
    let significant = digits.iter().skip_while(|&&digit| digit == b'0').copied().collect::<Vec<u8>>();
    let (kept, cut) = significant.split_at(significant.len().min(19));
    let kept = kept.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    let power = i32::try_from(power + cut.len() as i64).ok()?;
    let bits = nearest(kept, power)?;
    if cut.iter().any(|&digit| digit != b'0') && nearest(kept + 1, power)? != bits {
        return None;
    }
    let value = if text[0] == b'-' { -f64::from_bits(bits) } else { f64::from_bits(bits) };
    debug_assert_eq!(std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).map(f64::to_bits), Some(value.to_bits()));
    Some(value)
}
