//! Column types: SQL's names, with `STRUCT<…>`, `STRUCT(…)`, `ARRAY<…>`, `T ARRAY` and `T[]` around them, to Arrow's types.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields, TimeUnit};
use datafusion::sql::sqlparser::{
    ast::{ArrayElemTypeDef, DataType as SqlType, ExactNumberInfo, TimezoneInfo},
    tokenizer::Token,
};

use super::{cursor::Cursor, names, syntax};
use crate::{
    catalog::kept_type,
    error::{Error, Result},
};

/// How deep types nest at most; the decoder walks them by recursion.
const DEEPEST: usize = 32;

/// Reads the type of a source's column.
pub(super) fn parse(cursor: &mut Cursor) -> Result<DataType> {
    read(cursor, false)
}

/// Reads the type of a table's column, which may also be any of Arrow's: `ARROW('Duration(ns)')`.
pub(super) fn parse_kept(cursor: &mut Cursor) -> Result<DataType> {
    read(cursor, true)
}

/// A type that [`kept_type`] gives, as [`parse_kept`] reads it back.
pub(super) fn written(data_type: &DataType) -> Result<String> {
    let text = spelled(data_type);
    let tokens = super::lexer::tokens(&text)?;
    match parse_kept(&mut Cursor::new(tokens)) {
        Ok(read) if read == *data_type => Ok(text),
        _ => Err(Error::Unsupported(format!("the type {data_type} can't be written down in a table's declaration: cast the column to another one"))),
    }
}

fn spelled(data_type: &DataType) -> String {
    let word = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8View => "TEXT",
        DataType::Binary => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Decimal128(digits, scale) if *scale >= 0 && *scale as u8 <= *digits => return format!("DECIMAL({digits}, {scale})"),
        DataType::Timestamp(unit, zone) if zone.is_none() || zone.as_deref() == Some("+00:00") => {
            let digits = match unit {
                TimeUnit::Second => "(0)",
                TimeUnit::Millisecond => "(3)",
                TimeUnit::Microsecond => "(6)",
                TimeUnit::Nanosecond => "",
            };
            return format!("TIMESTAMP{digits}{}", if zone.is_some() { " WITH TIME ZONE" } else { "" });
        }
        DataType::List(item) => return format!("ARRAY<{}>", spelled(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{} {}", names::quote_identifier(f.name()), spelled(f.data_type()))).collect();
            return format!("STRUCT<{}>", fields.join(", "));
        }
        other => return format!("ARROW({})", names::quote_literal(&other.to_string())),
    };
    word.into()
}

fn read(cursor: &mut Cursor, kept: bool) -> Result<DataType> {
    let mut reader = Reader { cursor, half_closed: false, kept };
    let data_type = reader.data_type(0)?;
    match reader.half_closed {
        true => Err(Error::Invalid(format!("syntax error: the type before {} has one > too many", syntax::shown(&cursor.peek().token)))),
        false => Ok(data_type),
    }
}

struct Reader<'a> {
    cursor: &'a mut Cursor,
    /// `>>` is one token: its first half has closed a type, its second half is still to close the one around it.
    half_closed: bool,
    /// Read for a table, which also takes Arrow's own types.
    kept: bool,
}

impl Reader<'_> {
    fn data_type(&mut self, depth: usize) -> Result<DataType> {
        if depth > DEEPEST {
            return Err(Error::Invalid(format!(
                "a type is nested deeper than {DEEPEST} levels{}: read the inner part as TEXT",
                syntax::place(self.cursor.peek())
            )));
        }
        let mut data_type = self.element(depth)?;
        while !self.half_closed {
            if self.cursor.take_token(&Token::LBracket) {
                if self.cursor.peek().token != Token::RBracket {
                    return Err(syntax::expected("] (an array of a column has no declared length)", self.cursor.peek()));
                }
                self.cursor.expect_token(&Token::RBracket)?;
            } else if !self.cursor.take(&["ARRAY"]) {
                break;
            }
            data_type = list(data_type);
        }
        Ok(data_type)
    }

    fn element(&mut self, depth: usize) -> Result<DataType> {
        if self.cursor.take(&["STRUCT"]) {
            let closing = match self.cursor.take_token(&Token::LParen) {
                true => Token::RParen,
                false => {
                    self.cursor.expect_token(&Token::Lt)?;
                    Token::Gt
                }
            };
            return self.fields(closing, depth);
        }
        if self.cursor.take(&["ARRAY"]) {
            self.cursor.expect_token(&Token::Lt)?;
            let item = self.data_type(depth + 1)?;
            self.close(&Token::Gt)?;
            return Ok(list(item));
        }
        if self.kept && self.cursor.take(&["ARROW"]) {
            return self.arrow();
        }
        let at = syntax::place(self.cursor.peek());
        let named = self.cursor.parser.parse_data_type().map_err(syntax::from_parser)?;
        if self.kept
            && let Some(kept) = only_kept(&named)
        {
            return Ok(kept);
        }
        let impossible = if self.kept { "is none that a table keeps" } else { "can't be read from a topic" };
        convert(&named).map_err(|advice| Error::Invalid(format!("the type {named}{at} {impossible}: {advice}")))
    }

    /// `('Duration(ns)')`: a type in Arrow's words, as `arrow_typeof` gives it.
    fn arrow(&mut self) -> Result<DataType> {
        self.cursor.expect_token(&Token::LParen)?;
        let text = self.cursor.text("a type in Arrow's words, like 'Duration(ns)'")?;
        self.cursor.expect_token(&Token::RParen)?;
        let read: DataType = text.parse().map_err(|error| Error::Invalid(format!("ARROW('{text}') is no type: {error}")))?;
        match kept_type(&read) {
            Ok(kept) if kept == read => Ok(read),
            Ok(kept) => Err(Error::Invalid(format!("a table keeps {read} as {kept}: write {}", spelled(&kept)))),
            Err(advice) => Err(Error::Invalid(advice)),
        }
    }

    fn fields(&mut self, closing: Token, depth: usize) -> Result<DataType> {
        let mut fields: Vec<Field> = vec![];
        loop {
            let name = names::fold(&self.cursor.identifier("the name of a field")?);
            if fields.iter().any(|f| *f.name() == name) {
                return Err(Error::Invalid(format!("a STRUCT has two fields called {name}: name each once")));
            }
            self.cursor.take_token(&Token::Colon);
            fields.push(Field::new(name, self.data_type(depth + 1)?, true));
            if self.half_closed || !self.cursor.take_token(&Token::Comma) {
                break;
            }
        }
        self.close(&closing)?;
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn close(&mut self, closing: &Token) -> Result<()> {
        if *closing == Token::Gt {
            if std::mem::take(&mut self.half_closed) {
                return Ok(());
            }
            if self.cursor.take_token(&Token::ShiftRight) {
                self.half_closed = true;
                return Ok(());
            }
        }
        self.cursor.expect_token(closing)
    }
}

/// Types of SQL that a table keeps and a topic's payload has no form of.
fn only_kept(named: &SqlType) -> Option<DataType> {
    match named {
        SqlType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Some(DataType::Time64(TimeUnit::Nanosecond)),
        SqlType::Array(ArrayElemTypeDef::SquareBracket(item, Some(length))) => {
            Some(DataType::FixedSizeList(Arc::new(Field::new_list_field(convert(item).ok()?, true)), i32::try_from(*length).ok().filter(|length| *length > 0)?))
        }
        _ => None,
    }
}

fn list(item: DataType) -> DataType {
    DataType::new_list(item, true)
}

/// DataFusion's reading of a type's name, with text as views. An error is advice.
fn convert(named: &SqlType) -> Result<DataType, String> {
    Ok(match named {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::TinyIntUnsigned(_) => DataType::UInt8,
        SqlType::SmallIntUnsigned(_) | SqlType::Int2Unsigned(_) => DataType::UInt16,
        SqlType::IntUnsigned(_) | SqlType::IntegerUnsigned(_) | SqlType::Int4Unsigned(_) => DataType::UInt32,
        SqlType::BigIntUnsigned(_) | SqlType::Int8Unsigned(_) => DataType::UInt64,
        SqlType::Float(_) | SqlType::Real | SqlType::Float4 => DataType::Float32,
        SqlType::Double(ExactNumberInfo::None) | SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Text | SqlType::String(_) | SqlType::Varchar(_) | SqlType::Char(_) | SqlType::CharacterVarying(_) | SqlType::CharVarying(_) => {
            DataType::Utf8View
        }
        SqlType::Bytea | SqlType::Blob(None) => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp(precision, zone) => {
            let unit = match precision {
                Some(0) => TimeUnit::Second,
                Some(3) => TimeUnit::Millisecond,
                Some(6) => TimeUnit::Microsecond,
                None | Some(9) => TimeUnit::Nanosecond,
                Some(_) => return Err("a timestamp has 0, 3, 6 or 9 digits after the second".into()),
            };
            let zoned = matches!(zone, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz);
            DataType::Timestamp(unit, zoned.then(|| "+00:00".into()))
        }
        SqlType::Decimal(info) | SqlType::Numeric(info) | SqlType::Dec(info) => decimal(info)?,
        SqlType::Array(ArrayElemTypeDef::SquareBracket(item, None)) => list(convert(item)?),
        SqlType::Array(ArrayElemTypeDef::SquareBracket(_, Some(_))) => return Err("an array of a column has no declared length; write []".into()),
        SqlType::Double(_) => return Err("write DOUBLE without a precision".into()),
        SqlType::JSON | SqlType::JSONB => return Err("write TEXT, which takes an object as its JSON text".into()),
        SqlType::Time(..) | SqlType::Interval { .. } | SqlType::Uuid => return Err("write TEXT and cast it in the query".into()),
        SqlType::Datetime(_) => return Err("write TIMESTAMP".into()),
        _ => {
            return Err(
                "write BOOLEAN, SMALLINT, INT, BIGINT, REAL, DOUBLE, DECIMAL(p, s), TEXT, BYTEA, DATE, TIMESTAMP, STRUCT<…>, or one of them with ARRAY".into(),
            );
        }
    })
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType, String> {
    // Without numbers it is what DataFusion makes of DECIMAL.
    let (precision, scale) = match info {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let (Ok(digits), Ok(scale)) = (u8::try_from(precision), i8::try_from(scale)) else {
        return Err(format!("DECIMAL has 1 to {DECIMAL256_MAX_PRECISION} digits"));
    };
    if digits == 0 || digits > DECIMAL256_MAX_PRECISION || scale < 0 || scale as u8 > digits {
        return Err(format!("DECIMAL has 1 to {DECIMAL256_MAX_PRECISION} digits, of which 0 to all stand after the point"));
    }
    Ok(if digits <= DECIMAL128_MAX_PRECISION { DataType::Decimal128(digits, scale) } else { DataType::Decimal256(digits, scale) })
}
