//! The labels that a model tells apart. Their order is part of the model: scores come in it, and it breaks ties.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use serde::{Deserialize, Serialize};

/// Distinct labels of one type, in ascending order (text by its bytes, `false` before `true`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Classes {
    /// Labels of a text target.
    Text(Vec<String>),
    /// Labels of an integer target.
    Integer(Vec<i64>),
    /// Labels of a boolean target.
    Boolean(Vec<bool>),
}

/// Why an array can't be a classification target.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TargetError {
    /// A type whose values are not labels.
    #[error("the target is {0}, but a forest tells classes apart: cast it to TEXT, BIGINT or BOOLEAN")]
    Type(DataType),
    /// A row whose class is not known.
    #[error("the target is NULL in row {0}; leave such rows out, for instance with WHERE … IS NOT NULL")]
    Null(usize),
    /// A floating-point label that is not a whole number.
    #[error("the target is {value} in row {row}, but a forest tells classes apart: round it, or cast it to TEXT or BIGINT")]
    Fraction {
        /// The row.
        row: usize,
        /// Its target.
        value: f64,
    },
}

impl Classes {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Classes::Text(labels) => labels.len(),
            Classes::Integer(labels) => labels.len(),
            Classes::Boolean(labels) => labels.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are in ascending order without a repetition.
    pub fn is_ordered(&self) -> bool {
        match self {
            Classes::Text(labels) => labels.is_sorted_by(|a, b| a < b),
            Classes::Integer(labels) => labels.is_sorted_by(|a, b| a < b),
            Classes::Boolean(labels) => labels.is_sorted_by(|a, b| a < b),
        }
    }

    /// One label as text; `None` beyond the last.
    pub fn label(&self, class: usize) -> Option<String> {
        match self {
            Classes::Text(labels) => labels.get(class).cloned(),
            Classes::Integer(labels) => labels.get(class).map(i64::to_string),
            Classes::Boolean(labels) => labels.get(class).map(bool::to_string),
        }
    }

    /// The Arrow type of the labels: `Utf8`, `Int64` or `Boolean`.
    pub fn data_type(&self) -> DataType {
        match self {
            Classes::Text(_) => DataType::Utf8,
            Classes::Integer(_) => DataType::Int64,
            Classes::Boolean(_) => DataType::Boolean,
        }
    }

    /// The labels of these class numbers, as an array of [`Self::data_type`]; NULL for a number that no class has.
    pub fn labels(&self, classes: impl IntoIterator<Item = usize>) -> ArrayRef {
        let classes = classes.into_iter();
        match self {
            Classes::Text(labels) => Arc::new(classes.map(|class| labels.get(class)).collect::<StringArray>()),
            Classes::Integer(labels) => Arc::new(classes.map(|class| labels.get(class).copied()).collect::<Int64Array>()),
            Classes::Boolean(labels) => Arc::new(classes.map(|class| labels.get(class).copied()).collect::<BooleanArray>()),
        }
    }

    /// Reads a target column: its classes, and each row's class number. Whole floating-point numbers count as integers.
    pub fn of_target(target: &ArrayRef) -> Result<(Self, Vec<u32>), TargetError> {
        if let Some(row) = target.logical_nulls().and_then(|nulls| (0..target.len()).find(|&row| nulls.is_null(row))) {
            return Err(TargetError::Null(row));
        }
        let data_type = target.data_type();
        let refused = |_| TargetError::Type(data_type.clone());
        let as_type = |wanted: &DataType| cast(target, wanted).map_err(refused);
        match plain_type(data_type) {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let array = as_type(&DataType::Utf8)?;
                let (labels, rows) = number(array.as_string::<i32>().iter().flatten().map(str::to_string));
                Ok((Classes::Text(labels), rows))
            }
            DataType::Boolean => {
                let array = as_type(&DataType::Boolean)?;
                let (labels, rows) = number(array.as_boolean().iter().flatten());
                Ok((Classes::Boolean(labels), rows))
            }
            // `UInt64` beyond the range of BIGINT becomes NULL in the cast, and so shows below.
            plain if plain.is_integer() => {
                let array = as_type(&DataType::Int64)?;
                if array.null_count() > 0 {
                    return Err(TargetError::Type(data_type.clone()));
                }
                let (labels, rows) = number(array.as_primitive::<Int64Type>().values().iter().copied());
                Ok((Classes::Integer(labels), rows))
            }
            plain if plain.is_floating() => {
                let array = as_type(&DataType::Float64)?;
                let values = array.as_primitive::<Float64Type>().values();
                // Beyond 2^53 two labels may have become one before they came here.
                let is_whole = |value: f64| value.trunc() == value && value.abs() <= (1u64 << 53) as f64;
                if let Some((row, &value)) = values.iter().enumerate().find(|&(_, &value)| !is_whole(value)) {
                    return Err(TargetError::Fraction { row, value });
                }
                let (labels, rows) = number(values.iter().map(|&value| value as i64));
                Ok((Classes::Integer(labels), rows))
            }
            _ => Err(TargetError::Type(data_type.clone())),
        }
    }
}

/// The type of the values, also where they are encoded in a dictionary.
pub(crate) fn plain_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        plain => plain,
    }
}

/// The distinct values in ascending order, and for each value its place among them.
fn number<T: Ord + Clone>(values: impl Iterator<Item = T>) -> (Vec<T>, Vec<u32>) {
    let values: Vec<T> = values.collect();
    let mut labels = values.clone();
    labels.sort_unstable();
    labels.dedup();
    let rows = values.iter().map(|value| labels.partition_point(|label| label < value) as u32).collect();
    (labels, rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{Date32Array, Float64Array, StringViewArray, UInt64Array};

    use super::*;

    #[test]
    fn targets_of_every_type() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["home", "away", "home"]));
        assert_eq!(Classes::of_target(&text), Ok((Classes::Text(vec!["away".into(), "home".into()]), vec![1, 0, 1])));
        let dictionary = cast(&text, &DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))).unwrap();
        assert_eq!(Classes::of_target(&dictionary), Classes::of_target(&text));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
        assert_eq!(Classes::of_target(&flags), Ok((Classes::Boolean(vec![false, true]), vec![1, 0])));
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![2.0, -0.0, 0.0]));
        assert_eq!(Classes::of_target(&numbers), Ok((Classes::Integer(vec![0, 2]), vec![1, 0, 0])));
    }

    #[test]
    fn targets_that_are_refused() {
        let refused = |target: ArrayRef| Classes::of_target(&target).unwrap_err().to_string();
        assert!(refused(Arc::new(Int64Array::from(vec![Some(1), None]))).starts_with("the target is NULL in row 1;"));
        assert!(refused(Arc::new(Float64Array::from(vec![1.0, f64::NAN]))).starts_with("the target is NaN in row 1, "));
        assert!(refused(Arc::new(Float64Array::from(vec![0.5]))).starts_with("the target is 0.5 in row 0, "));
        assert!(refused(Arc::new(Date32Array::from(vec![1]))).starts_with("the target is Date32, "));
        assert!(refused(Arc::new(UInt64Array::from(vec![u64::MAX]))).starts_with("the target is UInt64, "));
    }

    #[test]
    fn labels_come_back_in_their_type() {
        let classes = Classes::Text(vec!["a".into(), "b".into()]);
        let labels: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]));
        assert_eq!(&classes.labels([1, 0, 2]), &labels);
        assert_eq!(Classes::Boolean(vec![false, true]).label(1).as_deref(), Some("true"));
        assert!(!Classes::Integer(vec![1, 1]).is_ordered());
    }
}
