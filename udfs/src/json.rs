//! Functions that read JSON text: `json_get` and its like.
//!
//! All take the text and a path (`'$.a.b[0].c'`, `'a.b'`; `'$'` is the whole text; a key with other characters is quoted:
//! `'$."my key"[2]'`). What isn't there, isn't of the type asked for, or isn't JSON gives NULL.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray},
        compute::cast,
        datatypes::DataType,
    },
    common::{Result, ScalarValue, exec_err, plan_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility},
};
use serde_json::Value;

/// All functions of this module, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [Reader::Text, Reader::Int, Reader::Float, Reader::Bool, Reader::Length]
        .into_iter()
        .map(|reader| Arc::new(ScalarUDF::from(JsonFunction { reader, signature: reader.signature() })))
        .collect()
}

/// What a function makes of the value that its path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reader {
    /// `json_get`: a string's content, anything else as JSON text.
    Text,
    /// `json_get_int`: a number that is an integer and fits BIGINT.
    Int,
    /// `json_get_float`: any number.
    Float,
    /// `json_get_bool`: `true` or `false`.
    Bool,
    /// `json_length`: how many members an object or items an array has; the path may be left out.
    Length,
}

impl Reader {
    fn name(self) -> &'static str {
        match self {
            Reader::Text => "json_get",
            Reader::Int => "json_get_int",
            Reader::Float => "json_get_float",
            Reader::Bool => "json_get_bool",
            Reader::Length => "json_length",
        }
    }

    fn return_type(self) -> DataType {
        match self {
            Reader::Text => DataType::Utf8,
            Reader::Int | Reader::Length => DataType::Int64,
            Reader::Float => DataType::Float64,
            Reader::Bool => DataType::Boolean,
        }
    }

    fn signature(self) -> Signature {
        let with_path = TypeSignature::String(2);
        match self {
            Reader::Length => Signature::one_of(vec![TypeSignature::String(1), with_path], Volatility::Immutable),
            _ => Signature::new(with_path, Volatility::Immutable),
        }
    }

    fn read(self, values: impl Iterator<Item = Option<Value>>) -> ArrayRef {
        match self {
            Reader::Text => Arc::new(values.map(|value| text(value?)).collect::<StringArray>()),
            Reader::Int => Arc::new(values.map(|value| integer(&value?)).collect::<Int64Array>()),
            Reader::Float => Arc::new(values.map(|value| value?.as_f64()).collect::<Float64Array>()),
            Reader::Bool => Arc::new(values.map(|value| value?.as_bool()).collect::<BooleanArray>()),
            Reader::Length => Arc::new(values.map(|value| length(&value?)).collect::<Int64Array>()),
        }
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(content) => Some(content),
        other => Some(other.to_string()),
    }
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        // `1.0` is an integer; beyond 2^53 a double no longer tells which.
        let double = value.as_f64().filter(|_| value.is_f64())?;
        let exact = double.fract() == 0.0 && double.abs() <= 9_007_199_254_740_992.0;
        exact.then_some(double as i64)
    })
}

fn length(value: &Value) -> Option<i64> {
    match value {
        Value::Array(items) => Some(items.len() as i64),
        Value::Object(members) => Some(members.len() as i64),
        _ => None,
    }
}

/// One function: a reader behind DataFusion's interface.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    reader: Reader,
    signature: Signature,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.reader.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.reader.return_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if all_scalar { 1 } else { arguments.number_rows };
        let Some((json, path)) = arguments.args.split_first() else {
            return exec_err!("{} wants JSON text", self.name());
        };
        let json = strings(json.to_array(rows)?)?;
        let array = match path.first() {
            None => self.read_each(&json, rows, |_| Some(&[])),
            Some(ColumnarValue::Scalar(path)) => {
                // The common case: one path for all rows, parsed once.
                let steps = path.try_as_str().flatten().map(parse_path).transpose()?;
                self.read_each(&json, rows, |_| steps.as_deref())
            }
            Some(ColumnarValue::Array(paths)) => {
                let paths = strings(paths.clone())?;
                let steps = (0..rows).map(|row| string(&paths, row).map(parse_path).transpose()).collect::<Result<Vec<_>>>()?;
                self.read_each(&json, rows, |row| steps[row].as_deref())
            }
        };
        if all_scalar { Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)) } else { Ok(ColumnarValue::Array(array)) }
    }
}

impl JsonFunction {
    /// Reads each row at its path; a row without a path is NULL.
    fn read_each<'a>(&self, json: &ArrayRef, rows: usize, path: impl Fn(usize) -> Option<&'a [Step]>) -> ArrayRef {
        self.reader.read((0..rows).map(|row| find(serde_json::from_str(string(json, row)?).ok()?, path(row)?)))
    }
}

/// An array whose rows [`string`] can read: string types as they are, what else coercion lets through as text.
fn strings(array: ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(array),
        _ => Ok(cast(&array, &DataType::Utf8)?),
    }
}

fn string(array: &ArrayRef, row: usize) -> Option<&str> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Utf8View => array.as_string_view().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string::<i32>().value(row),
    })
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// To an object's member.
    Key(String),
    /// To an array's item.
    Index(usize),
}

/// The value at the end of a path.
fn find(mut value: Value, path: &[Step]) -> Option<Value> {
    for step in path {
        value = match (step, value) {
            (Step::Key(key), Value::Object(mut members)) => members.remove(key)?,
            (Step::Index(index), Value::Array(mut items)) if *index < items.len() => items.swap_remove(*index),
            _ => return None,
        };
    }
    Some(value)
}

/// Parses `$.a.b[0]."odd key"`; the `$` may be left out.
fn parse_path(path: &str) -> Result<Vec<Step>> {
    let wrong = |what: &str| plan_err!("JSON path '{path}' {what}; write one like '$.a.b[0].\"odd key\"'");
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let Some((index, after)) = inside.split_once(']') else {
                return wrong("has a bracket that is not closed");
            };
            let Ok(index) = index.parse() else {
                return wrong("has brackets around something that is no position");
            };
            steps.push(Step::Index(index));
            rest = after;
            continue;
        }
        // Only the first key of a path without `$` goes without a dot.
        let first = steps.is_empty() && rest.len() == path.len();
        let Some(key) = rest.strip_prefix('.').or(first.then_some(rest)) else {
            return wrong("lacks a dot before a key");
        };
        let quoted = key.starts_with('"');
        let (key, after) = match key.strip_prefix('"') {
            Some(content) => match content.split_once('"') {
                Some(parts) => parts,
                None => return wrong("has a quote that is not closed"),
            },
            None => key.split_at(key.find(['.', '[']).unwrap_or(key.len())),
        };
        if key.is_empty() && !quoted {
            return wrong("has an empty key");
        }
        steps.push(Step::Key(key.into()));
        rest = after;
    }
    Ok(steps)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::{
        arrow::{array::LargeStringArray, array::StringViewArray, record_batch::RecordBatch, util::pretty::pretty_format_batches},
        prelude::SessionContext,
    };

    use super::*;

    async fn query(sql: &str) -> Result<String> {
        let context = SessionContext::new();
        functions().into_iter().for_each(|function| context.register_udf(function.as_ref().clone()));
        let json = [Some(r#"{"a":{"b":[{"c":7},1.0,1.5]},"t":"x\u00e9","f":true,"odd key":null,"n":{}}"#), Some("{broken"), None, Some("[1,2,3]")];
        let columns: [(&str, ArrayRef); 4] = [
            ("u", Arc::new(StringArray::from_iter(json))),
            ("l", Arc::new(LargeStringArray::from_iter(json))),
            ("v", Arc::new(StringViewArray::from_iter(json))),
            ("p", Arc::new(StringArray::from(vec![Some("t"), Some("t"), Some("t"), None]))),
        ];
        context.register_batch("j", RecordBatch::try_from_iter(columns)?)?;
        let batches = context.sql(sql).await?.collect().await?;
        let table = pretty_format_batches(&batches)?.to_string();
        // Only the rows, without borders.
        let rows = table.lines().skip(3).filter(|line| line.starts_with('|')).map(|line| line.trim_matches('|').split('|').map(str::trim));
        Ok(rows.map(|row| row.collect::<Vec<_>>().join("|")).collect::<Vec<_>>().join("\n"))
    }

    async fn check(sql: &str, expect: &str) {
        assert_eq!(query(sql).await.unwrap(), expect, "{sql}");
    }

    #[tokio::test]
    async fn every_string_type_and_null() {
        for column in ["u", "l", "v"] {
            check(&format!("SELECT json_get({column}, '$.a.b[0].c') FROM j"), "7\n\n\n").await;
            check(&format!("SELECT json_length({column}) FROM j"), "5\n\n\n3").await;
        }
        check("SELECT json_get(u, p) FROM j", "xé\n\n\n").await;
        check("SELECT json_get(NULL, 'a') IS NULL, json_get('{}', NULL) IS NULL", "true|true").await;
    }

    #[tokio::test]
    async fn text_of_any_value() {
        check(
            r#"SELECT json_get(v, 'a'), json_get(v, 't'), json_get(v, 'f'), json_get(v, '$."odd key"') FROM j LIMIT 1"#,
            "{\"b\":[{\"c\":7},1.0,1.5]}|xé|true|",
        )
        .await;
        check("SELECT json_get('[1,[2]]', '$[1]'), json_get('5', '$'), json_get('[1]', '[0]')", "[2]|5|1").await;
    }

    #[tokio::test]
    async fn typed_values() {
        check("SELECT json_get_int(v, 'a.b[1]'), json_get_int(v, 'a.b[2]'), json_get_int(v, 't') FROM j LIMIT 1", "1||").await;
        check("SELECT json_get_int('9223372036854775807', '$'), json_get_int('9223372036854775808', '$')", "9223372036854775807|").await;
        check("SELECT json_get_float(v, 'a.b[2]'), json_get_float(v, 'a.b[0].c'), json_get_float(v, 'f') FROM j LIMIT 1", "1.5|7.0|").await;
        check("SELECT json_get_bool(v, 'f'), json_get_bool(v, 'a') FROM j LIMIT 1", "true|").await;
        check("SELECT json_length(v, 'a.b'), json_length(v, '$.n'), json_length(v, 't'), json_length(v, 'nope') FROM j LIMIT 1", "3|0||").await;
    }

    #[test]
    fn paths() {
        let key = |key: &str| Step::Key(key.into());
        assert_eq!(parse_path("$").unwrap(), []);
        assert_eq!(parse_path("").unwrap(), []);
        assert_eq!(parse_path("a").unwrap(), [key("a")]);
        assert_eq!(parse_path("$.a.b[0].c").unwrap(), [key("a"), key("b"), Step::Index(0), key("c")]);
        assert_eq!(parse_path(r#"$[1][2]."x.y[""#).unwrap(), [Step::Index(1), Step::Index(2), key("x.y[")]);
        assert_eq!(parse_path(r#"$."""#).unwrap(), [key("")]);
        for bad in ["$a", "$.", "a..b", "a.", "a[", "a[x]", "a[-1]", "$.a[0]b", "$.\"a", ".."] {
            let error = parse_path(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn a_wrong_path_is_an_error() {
        assert!(query("SELECT json_get(v, 'a[') FROM j").await.unwrap_err().to_string().contains("not closed"));
    }
}
