//! The double nearest to a decimal, by the method of Eisel and Lemire (Lemire, "Number Parsing at a Gigabyte per Second", 2021), and the
//! table of powers of five that it takes. The kernel has the same code; this is its reference, held against the standard library's parser.

use std::sync::LazyLock;

pub(super) const SMALLEST_POWER: i32 = -342;
pub(super) const LARGEST_POWER: i32 = 308;

/// For each power of five the 128 highest bits of it, high word first. They are cut; from -27 to -1 they are one more than cut, as the
/// method's proof wants it.
pub(super) static POWERS: LazyLock<Vec<[u64; 2]>> = LazyLock::new(|| (SMALLEST_POWER..=LARGEST_POWER).map(power_of_five).collect());

/// A natural number in 32-bit digits, lowest first.
struct Natural(Vec<u32>);

impl Natural {
    fn power_of_two(exponent: usize) -> Self {
        let mut digits = vec![0; exponent / 32 + 1];
        digits[exponent / 32] = 1 << (exponent % 32);
        Self(digits)
    }

    fn times_five(&mut self) {
        let mut carry = 0;
        for digit in &mut self.0 {
            let product = u64::from(*digit) * 5 + carry;
            *digit = product as u32;
            carry = product >> 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn by_five(&mut self) {
        let mut rest = 0;
        for digit in self.0.iter_mut().rev() {
            let part = rest << 32 | u64::from(*digit);
            *digit = (part / 5) as u32;
            rest = part % 5;
        }
    }

    fn bits(&self) -> usize {
        self.0.iter().rposition(|&digit| digit != 0).map_or(0, |at| at * 32 + 32 - self.0[at].leading_zeros() as usize)
    }

    /// The 128 highest bits, cut, or filled up with zeros.
    fn highest(&self) -> u128 {
        let bits = self.bits();
        (0..128).fold(0, |high, k| high << 1 | u128::from(bits > k && self.0[(bits - 1 - k) / 32] >> ((bits - 1 - k) % 32) & 1 == 1))
    }
}

fn power_of_five(power: i32) -> [u64; 2] {
    let high = if power >= 0 {
        let mut five = Natural(vec![1]);
        (0..power).for_each(|_| five.times_five());
        five.highest()
    } else {
        let mut five = Natural(vec![1]);
        (0..-power).for_each(|_| five.times_five());
        // 2^bits is the least power of two above 5^-power, so the quotient has 128 bits.
        let mut quotient = Natural::power_of_two(five.bits() + 127);
        (0..-power).for_each(|_| quotient.by_five());
        quotient.highest() + u128::from(power >= -27)
    };
    [(high >> 64) as u64, high as u64]
}

/// The bits of the double nearest to `digits * 10^power`; `None` if the method can't tell, or if it lies beyond all doubles.
pub(super) fn nearest(digits: u64, power: i32) -> Option<u64> {
    if digits == 0 || power < SMALLEST_POWER {
        return Some(0);
    }
    if power > LARGEST_POWER {
        return None;
    }
    let zeros = digits.leading_zeros();
    let normal = digits << zeros;
    let five = POWERS[(power - SMALLEST_POWER) as usize];
    let product = |factor: u64| u128::from(normal) * u128::from(factor);
    let mut whole = product(five[0]);
    if (whole >> 64) & 0x1ff == 0x1ff {
        whole = whole.wrapping_add(product(five[1]) >> 64);
    }
    let (low, high) = (whole as u64, (whole >> 64) as u64);
    if low == u64::MAX && !(-27..=55).contains(&power) {
        return None;
    }
    let upper = (high >> 63) as i32;
    let mut mantissa = high >> (upper + 9);
    let mut exponent = ((217_706 * power) >> 16) + 63 + upper - zeros as i32 + 1023;
    let round = |mantissa: u64| (mantissa + (mantissa & 1)) >> 1;
    if exponent <= 0 {
        return Some(if 1 - exponent >= 64 { 0 } else { round(mantissa >> (1 - exponent)) });
    }
    if low <= 1 && (-4..=23).contains(&power) && mantissa & 3 == 1 && mantissa << (upper + 9) == high {
        mantissa &= !1;
    }
    mantissa = round(mantissa);
    if mantissa >= 1 << 53 {
        mantissa = 1 << 52;
        exponent += 1;
    }
    (exponent < 2047).then_some(mantissa & !(1 << 52) | (exponent as u64) << 52)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let at = |power: i32| POWERS[(power - SMALLEST_POWER) as usize];
        assert_eq!(at(0), [1 << 63, 0]);
        assert_eq!(at(1), [0xa000_0000_0000_0000, 0]);
        // From the table in the paper's own code, `fast_float`.
        assert_eq!(at(-342), [0xeef4_53d6_923b_d65a, 0x113f_aa29_06a1_3b3f]);
        assert_eq!(at(-341), [0x9558_b466_1b65_65f8, 0x4ac7_ca59_a424_c507]);
        assert_eq!(at(-1), [0xcccc_cccc_cccc_cccc, 0xcccc_cccc_cccc_cccd]);
        assert_eq!(at(308), [0x8e67_9c2f_5e44_ff8f, 0x570f_09ea_a7ea_7648]);
    }

    #[test]
    fn nearest_is_what_the_standard_library_finds() {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        };
        let mut undecided = 0;
        for _ in 0..300_000 {
            let digits = (next() >> (next() % 64)).min(9_999_999_999_999_999_999);
            let power = (next() % 700) as i32 - 360;
            let expected: f64 = format!("{digits}e{power}").parse().unwrap();
            match nearest(digits, power) {
                Some(bits) => assert_eq!(bits, expected.to_bits(), "{digits}e{power}"),
                None if expected.is_infinite() => {}
                None => undecided += 1,
            }
        }
        assert!(undecided < 3, "{undecided}");
        // Halfway between two doubles, and the edges of subnormal numbers.
        for (digits, power) in [
            (9_007_199_254_740_993, 0),
            (9_007_199_254_740_995, 0),
            (5, -324),
            (2_470_328_229_206_232_720, -342),
            (22_250_738_585_072_014, -324),
            (22_250_738_585_072_011, -324),
        ] {
            let expected: f64 = format!("{digits}e{power}").parse().unwrap();
            assert!(nearest(digits, power).is_none_or(|bits| bits == expected.to_bits()), "{digits}e{power}");
        }
    }
}
