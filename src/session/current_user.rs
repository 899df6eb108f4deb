//! `current_user`: who runs a query. In a plain view, whoever reads the view.

use arrow::datatypes::DataType;
use datafusion::{
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CurrentUser {
    signature: Signature,
    name: Option<String>,
}

impl CurrentUser {
    /// What it is called.
    pub const NAME: &str = "current_user";

    /// It gives this name; NULL where there are no users.
    pub fn new(name: Option<&str>) -> Self {
        Self { signature: Signature::nullary(Volatility::Stable), name: name.map(String::from) }
    }
}

impl ScalarUDFImpl for CurrentUser {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(self.name.clone())))
    }
}
