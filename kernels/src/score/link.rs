//! From margins, which are any numbers, to what a model gives out.

use super::{ModelFault, block, exp, one_nan};

/// What becomes of a row's margins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// They are the scores.
    Identity,
    /// There is one margin, z, and two classes, whose probabilities are 1 / (1 + exp(z)) and 1 / (1 + exp(-z)).
    Sigmoid,
    /// There is a margin a class; a class's probability is the exponential of its margin, divided by the sum of all. Margins that are
    /// infinite and the greatest share the whole among them.
    Softmax,
}

impl Link {
    /// How many scores come of so many margins.
    pub(super) fn outputs(self, margins: usize) -> Result<usize, ModelFault> {
        match self {
            Link::Identity => Ok(margins),
            Link::Sigmoid if margins == 1 => Ok(2),
            Link::Softmax if margins >= 2 => Ok(margins),
            Link::Sigmoid => Err(ModelFault::Whole(format!("has {margins} outputs, but a sigmoid is made of one; several classes are a softmax's"))),
            Link::Softmax => Err(ModelFault::Whole(format!("has {margins} outputs, but a softmax is made of two or more"))),
        }
    }

    /// Its number in the kernels.
    pub(super) fn number(self) -> u32 {
        match self {
            Link::Identity => 0,
            Link::Sigmoid => 1,
            Link::Softmax => 2,
        }
    }

    /// Turns the margins of a block's rows, one margin after the other, into scores, row after row.
    pub(super) fn apply(self, margins: &mut [f64], scores: &mut [f64]) {
        let count = margins.len() / block::ROWS;
        match self {
            Link::Identity => {}
            Link::Sigmoid => {
                let mut second = [0.0; block::ROWS];
                for (z, second) in margins.iter_mut().zip(&mut second) {
                    [*z, *second] = sigmoid(*z);
                }
                scores.chunks_exact_mut(2).zip(margins.iter().zip(&second)).for_each(|(row, (first, second))| row.copy_from_slice(&[*first, *second]));
                return;
            }
            Link::Softmax => softmax(margins),
        }
        for (margin, values) in margins.chunks_exact(block::ROWS).enumerate() {
            scores.iter_mut().skip(margin).step_by(count).zip(values).for_each(|(score, value)| *score = one_nan(*value));
        }
    }
}

/// The probabilities of both classes. The exponential is of a number below 0, so it is at most 1, and neither probability loses digits.
fn sigmoid(z: f64) -> [f64; 2] {
    let negative = z < 0.0;
    let e = exp(if negative { z } else { -z });
    let sum = 1.0 + e;
    let (greater, less) = (one_nan(1.0 / sum), one_nan(e / sum));
    if negative { [greater, less] } else { [less, greater] }
}

/// Of each row's margins, in place. The greatest margin is taken off first, so that no exponential overflows and one of them is 1.
fn softmax(margins: &mut [f64]) {
    let (first, others) = margins.split_at(block::ROWS);
    let mut most = [0.0; block::ROWS];
    most.copy_from_slice(first);
    for values in others.chunks_exact(block::ROWS) {
        most.iter_mut().zip(values).for_each(|(most, value)| *most = if *value > *most { *value } else { *most });
    }
    let mut sums = [0.0; block::ROWS];
    for values in margins.chunks_exact_mut(block::ROWS) {
        for ((value, most), sum) in values.iter_mut().zip(&most).zip(&mut sums) {
            // Infinity less infinity is none of our business.
            *value = exp(if *value == *most { 0.0 } else { *value - *most });
            *sum += *value;
        }
    }
    for values in margins.chunks_exact_mut(block::ROWS) {
        values.iter_mut().zip(&sums).for_each(|(value, sum)| *value /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(link: Link, row: &[f64]) -> Vec<f64> {
        let mut margins: Vec<f64> = row.iter().flat_map(|margin| [*margin; block::ROWS]).collect();
        let outputs = link.outputs(row.len()).unwrap_or_default();
        let mut scores = vec![0.5; 3 * outputs];
        link.apply(&mut margins, &mut scores);
        assert!(scores.chunks(outputs).all(|of_row| of_row.iter().zip(&scores).all(|(a, b)| a.to_bits() == b.to_bits())), "rows of one kind");
        scores.truncate(outputs);
        scores
    }

    #[test]
    fn sigmoids_everywhere() {
        for (z, expected) in
            [(0.0, [0.5, 0.5]), (-0.0, [0.5, 0.5]), (f64::INFINITY, [0.0, 1.0]), (f64::NEG_INFINITY, [1.0, 0.0]), (1e300, [0.0, 1.0]), (-745.0, [1.0, 5e-324])]
        {
            assert_eq!(applied(Link::Sigmoid, &[z]), expected, "{z}");
        }
        assert!(applied(Link::Sigmoid, &[-f64::NAN]).iter().all(|score| score.to_bits() == f64::NAN.to_bits()));
        for step in -4000..4000 {
            let z = f64::from(step) * 0.02;
            let [first, second] = applied(Link::Sigmoid, &[z])[..] else { panic!("two scores") };
            assert!((first + second - 1.0).abs() <= f64::EPSILON, "{z}");
            assert!((second - 1.0 / (1.0 + (-z).exp())).abs() <= 4.0 * f64::EPSILON * second, "{z}");
        }
    }

    #[test]
    fn softmaxes_everywhere() {
        let infinite = f64::INFINITY;
        for (row, expected) in [
            (&[3.0, 3.0][..], &[0.5, 0.5][..]),
            (&[0.0, 1e308, -1e308], &[0.0, 1.0, 0.0]),
            (&[infinite, 5.0, infinite, -infinite], &[0.5, 0.0, 0.5, 0.0]),
            (&[-infinite, -infinite], &[0.5, 0.5]),
            (&[-infinite, -1e308], &[0.0, 1.0]),
        ] {
            assert_eq!(applied(Link::Softmax, row), expected, "{row:?}");
        }
        for row in [&[f64::NAN, 1.0, infinite][..], &[1.0, -f64::NAN], &[infinite, 2.0, f64::NAN]] {
            assert!(applied(Link::Softmax, row).iter().all(|score| score.to_bits() == f64::NAN.to_bits()), "{row:?}");
        }
        for step in 0..2000 {
            let row = [f64::from(step) * 0.7 - 700.0, f64::from(step % 37), f64::from(step % 11) * -3.0];
            let scores = applied(Link::Softmax, &row);
            assert!((scores.iter().sum::<f64>() - 1.0).abs() <= 2.0 * f64::EPSILON, "{row:?}");
            let most = row.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = row.iter().map(|z| (z - most).exp()).sum();
            assert!(row.iter().zip(scores).all(|(z, score)| (score - (z - most).exp() / sum).abs() <= 8.0 * f64::EPSILON * score), "{row:?}");
        }
    }

    #[test]
    fn links_of_the_wrong_number() {
        assert!(Link::Sigmoid.outputs(2).is_err_and(|fault| fault.to_string().contains("a sigmoid is made of one")));
        assert!(Link::Softmax.outputs(1).is_err_and(|fault| fault.to_string().contains("a softmax is made of two or more")));
        assert_eq!(Link::Identity.outputs(1), Ok(1));
    }
}
