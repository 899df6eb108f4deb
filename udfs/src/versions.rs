//! `__valid_at(time, valid_from, valid_to, deleted)`: whether a version of a row is the one that was valid at a time.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, BooleanArray},
        compute::cast,
        datatypes::{DataType, Int64Type, TimeUnit},
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// The function's name: what `FOR SYSTEM_TIME AS OF` becomes.
pub const VALID_AT: &str = "__valid_at";

/// The function. It is false, and not NULL, where the time or the start is NULL; a NULL end is none.
pub fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(ValidAt { signature: Signature::any(4, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ValidAt {
    signature: Signature,
}

impl ScalarUDFImpl for ValidAt {
    fn name(&self) -> &str {
        VALID_AT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let time = |at: usize| -> Result<_> {
            let times = cast(&arrays[at], &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
            Ok(cast(&times, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let (times, from, to) = (time(0)?, time(1)?, time(2)?);
        let deleted = cast(&arrays[3], &DataType::Boolean)?;
        let deleted = deleted.as_boolean();
        let valid = |row: usize| {
            times.is_valid(row)
                && from.is_valid(row)
                && !(deleted.is_valid(row) && deleted.value(row))
                && from.value(row) <= times.value(row)
                && (to.is_null(row) || times.value(row) < to.value(row))
        };
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from_iter((0..times.len()).map(|row| Some(valid(row)))))))
    }
}
