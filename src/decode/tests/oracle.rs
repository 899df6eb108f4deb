//! The oracle: the rules of the decoder written down once more, as plainly as possible and without care for speed.
//! Values are found byte by byte, and `serde_json` says whether one is well-formed.

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate};
use serde_json::Value;

use super::*;

/// A fault; or something that the oracle can't judge.
#[derive(Debug, PartialEq)]
pub(super) enum No {
    Bad,
    Unknown,
}

type Yes<T> = Result<T, No>;

/// The rows of a payload.
pub(super) fn read_payload(columns: &[ColumnDef], payload: &[u8]) -> Yes<Vec<Vec<Cell>>> {
    let json = Json(std::str::from_utf8(payload).map_err(|_| No::Bad)?);
    json.strings()?;
    let mut pos = json.blank(0);
    let mut rows = Vec::new();
    if pos == payload.len() {
        return Err(No::Bad);
    }
    if json.byte(pos) != b'[' {
        loop {
            let (row, end) = json.row(columns, pos, 1)?;
            rows.push(row);
            pos = json.blank(end);
            if pos == payload.len() {
                return Ok(rows);
            }
            if pos == end {
                return Err(No::Bad);
            }
        }
    }
    pos = json.blank(pos + 1);
    if json.byte(pos) != b']' {
        loop {
            let (row, end) = json.row(columns, pos, 2)?;
            rows.push(row);
            pos = json.blank(end);
            match json.byte(pos) {
                b',' => pos = json.blank(pos + 1),
                b']' => break,
                _ => return Err(No::Bad),
            }
        }
    }
    if json.blank(pos + 1) == payload.len() { Ok(rows) } else { Err(No::Bad) }
}

struct Json<'a>(&'a str);

/// A member of an object: key, and where the value begins and ends.
type Member = (String, usize, usize);

impl Json<'_> {
    fn byte(&self, pos: usize) -> u8 {
        *self.0.as_bytes().get(pos).unwrap_or(&0)
    }

    fn blank(&self, mut pos: usize) -> usize {
        while b" \t\r\n".contains(&self.byte(pos)) {
            pos += 1;
        }
        pos
    }

    /// Strings are closed, and backslashes stand in strings.
    fn strings(&self) -> Yes<()> {
        let mut bytes = self.0.bytes();
        let mut string = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => string = !string,
                b'\\' if string => drop(bytes.next()),
                b'\\' => return Err(No::Bad),
                _ => {}
            }
        }
        if string { Err(No::Bad) } else { Ok(()) }
    }

    fn string_end(&self, mut pos: usize) -> usize {
        pos += 1;
        while self.byte(pos) != b'"' {
            pos += if self.byte(pos) == b'\\' { 2 } else { 1 };
        }
        pos + 1
    }

    /// One past a value of which only the structure counts.
    fn skip(&self, start: usize, depth: usize) -> Yes<usize> {
        let mut pos = start;
        let mut open = Vec::new();
        loop {
            match self.byte(pos) {
                b'"' => pos = self.string_end(pos),
                bracket @ (b'{' | b'[') => {
                    open.push(bracket + 2);
                    if open.len() + depth > 128 {
                        return Err(No::Bad);
                    }
                    pos += 1;
                }
                bracket @ (b'}' | b']') => {
                    if open.pop() != Some(bracket) {
                        return Err(No::Bad);
                    }
                    pos += 1;
                }
                _ if pos >= self.0.len() => return Err(No::Bad),
                _ if open.is_empty() => {
                    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
                    while word(self.byte(pos)) {
                        pos += 1;
                    }
                    if pos == start {
                        return Err(No::Bad);
                    }
                }
                _ => pos += 1,
            }
            if open.is_empty() {
                return Ok(pos);
            }
        }
    }

    /// The members of an object, and one past it.
    fn members(&self, open: usize, depth: usize) -> Yes<(Vec<Member>, usize)> {
        let mut members = Vec::new();
        let mut pos = self.blank(open + 1);
        if self.byte(pos) == b'}' {
            return Ok((members, pos + 1));
        }
        loop {
            if self.byte(pos) != b'"' {
                return Err(No::Bad);
            }
            let key_end = self.string_end(pos);
            let key = serde_json::from_str(&self.0[pos..key_end]).map_err(|_| No::Bad)?;
            let colon = self.blank(key_end);
            if self.byte(colon) != b':' {
                return Err(No::Bad);
            }
            let start = self.blank(colon + 1);
            let end = self.skip(start, depth)?;
            members.push((key, start, end));
            pos = self.blank(end);
            match self.byte(pos) {
                b',' => pos = self.blank(pos + 1),
                b'}' => return Ok((members, pos + 1)),
                _ => return Err(No::Bad),
            }
        }
    }

    fn row(&self, columns: &[ColumnDef], open: usize, depth: usize) -> Yes<(Vec<Cell>, usize)> {
        if self.byte(open) != b'{' {
            return Err(No::Bad);
        }
        let path = |column: &ColumnDef| match &column.origin {
            Origin::Payload { path, .. } => path.clone(),
            _ => unreachable!("payload columns only"),
        };
        let paths: Vec<Vec<String>> = columns.iter().map(path).collect();
        self.walk(open, depth, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let cell = |(column, path): (&ColumnDef, &Vec<String>)| {
            let Origin::Payload { time, .. } = &column.origin else { unreachable!() };
            match self.find(open, path)? {
                Some((start, end)) => self.cell(&column.data_type, time, start, end),
                None => Ok(Cell::Null),
            }
        };
        let row = columns.iter().zip(&paths).map(cell).collect::<Yes<_>>()?;
        Ok((row, self.skip(open, 0).expect("walked")))
    }

    /// Every object on a declared path is well-formed, also one that a later equal key replaces.
    fn walk(&self, open: usize, depth: usize, paths: &[&[String]]) -> Yes<()> {
        for (key, start, _) in self.members(open, depth)?.0 {
            let below: Vec<&[String]> = paths.iter().filter(|path| path.len() > 1 && path[0] == key).map(|path| &path[1..]).collect();
            if !below.is_empty() && self.byte(start) == b'{' {
                self.walk(start, depth + 1, &below)?;
            }
        }
        Ok(())
    }

    fn find(&self, open: usize, path: &[String]) -> Yes<Option<(usize, usize)>> {
        let (members, _) = self.members(open, 0)?;
        let Some((_, start, end)) = members.into_iter().rfind(|(key, ..)| *key == path[0]) else {
            return Ok(None);
        };
        match path.len() {
            1 => Ok(Some((start, end))),
            _ if self.byte(start) == b'{' => self.find(start, &path[1..]),
            _ => Ok(None),
        }
    }

    fn cell(&self, data_type: &DataType, time: &TimeFormat, start: usize, end: usize) -> Yes<Cell> {
        let raw = &self.0[start..end];
        let value: Option<Value> = match serde_json::from_str(raw) {
            Ok(value) => Some(value),
            // It can't hold a number beyond all doubles, which is JSON nevertheless.
            Err(error) if error.to_string().contains("number out of range") && raw.starts_with(['{', '[']) => return Err(No::Unknown),
            Err(error) if error.to_string().contains("number out of range") => None,
            Err(_) => return Err(No::Bad),
        };
        let is_number = matches!(value, None | Some(Value::Number(_)));
        let content = value.as_ref().and_then(Value::as_str);
        if value == Some(Value::Null) {
            return Ok(Cell::Null);
        }
        let counted = |scale: i64| if is_number { exact(raw, scale) } else { None };
        let within = |range: std::ops::RangeInclusive<i128>| counted(0).filter(|value| range.contains(value)).map(Cell::Int);
        match data_type {
            DataType::Boolean => value.and_then(|value| value.as_bool()).map(Cell::Bool),
            DataType::Int8 => within(i8::MIN.into()..=i8::MAX.into()),
            DataType::Int32 => within(i32::MIN.into()..=i32::MAX.into()),
            DataType::Int64 => within(i64::MIN.into()..=i64::MAX.into()),
            DataType::UInt64 => within(0..=u64::MAX.into()),
            DataType::Float64 if is_number => raw.parse().ok().filter(|value: &f64| value.is_finite()).map(float),
            DataType::Float32 if is_number => raw.parse().ok().filter(|value: &f32| value.is_finite()).map(|value| float(value.into())),
            DataType::Decimal128(precision, scale) => {
                let text = match content {
                    Some(text) if serde_json::from_str::<serde_json::Number>(text).is_ok() && text.trim() == text => text,
                    // A number beyond all doubles has no place in a decimal either.
                    Some(_) => return Err(No::Bad),
                    None if is_number => raw,
                    None => return Err(No::Bad),
                };
                exact(text, (*scale).into()).filter(|value| value.abs() < 10i128.pow((*precision).into())).map(Cell::Int)
            }
            DataType::Utf8 | DataType::Utf8View => Some(text(content.unwrap_or(raw))),
            DataType::Binary => content.map(|text| Cell::Bytes(text.into())),
            DataType::Date32 => content.and_then(date).map(Cell::Int),
            DataType::Timestamp(unit, _) => {
                let digits = match unit {
                    TimeUnit::Second => 0,
                    TimeUnit::Millisecond => 3,
                    TimeUnit::Microsecond => 6,
                    TimeUnit::Nanosecond => 9,
                };
                let count = match time {
                    TimeFormat::Rfc3339 => content.and_then(timestamp).and_then(|nanos| {
                        let step = 10i128.pow(9 - digits);
                        (nanos % step == 0).then_some(nanos / step)
                    }),
                    TimeFormat::EpochSeconds => counted(digits.into()),
                    TimeFormat::EpochMillis => counted(i64::from(digits) - 3),
                    TimeFormat::EpochMicros => counted(i64::from(digits) - 6),
                    TimeFormat::Local(_) => unreachable!("not generated"),
                };
                count.filter(|&count| i64::try_from(count).is_ok()).map(Cell::Int)
            }
            DataType::Struct(fields) if raw.starts_with('{') => {
                let field = |field: &FieldRef| match self.find(start, std::slice::from_ref(field.name()))? {
                    Some((start, end)) => self.cell(field.data_type(), &TimeFormat::Rfc3339, start, end),
                    None => Ok(Cell::Null),
                };
                Some(Cell::List(fields.iter().map(field).collect::<Yes<_>>()?))
            }
            DataType::List(item) if raw.starts_with('[') => {
                let mut items = Vec::new();
                let mut pos = self.blank(start + 1);
                while self.byte(pos) != b']' {
                    let end = self.skip(pos, 0)?;
                    items.push(self.cell(item.data_type(), &TimeFormat::Rfc3339, pos, end)?);
                    pos = self.blank(end);
                    if self.byte(pos) == b',' {
                        pos = self.blank(pos + 1);
                    }
                }
                Some(Cell::List(items))
            }
            _ => None,
        }
        .ok_or(No::Bad)
    }
}

/// A number times 10^`scale` if that is an integer, by moving the point through the digits.
fn exact(number: &str, scale: i64) -> Option<i128> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()),
        None => (number, Some(0)),
    };
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.bytes().chain(fraction.bytes()).all(|digit| digit == b'0') {
        return Some(0);
    }
    let moved = exponent? + scale;
    if moved.abs() > 1000 {
        return None;
    }
    let padding = "0".repeat(moved.unsigned_abs() as usize);
    let digits = format!("{padding}{whole}{fraction}{padding}");
    let point = (padding.len() + whole.len()) as i64 + moved;
    let (whole, fraction) = digits.split_at(point as usize);
    if fraction.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let value: i128 = whole.parse().ok()?;
    Some(if negative { -value } else { value })
}

/// Whether text looks like a pattern in which `0` stands for any digit.
fn looks(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(|(a, b)| if b == b'0' { a.is_ascii_digit() } else { a == b })
}

fn date(text: &str) -> Option<i128> {
    let date: NaiveDate = looks(text, "0000-00-00").then(|| text.parse().ok())??;
    Some(date.to_epoch_days().into())
}

fn timestamp(text: &str) -> Option<i128> {
    let date = text.get(..10).filter(|date| looks(date, "0000-00-00"))?;
    let time = text.get(11..19).filter(|time| looks(time, "00:00:00") && !time.ends_with("60"))?;
    if !["T", "t", " "].contains(&text.get(10..11)?) {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, offset) = rest.split_at(rest.find(['Z', 'z', '+', '-'])?);
    let digits = fraction.strip_prefix('.').unwrap_or("1");
    let fraction_fits = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fraction_fits = fraction_fits && (fraction.is_empty() || fraction.starts_with('.'));
    let offset_fits = ["Z", "z"].contains(&offset) || (looks(&offset[1..], "00:00") && &offset[1..] < "24:00");
    if !fraction_fits || !offset_fits {
        return None;
    }
    let parsed = DateTime::parse_from_rfc3339(&format!("{date}T{time}{fraction}{}", offset.to_uppercase())).ok()?;
    Some(i128::from(parsed.timestamp()) * 1_000_000_000 + i128::from(parsed.timestamp_subsec_nanos()))
}
