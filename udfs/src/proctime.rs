//! `proctime()`: when a row is processed.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{Result, ScalarValue, internal_err},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

/// The function's name.
pub const PROCTIME: &str = "proctime";

/// Its type: UTC, without a zone, as the columns of sources are.
pub const TYPE: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

/// `proctime()`. A batch processes all of its rows at one moment, which is `now()`; a stream knows better and puts something else in
/// its place.
pub fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(ProcTime { signature: Signature::nullary(Volatility::Stable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ProcTime {
    signature: Signature,
}

impl ScalarUDFImpl for ProcTime {
    fn name(&self) -> &str {
        PROCTIME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(TYPE)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match info.query_execution_start_time() {
            Some(start) => Ok(ExprSimplifyResult::Simplified(Expr::Literal(ScalarValue::TimestampNanosecond(start.timestamp_nanos_opt(), None), None))),
            None => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{PROCTIME}() was left in a plan without the moment of its query")
    }
}
