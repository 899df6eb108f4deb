//! Values bound to a statement's parameters, as a client uploads them: one column a parameter, one row an execution.

use std::{mem::size_of, sync::Arc};

use arrow::{
    array::RecordBatch,
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Schema, SchemaRef},
};
use arrow_flight::FlightData;
use datafusion::scalar::ScalarValue;
use futures::{Stream, TryStreamExt};
use tonic::Status;

use super::{
    extent::extent,
    kept::{Keeper, Kept},
    status::{invalid, status, status_of},
    uploads::{Batches, unreadable},
};
use crate::error::{Error, Result};

/// The most bytes of values that one statement takes, each with what it takes to keep it.
const MAX_BYTES: usize = 256 << 20;

/// The values of one statement's executions.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// Per execution, the value of each parameter.
    pub rows: Arc<Vec<Vec<ScalarValue>>>,
    /// Some values have a type that the plan did not say: the result's schema depends on them.
    pub types_differ: bool,
    /// Counts them for as long as they are there.
    _kept: Option<Arc<Kept>>,
}

impl Bound {
    /// No parameters: one execution.
    pub fn none() -> Self {
        Self { rows: Arc::new(vec![vec![]]), types_differ: false, _kept: None }
    }

    /// The same, counted among what is kept for clients.
    pub fn kept(self, keeper: &Keeper) -> Result<Self, Status> {
        let row_bytes = |row: &Vec<ScalarValue>| size_of::<Vec<ScalarValue>>() + row.iter().map(ScalarValue::size).sum::<usize>();
        let bytes = self.rows.iter().map(row_bytes).sum();
        Ok(Self { _kept: Some(Arc::new(keeper.keep(bytes)?)), ..self })
    }
}

/// Reads the batches of an upload. A stream that holds no column gives `None`: nothing is bound by it.
pub(crate) async fn read<S>(messages: S) -> Result<Option<Vec<RecordBatch>>, Status>
where
    S: Stream<Item = Result<FlightData, Status>> + Send + 'static,
{
    let mut batches = Batches::new(messages, MAX_BYTES);
    let mut read = vec![];
    let mut bytes = 0u64;
    while let Some(batch) =
        batches.try_next().await.map_err(|error| status(unreadable(&error, |error| format!("the uploaded values can't be read: {error}"))))?
    {
        // Not the memory that they take: all columns of a message share one buffer.
        let values = (batch.num_rows() as u64).saturating_mul(batch.num_columns() as u64);
        bytes = bytes.saturating_add(values.saturating_mul(size_of::<ScalarValue>() as u64));
        for column in batch.columns() {
            bytes = bytes.saturating_add(extent(column, MAX_BYTES as u64));
        }
        if bytes > MAX_BYTES as u64 {
            return Err(Status::resource_exhausted(format!("more than {} MiB of parameter values: send fewer rows a statement", MAX_BYTES >> 20)));
        }
        read.push(batch);
    }
    // JDBC uploads a batch without columns when there is nothing to bind.
    let columns = batches.schema().map_or(0, |schema| schema.fields().len());
    Ok((columns > 0).then_some(read))
}

/// Fits uploaded batches to a statement's parameters, by position: clients name the columns as they like.
pub(crate) fn bind(batches: &[RecordBatch], parameters: &Schema) -> Result<Bound, Status> {
    let (mut rows, mut types_differ) = (vec![], false);
    for batch in batches {
        if batch.num_columns() != parameters.fields().len() {
            return Err(invalid(format!("the statement has {} parameters, but {} values are bound", parameters.fields().len(), batch.num_columns())));
        }
        let columns = batch.columns().iter().zip(parameters.fields()).enumerate().map(|(at, (column, parameter))| {
            let (bound_type, wanted) = (column.data_type(), parameter.data_type());
            if bound_type == wanted {
                return Ok(column.clone());
            }
            // The plan does not say the type: the value decides it, and so perhaps the result's schema.
            if *wanted == DataType::Null {
                types_differ = true;
                return Ok(column.clone());
            }
            cast_with_options(column, wanted, &CastOptions { safe: false, ..Default::default() })
                .map_err(|error| invalid(format!("parameter {} is {wanted}, the bound {bound_type} is not: {error}", at + 1)))
        });
        let columns = columns.collect::<Result<Vec<_>, Status>>()?;
        for row in 0..batch.num_rows() {
            let values = columns.iter().map(|column| ScalarValue::try_from_array(column, row)).collect::<Result<Vec<_>, _>>();
            rows.push(values.map_err(|error| status_of(Error::from(error)))?);
        }
    }
    Ok(Bound { rows: Arc::new(rows), types_differ, _kept: None })
}

/// The parameters as a client is told of them: all nullable (JDBC can't set NULL otherwise), and text where the plan says no type.
pub(crate) fn told(parameters: &Schema) -> SchemaRef {
    let fields = super::wire::wire_schema(parameters);
    let told = fields.fields().iter().map(|field| {
        let data_type = if field.data_type() == &DataType::Null { DataType::Utf8 } else { field.data_type().clone() };
        field.as_ref().clone().with_data_type(data_type).with_nullable(true)
    });
    Arc::new(Schema::new(told.collect::<Vec<_>>()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int32Array, Int64Array, StringArray},
        datatypes::Field,
    };

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(at, column)| (at.to_string(), column))).unwrap()
    }

    fn schema(types: &[DataType]) -> Schema {
        Schema::new(types.iter().enumerate().map(|(at, data_type)| Field::new(format!("${}", at + 1), data_type.clone(), true)).collect::<Vec<_>>())
    }

    #[test]
    fn values_take_the_declared_type() {
        let bound = bind(&[batch(vec![Arc::new(Int32Array::from(vec![Some(1), None]))])], &schema(&[DataType::Int64])).unwrap();
        assert_eq!(*bound.rows, vec![vec![ScalarValue::Int64(Some(1))], vec![ScalarValue::Int64(None)]]);
        assert!(!bound.types_differ);
    }

    #[test]
    fn an_untyped_parameter_takes_the_value_s_type() {
        let bound = bind(&[batch(vec![Arc::new(Int64Array::from(vec![7]))])], &schema(&[DataType::Null])).unwrap();
        assert_eq!(*bound.rows, vec![vec![ScalarValue::Int64(Some(7))]]);
        assert!(bound.types_differ);
    }

    #[test]
    fn bad_values_are_sentences() {
        let text = batch(vec![Arc::new(StringArray::from(vec!["x"]))]);
        let error = bind(std::slice::from_ref(&text), &schema(&[DataType::Int64])).unwrap_err();
        assert!(error.message().contains("parameter 1"), "{error}");
        let error = bind(&[text], &schema(&[DataType::Int64, DataType::Int64])).unwrap_err();
        assert_eq!(error.message(), "the statement has 2 parameters, but 1 values are bound");
    }
}
