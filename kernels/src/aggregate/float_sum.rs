//! Sums of floats that don't depend on the order of adding.

/// Binary places between the greatest float's 53 bits and the lowest bit that is added.
const HEADROOM: u32 = 42;

/// A float that is none, and the infinities, among those summed.
pub(super) const NAN: u32 = 1;
pub(super) const INFINITY: u32 = 2;
pub(super) const MINUS_INFINITY: u32 = 4;

/// A finite float's biased exponent, 1 for subnormal ones; `None` for others.
pub(super) fn exponent(value: f64) -> Option<u32> {
    let exponent = (value.to_bits() >> 52) as u32 & 2047;
    (exponent != 2047).then_some(exponent.max(1))
}

/// A finite float as a multiple of the unit that goes with the greatest exponent of its group, cut toward zero.
pub(super) fn multiple(value: f64, greatest: u32) -> i128 {
    let bits = value.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let subnormal = (bits >> 52) & 2047 == 0;
    let mantissa = u128::from(if subnormal { fraction } else { fraction | 1 << 52 });
    let below = greatest - exponent(value).unwrap_or(greatest);
    let scaled = (mantissa << HEADROOM).checked_shr(below).unwrap_or(0) as i128;
    if value.is_sign_negative() { -scaled } else { scaled }
}

/// What a float that isn't finite adds.
pub(super) fn flag(value: f64) -> u32 {
    match (value.is_nan(), value > 0.0) {
        (true, _) => NAN,
        (false, true) => INFINITY,
        (false, false) => MINUS_INFINITY,
    }
}

/// The sum: so many units, rounded to the nearest float.
pub(super) fn sum(units: i128, greatest: u32, flags: u32) -> f64 {
    match flags {
        0 => {}
        INFINITY => return f64::INFINITY,
        MINUS_INFINITY => return f64::NEG_INFINITY,
        _ => return f64::NAN,
    }
    let unit = greatest as i32 - HEADROOM as i32 - 1075;
    let magnitude = units.unsigned_abs();
    let bits = 128 - magnitude.leading_zeros() as i32;
    // How many low bits go: so that 53 stay, and none below the least subnormal number.
    let cut = (bits - 53).max(-1074 - unit).max(0);
    let kept = magnitude.checked_shr(cut as u32).unwrap_or(0);
    let rest = magnitude - kept.checked_shl(cut as u32).unwrap_or(0);
    let half = if cut > 0 { 1u128.checked_shl(cut as u32 - 1).unwrap_or(u128::MAX) } else { u128::MAX };
    let rounded = kept + u128::from(rest > half || (rest == half && kept & 1 == 1));
    // At most 2^53, and the product is a float or beyond all: nothing is rounded any more.
    let result = rounded as f64 * power_of_two(unit + cut);
    if units < 0 { -result } else { result }
}

/// 2^exponent, from the least subnormal number up; infinity above all floats.
fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        ..-1074 => 0.0,
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        -1022..=1023 => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(values: &[f64]) -> f64 {
        let greatest = values.iter().filter_map(|&value| exponent(value)).max().unwrap_or(0);
        let flags = values.iter().filter(|value| !value.is_finite()).fold(0, |flags, &value| flags | flag(value));
        sum(values.iter().filter(|value| value.is_finite()).map(|&value| multiple(value, greatest)).sum(), greatest, flags)
    }

    #[test]
    fn single_floats_are_their_own_sum() {
        for bits in (0..2000u64).map(|k| k.wrapping_mul(0x9e37_79b9_7f4a_7c15)).chain([0, 1, 1 << 52, (1 << 52) - 1, f64::MAX.to_bits(), f64::MIN.to_bits()]) {
            let value = f64::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(total(&[value]), value, "{value:e}");
            }
        }
    }

    #[test]
    fn sums() {
        assert_eq!(total(&[0.1; 10]), 1.0, "exact before it is rounded");
        assert_eq!(total(&[1e16, 1.0, -1e16]), 1.0);
        assert_eq!(total(&[5e-324, 5e-324]), 1e-323);
        assert_eq!(total(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(total(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(total(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(total(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan() && total(&[f64::NAN]).is_nan());
        assert_eq!(total(&[-0.0, -0.0]).to_bits(), 0);
        assert_eq!(total(&[1.0, f64::EPSILON / 2.0]), 1.0, "half a place, to the even one");
        assert_eq!(total(&[1.0, f64::EPSILON / 2.0, 1e-30]), 1.0, "what is too small beside the greatest is cut");
        assert_eq!(total(&[1.0, f64::EPSILON / 2.0, 1e-28]), 1.0 + f64::EPSILON);
        assert_eq!(total(&[2.2250738585072014e-308, -5e-324]), 2.225073858507201e-308);
    }
}
