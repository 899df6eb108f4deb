//! The exponential that CPU and device share: additions and products, each rounded once, in one order.
//!
//! The way is the usual one (W. J. Cody and W. Waite, *Software Manual for the Elementary Functions*, 1980; as in fdlibm's `e_exp.c`):
//! x = k ln 2 + r with a whole k and |r| ≤ ln 2 / 2, and exp(x) = 2^k exp(r). ln 2 is taken in two parts, the first with so many zeros at
//! its end that its product with k is exact. For exp(r) we add up the power series, which needs no division, up to r^13 / 13!; what is left
//! out is less than 2^-57. The two greatest terms, 1 and r, come last, and r in its two parts, so that the error stays below 1 ulp.
//!
//! `cuda/score.cu` has the same operations in the same order. Nothing here may be contracted to a fused multiply-add.

/// Below this nothing is left of the result, above the other it is infinite.
const LEAST: f64 = -746.0;
const GREATEST: f64 = 710.0;

/// 1 / ln 2.
const PER_LN2: f64 = std::f64::consts::LOG2_E;
/// The first 32 bits of ln 2, and what follows.
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);

/// 1.5 times 2^52: a number of less than 51 bits that is added to it loses its fraction, and its whole part is in the sum's lowest bits.
const SHIFT: f64 = 6_755_399_441_055_744.0;

/// e to the power of `x`, to less than 1 ulp; 0 and infinity where the result is rounded to them. NaN gives NaN.
pub fn exp(x: f64) -> f64 {
    // Comparisons that NaN fails: it goes through.
    let within = if x < LEAST { LEAST } else { x };
    let within = if within > GREATEST { GREATEST } else { within };
    let shifted = within * PER_LN2 + SHIFT;
    let k = shifted - SHIFT;
    let high = within - k * LN2_HIGH;
    let low = k * LN2_LOW;
    let r = high - low;
    // (exp(r) - 1 - r) / r^2. (A loop over the coefficients would be the same, but is not always unrolled, and then not vectorised.)
    let rest = 1.0 / 6_227_020_800.0;
    let rest = 1.0 / 479_001_600.0 + r * rest;
    let rest = 1.0 / 39_916_800.0 + r * rest;
    let rest = 1.0 / 3_628_800.0 + r * rest;
    let rest = 1.0 / 362_880.0 + r * rest;
    let rest = 1.0 / 40_320.0 + r * rest;
    let rest = 1.0 / 5_040.0 + r * rest;
    let rest = 1.0 / 720.0 + r * rest;
    let rest = 1.0 / 120.0 + r * rest;
    let rest = 1.0 / 24.0 + r * rest;
    let rest = 1.0 / 6.0 + r * rest;
    let rest = 0.5 + r * rest;
    let power = 1.0 + (high - (low - (r * r) * rest));
    // 2^k in two factors, since k goes beyond what one can hold. The first product is exact, so a subnormal result is rounded once more
    // only. (For NaN k is anything.)
    let whole = shifted.to_bits() as i32;
    let half = whole >> 1;
    let factor = |exponent: u32| f64::from_bits(u64::from(exponent.wrapping_add(1023)) << 52);
    power * factor(half as u32) * factor((whole as u32).wrapping_sub(half as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in representable numbers.
    fn ulps(a: f64, b: f64) -> u64 {
        (a.to_bits() as i64).abs_diff(b.to_bits() as i64)
    }

    #[test]
    fn exponentials_are_within_an_ulp() {
        // Evenly over all results, subnormal ones included; and densely where softmax and sigmoid are used most.
        for (from, to, steps) in [(-745.2, 709.9, 400_000), (-40.0, 40.0, 400_000), (-1.0, 1.0, 200_000), (-745.14, -708.0, 100_000)] {
            for step in 0..=steps {
                let x = from + (to - from) * f64::from(step) / f64::from(steps);
                assert!(ulps(exp(x), x.exp()) <= 1, "exp({x:?}) is {:?}, not {:?}", exp(x), x.exp());
            }
        }
        // Around every half of ln 2, where k changes.
        for k in -2150..2050 {
            let middle = f64::from(k) * 0.5 * std::f64::consts::LN_2;
            let mut x = middle - 4.0 * f64::EPSILON * middle.abs();
            for _ in 0..16 {
                assert!(ulps(exp(x), x.exp()) <= 1, "exp({x:?})");
                x = x.next_up();
            }
        }
    }

    #[test]
    fn exponentials_at_the_ends() {
        // The last whose result is finite, the last that is not 0: Goldberg's thresholds, as fdlibm has them.
        let (finite, not_zero) = (709.782_712_893_384, -745.133_219_101_941_1);
        assert!(exp(finite).is_finite() && exp(finite.next_up()) == f64::INFINITY);
        assert!(exp(not_zero) == 5e-324 && exp(not_zero.next_down()).to_bits() == 0);
        for x in [710.0, 711.0, 1e10, f64::MAX, f64::INFINITY] {
            assert_eq!(exp(x), f64::INFINITY);
        }
        for x in [-745.2, -746.0, -747.0, -1e10, f64::MIN, f64::NEG_INFINITY] {
            assert_eq!(exp(x).to_bits(), 0);
        }
        for x in [0.0, -0.0, 5e-324, -5e-324, 1e-17, -1e-17] {
            assert_eq!(exp(x), 1.0);
        }
        assert!(exp(f64::NAN).is_nan() && exp(-f64::NAN).is_nan() && exp(f64::from_bits(0x7ff0_0000_0000_0001)).is_nan());
        assert!(exp(f64::from_bits(u64::MAX)).is_nan());
    }
}
