//! The scalar functions as DataFusion sees them: names, types, and arguments read once into [`Windows`].

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Result, ScalarValue, internal_err, plan_err},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

use super::{
    Bound, CUMULATE_ENDS, CUMULATE_START, HOP_ENDS, HOP_START, Role, WINDOW_END, WINDOW_START, Windows, bounds::bounds, coerced, length_ns, lists, unit_ns,
};

/// One kind of [`Windows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Tumble,
    Hop,
    Cumulate,
}

impl Shape {
    /// The windows of these lengths, read by `length(what, position)`: size, slide or step, and an offset if `count` says there is one.
    pub(super) fn windows(self, count: usize, length: impl Fn(&str, usize) -> Result<i64>) -> Result<Windows> {
        let offset = |position| if position < count { length("offset", position) } else { Ok(0) };
        let windows = match self {
            Self::Tumble => Windows::tumble(length("size", 0)?, offset(1)?),
            Self::Hop => Windows::hop(length("size", 0)?, length("slide", 1)?, offset(2)?),
            Self::Cumulate => Windows::cumulate(length("size", 0)?, length("step", 1)?, offset(2)?),
        };
        Ok(windows?)
    }

    /// How many lengths it takes without an offset.
    fn lengths(self) -> usize {
        match self {
            Self::Tumble => 1,
            Self::Hop | Self::Cumulate => 2,
        }
    }

    fn lengths_in_words(self) -> &'static str {
        match self {
            Self::Tumble => "a size",
            Self::Hop => "a size, a slide",
            Self::Cumulate => "a size, a step",
        }
    }
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct WindowFunction {
    /// What it gives.
    pub(super) role: Role,
    /// Of which windows.
    pub(super) shape: Shape,
    name: &'static str,
    signature: Signature,
}

impl WindowFunction {
    pub(super) fn all() -> Vec<Self> {
        [
            (WINDOW_START, Role::Start, Shape::Tumble),
            (WINDOW_END, Role::End, Shape::Tumble),
            (HOP_ENDS, Role::Ends, Shape::Hop),
            (HOP_START, Role::StartOfEnd, Shape::Hop),
            (CUMULATE_ENDS, Role::Ends, Shape::Cumulate),
            (CUMULATE_START, Role::StartOfEnd, Shape::Cumulate),
        ]
        .map(|(name, role, shape)| Self { role, shape, name, signature: Signature::user_defined(Volatility::Immutable) })
        .into()
    }

    /// The windows, with lengths in the unit of the column of times.
    fn read(&self, time: &DataType, constants: &[Option<&ScalarValue>]) -> Result<Windows> {
        let Some(unit) = unit_ns(time) else { return plan_err!("a window is over a TIMESTAMP or DATE column, not over {time}") };
        let windows = self.shape.windows(constants.len(), |what, position| length_ns(what, constants.get(position).copied().flatten()))?;
        match windows.in_unit(unit) {
            Some(windows) => Ok(windows),
            None => plan_err!("a window's lengths have no whole number of steps in {time}: cast the column to a finer type, or write whole seconds or days"),
        }
    }

    fn result_type(&self, time: &DataType) -> DataType {
        match self.role {
            Role::Ends => DataType::new_list(time.clone(), true),
            Role::Start | Role::End | Role::StartOfEnd => time.clone(),
        }
    }
}

impl ScalarUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let least = 1 + self.shape.lengths();
        if !(least..=least + 1).contains(&types.len()) {
            return plan_err!("{} takes a timestamp, {} and perhaps an offset, not {} arguments", self.name, self.shape.lengths_in_words(), types.len());
        }
        coerced(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(time) => Ok(self.result_type(time)),
            None => internal_err!("{} without arguments", self.name),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let Some(time) = args.arg_fields.first() else { return internal_err!("{} without arguments", self.name) };
        // Judged here, at planning, so that a bad size is refused before a row is read.
        self.read(time.data_type(), args.scalar_arguments.get(1..).unwrap_or_default())?;
        Ok(Arc::new(Field::new(self.name, self.result_type(time.data_type()), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((time, constants)) = args.args.split_first() else { return internal_err!("{} without arguments", self.name) };
        let constants: Vec<_> = constants.iter().map(|c| if let ColumnarValue::Scalar(s) = c { Some(s) } else { None }).collect();
        let windows = self.read(&time.data_type(), &constants)?;
        let times = match time {
            ColumnarValue::Array(times) => times.clone(),
            ColumnarValue::Scalar(time) => time.to_array()?,
        };
        let result = match self.role {
            Role::Start => bounds(&times, windows, Bound::Start)?,
            Role::End => bounds(&times, windows, Bound::End)?,
            Role::Ends => lists::ends(&times, windows)?,
            Role::StartOfEnd => lists::starts(&times, windows)?,
        };
        match time {
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(result)),
            ColumnarValue::Scalar(_) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
        }
    }
}
