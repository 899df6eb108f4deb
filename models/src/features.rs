//! Arrow columns become numbers. NULL and NaN are both *missing*, and are NaN from here on.

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array},
    compute::cast,
    datatypes::{DataType, Float64Type},
};

use crate::classes::plain_type;

/// Feature columns of equal length, as `f64`. Integers and decimals beyond 2^53 round to the nearest `f64`; booleans are 0 and 1.
#[derive(Debug, Clone)]
pub struct Features {
    columns: Vec<Float64Array>,
    rows: usize,
}

/// Why columns can't be features.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// More or fewer columns than features.
    #[error("{found} columns are given for {expected} features ({names})")]
    Count {
        /// How many the model has.
        expected: usize,
        /// How many came.
        found: usize,
        /// The features' names.
        names: String,
    },
    /// A type that is no number.
    #[error("feature '{feature}' is {data_type}, not a number or BOOLEAN; turn it into numbers, for instance with CASE WHEN … THEN 1 ELSE 0 END")]
    Type {
        /// The feature.
        feature: String,
        /// Its type.
        data_type: DataType,
    },
    /// Columns of different length.
    #[error("feature '{feature}' has {found} rows where the others have {expected}")]
    Rows {
        /// The first feature that differs from the first one.
        feature: String,
        /// How many rows the first feature has.
        expected: usize,
        /// How many this one has.
        found: usize,
    },
    /// A batch without one of the model's features.
    #[error("the model's feature '{feature}' is not among the columns ({columns})")]
    Absent {
        /// The feature.
        feature: String,
        /// The columns there are.
        columns: String,
    },
}

impl Features {
    /// Reads columns, one per name, in the names' order.
    pub fn of_columns(names: &[String], columns: &[ArrayRef]) -> Result<Self, FeatureError> {
        if names.len() != columns.len() {
            return Err(FeatureError::Count { expected: names.len(), found: columns.len(), names: names.join(", ") });
        }
        let rows = columns.first().map_or(0, |column| column.len());
        let as_numbers = |(name, column): (&String, &ArrayRef)| {
            if column.len() != rows {
                return Err(FeatureError::Rows { feature: name.clone(), expected: rows, found: column.len() });
            }
            let refused = || FeatureError::Type { feature: name.clone(), data_type: column.data_type().clone() };
            let plain = plain_type(column.data_type());
            if !plain.is_numeric() && !matches!(plain, DataType::Boolean | DataType::Null) {
                return Err(refused());
            }
            let numbers = cast(column, &DataType::Float64).map_err(|_| refused())?;
            Ok(numbers.as_primitive::<Float64Type>().clone())
        };
        let columns = names.iter().zip(columns).map(as_numbers).collect::<Result<_, _>>()?;
        Ok(Self { columns, rows })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many features there are.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// One feature's values in row order; NaN where missing.
    pub fn column(&self, feature: usize) -> impl Iterator<Item = f64> + '_ {
        self.columns[feature].iter().map(|value| value.unwrap_or(f64::NAN))
    }

    /// Writes the rows from `first` on into `block`, row after row, as many as fit.
    pub(crate) fn copy_rows(&self, first: usize, block: &mut [f64]) {
        let width = self.columns.len();
        for (feature, column) in self.columns.iter().enumerate() {
            let cells = block.iter_mut().skip(feature).step_by(width);
            let values = column.values()[first..].iter();
            match column.nulls() {
                None => cells.zip(values).for_each(|(cell, &value)| *cell = value),
                Some(nulls) => {
                    cells.zip(values).enumerate().for_each(|(row, (cell, &value))| *cell = if nulls.is_null(first + row) { f64::NAN } else { value })
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Decimal128Array, Int32Array, NullArray, StringArray};

    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("f{i}")).collect()
    }

    #[test]
    fn numbers_of_every_kind() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![Some(7), None])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(Decimal128Array::from(vec![125, -50]).with_precision_and_scale(5, 2).unwrap()),
            Arc::new(NullArray::new(2)),
        ];
        let features = Features::of_columns(&names(4), &columns).unwrap();
        let mut block = [0.0; 8];
        features.copy_rows(0, &mut block);
        assert_eq!(format!("{block:?}"), "[7.0, 1.0, 1.25, NaN, NaN, 0.0, -0.5, NaN]");
        let mut last = [0.0; 4];
        features.copy_rows(1, &mut last);
        assert_eq!(format!("{last:?}"), "[NaN, 0.0, -0.5, NaN]");
        assert_eq!(features.column(0).map(f64::to_bits).collect::<Vec<_>>(), [7f64.to_bits(), f64::NAN.to_bits()]);
    }

    #[test]
    fn columns_that_are_refused() {
        let number: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let short: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let refused = |columns: &[&ArrayRef]| {
            let columns: Vec<ArrayRef> = columns.iter().map(|&column| column.clone()).collect();
            Features::of_columns(&names(2), &columns).unwrap_err().to_string()
        };
        assert_eq!(refused(&[&number]), "1 columns are given for 2 features (f0, f1)");
        assert_eq!(refused(&[&number, &short]), "feature 'f1' has 1 rows where the others have 2");
        assert!(refused(&[&number, &text]).starts_with("feature 'f1' is Utf8, not a number or BOOLEAN;"));
    }
}
