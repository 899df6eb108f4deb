//! Linear and logistic models: a row's margin is the sum of its values times a margin's coefficients, added up in the order of the
//! features from 0.0, and then the intercept. A link makes scores of the margins: identity for linear regression, sigmoid for logistic
//! regression with two classes, softmax for a multinomial one.
//!
//! A value is first filled in if it is missing and the model has something for its feature; then the feature's centre is taken off it,
//! and it is divided by the feature's scale. So a model that was trained on standardised values takes plain ones. A value that stays
//! missing makes all scores of its row NaN, whatever its coefficient; so does an infinite one times 0.

use super::{
    Link, Model, ModelFault,
    block::{self, Block, ROWS},
    check_finite, check_size,
    device::{OnDevice, Resources},
};
use crate::{
    device::{Arg, DeviceError, Gpu, Kernel},
    plain::bytes,
};

/// Rows whose sums are in registers at once.
const TOGETHER: usize = 16;

/// What a linear model is made of.
#[derive(Debug, Clone, Copy)]
pub struct LinearForm<'a> {
    /// One a feature, margin after margin.
    pub coefficients: &'a [f64],
    /// One a margin.
    pub intercepts: &'a [f64],
    /// What becomes of the margins.
    pub link: Link,
    /// For each feature what stands in for a missing value, NaN where nothing does; or empty.
    pub fill: &'a [f64],
    /// For each feature what is taken off its values; or empty.
    pub centre: &'a [f64],
    /// For each feature what its values are divided by then, not 0; or empty.
    pub scale: &'a [f64],
}

/// A linear model whose arrays fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    width: usize,
    outputs: usize,
    /// One a margin, feature after feature.
    coefficients: Vec<f64>,
    intercepts: Vec<f64>,
    link: Link,
    fill: Vec<f64>,
    centre: Vec<f64>,
    scale: Vec<f64>,
}

impl Linear {
    /// Checks a model over `width` features. There is a margin for each of the intercepts.
    pub fn new(width: usize, form: &LinearForm<'_>) -> Result<Self, ModelFault> {
        let margins = form.intercepts.len();
        check_size(width, margins)?;
        let outputs = form.link.outputs(margins)?;
        let fault = |fault: String| Err(ModelFault::Whole(fault));
        if form.coefficients.len() != width * margins {
            return fault(format!("has {} coefficients for {width} features and {margins} outputs", form.coefficients.len()));
        }
        for (what, numbers) in [("fill", form.fill), ("centre", form.centre), ("scale", form.scale)] {
            if !numbers.is_empty() && numbers.len() != width {
                return fault(format!("has {} numbers to {what} its {width} features", numbers.len()));
            }
        }
        let named = |what, numbers| check_finite(what, numbers).map_err(|fault| ModelFault::Whole(format!("has a number that can't be: {fault}")));
        named("coefficient", form.coefficients)?;
        named("intercept", form.intercepts)?;
        named("centre", form.centre)?;
        named("scale", form.scale)?;
        if let Some(feature) = form.fill.iter().position(|fill| fill.is_infinite()) {
            return fault(format!("fills feature {feature} with {}", form.fill[feature]));
        }
        if let Some(feature) = form.scale.iter().position(|scale| *scale == 0.0) {
            return fault(format!("divides feature {feature} by 0; a feature of one value is divided by 1"));
        }
        Ok(Self {
            width,
            outputs,
            coefficients: (0..width * margins).map(|place| form.coefficients[place % margins * width + place / margins]).collect(),
            intercepts: form.intercepts.to_vec(),
            link: form.link,
            fill: form.fill.to_vec(),
            centre: form.centre.to_vec(),
            scale: form.scale.to_vec(),
        })
    }

    /// One margin of the first rows of these columns.
    fn margins(&self, margin: usize, cells: &[f64]) -> [f64; TOGETHER] {
        let mut sums = [0.0; TOGETHER];
        let coefficients = self.coefficients[margin..].iter().step_by(self.intercepts.len());
        for (cells, coefficient) in cells.chunks(ROWS).zip(coefficients) {
            sums.iter_mut().zip(&cells[..TOGETHER]).for_each(|(sum, cell)| *sum += coefficient * cell);
        }
        sums.map(|sum| sum + self.intercepts[margin])
    }

    /// Makes the model's inputs of plain values.
    fn prepare(&self, block: &mut Block) {
        fn each(block: &mut Block, with: &[f64], change: impl Fn(f64, f64) -> f64) {
            for (cells, with) in block.cells_mut().chunks_exact_mut(ROWS).zip(with) {
                cells.iter_mut().for_each(|cell| *cell = change(*cell, *with));
            }
        }
        each(block, &self.fill, |value, fill| if value.is_nan() { fill } else { value });
        each(block, &self.centre, |value, centre| value - centre);
        each(block, &self.scale, |value, scale| value / scale);
    }
}

impl Model for Linear {
    fn width(&self) -> usize {
        self.width
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn score(&self, columns: &[&[f64]]) -> Vec<f64> {
        let mut margins = vec![0.0; self.intercepts.len() * ROWS];
        block::score_in_blocks(columns, self.width, self.outputs, |block, scores| {
            self.prepare(block);
            for (margin, values) in margins.chunks_exact_mut(ROWS).enumerate() {
                for (part, values) in values.chunks_exact_mut(TOGETHER).enumerate() {
                    values.copy_from_slice(&self.margins(margin, &block.cells()[part * TOGETHER..]));
                }
            }
            self.link.apply(&mut margins, scores);
        })
    }
}

impl OnDevice for Linear {
    fn upload(&self, gpu: &Gpu) -> Result<Resources, DeviceError> {
        let numbers = |numbers: &[f64]| Ok(Arg::Resident(gpu.upload(bytes(numbers).to_vec())?));
        let perhaps = |each: &[f64]| if each.is_empty() { Ok(Arg::Null) } else { numbers(each) };
        let args = vec![
            numbers(&self.coefficients)?,
            numbers(&self.intercepts)?,
            perhaps(&self.fill)?,
            perhaps(&self.centre)?,
            perhaps(&self.scale)?,
            Arg::U32(self.intercepts.len() as u32),
            Arg::U32(self.link.number()),
        ];
        Ok(Resources { kernel: Kernel::LinearScore, args, stages: false })
    }
}
