//! JSON numbers, exactly: what is rounded is only what a column declared as floating point rounds.

/// The parts of a number that has passed the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<'a> {
    negative: bool,
    /// Digits before the point.
    whole: &'a [u8],
    /// Digits after the point.
    fraction: &'a [u8],
    /// The power of ten; held within ±10^15, far beyond any type.
    exponent: i64,
}

/// Powers of ten that a double holds exactly.
const EXACT_POWERS: [f64; 23] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22];

impl<'a> Number<'a> {
    /// `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`, and nothing else.
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, mut rest) = digits(rest)?;
        if whole.len() > 1 && whole[0] == b'0' {
            return None;
        }
        let mut fraction: &[u8] = &[];
        if let Some(after) = rest.strip_prefix(b".") {
            (fraction, rest) = digits(after)?;
        }
        let mut exponent = 0;
        if let Some(after) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
            let (minus, after) = match after.first() {
                Some(sign @ (b'+' | b'-')) => (*sign == b'-', &after[1..]),
                _ => (false, after),
            };
            let power;
            (power, rest) = digits(after)?;
            for digit in power {
                exponent = (exponent * 10 + i64::from(digit - b'0')).min(1_000_000_000_000_000);
            }
            if minus {
                exponent = -exponent;
            }
        }
        rest.is_empty().then_some(Self { negative, whole, fraction, exponent })
    }

    /// The number times 10^`scale`, if that is an integer of at most 38 digits.
    pub(super) fn scaled(&self, scale: i64) -> Option<i128> {
        let digits = || self.whole.iter().chain(self.fraction);
        let zeros = digits().rev().take_while(|&&digit| digit == b'0').count();
        let significant = self.whole.len() + self.fraction.len() - zeros;
        if significant == 0 {
            return Some(0);
        }
        // Without its trailing zeros the number is `digits * 10^power`.
        let power = self.exponent + scale - self.fraction.len() as i64 + zeros as i64;
        let power = u32::try_from(power).ok()?;
        let mut value = 0i128;
        for digit in digits().take(significant) {
            value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        let value = value.checked_mul(10i128.checked_pow(power)?)?;
        (value < 10i128.pow(38)).then_some(if self.negative { -value } else { value })
    }
}

/// One or more digits, and what follows them.
fn digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (count > 0).then(|| text.split_at(count))
}

/// A number that is an integer, however it is written.
#[inline]
pub(super) fn integer(text: &[u8]) -> Option<i128> {
    match short_integer(text) {
        Some(value) => Some(i128::from(value)),
        None => Number::parse(text)?.scaled(0),
    }
}

/// The common form, `-?digits`, of at most 16 digits; `None`: it is another.
#[inline(always)]
pub(super) fn short_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = split_sign(text)?;
    let length = digits.len();
    if length > 16 || (digits.first() == Some(&b'0') && length > 1) {
        return None;
    }
    let value = if length <= 8 { eight_digits(last_eight(digits))? } else { sixteen_digits(last_sixteen(digits))? } as i64;
    Some(if negative { -value } else { value })
}

/// Whether a number has a minus sign, and the rest of it.
#[inline(always)]
fn split_sign(text: &[u8]) -> Option<(bool, &[u8])> {
    let negative = *text.first()? == b'-';
    let digits = &text[usize::from(negative)..];
    (!digits.is_empty()).then_some((negative, digits))
}

const ZEROS: u64 = 0x3030_3030_3030_3030;

/// Up to eight bytes as a little-endian number, with `0` before them to make eight.
#[inline(always)]
fn last_eight(digits: &[u8]) -> u64 {
    let length = digits.len();
    if let (Some(low), Some(high)) = (digits.first_chunk(), digits.last_chunk()) {
        // The two halves overlap where there are fewer than eight.
        let (low, high) = (u32::from_le_bytes(*low), u32::from_le_bytes(*high));
        let missing = 8 * (8 - length as u32);
        return u64::from(high) << 32 | u64::from(low) << missing & 0xffff_ffff | if missing > 0 { ZEROS >> (64 - missing) } else { 0 };
    }
    digits.iter().fold(ZEROS, |eight, &byte| eight >> 8 | u64::from(byte) << 56)
}

/// Up to 16 bytes as a little-endian number, with `0` before them to make 16.
#[inline(always)]
fn last_sixteen(digits: &[u8]) -> u128 {
    let length = digits.len();
    if let (Some(low), Some(high)) = (digits.first_chunk(), digits.last_chunk()) {
        let (low, high) = (u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        let missing = 8 * (16 - length as u32);
        let low = if missing > 0 { (low << (missing & 63)) | ZEROS >> ((64 - missing) & 63) } else { low };
        // Eight digits are all in the upper half.
        let low = if missing == 64 { ZEROS } else { low };
        return u128::from(high) << 64 | u128::from(low);
    }
    u128::from(last_eight(digits)) << 64 | u128::from(ZEROS)
}

/// The number that eight digits spell, the first in the lowest byte; `None` if they aren't all digits. By halving: pairs, then fours, then all
/// (Johnny Lee; Lemire, "Quickly parsing eight digits", 2018).
#[inline(always)]
fn eight_digits(eight: u64) -> Option<u64> {
    let digits = eight ^ ZEROS;
    // Above 9 the addition reaches the top bit; no byte carries into its neighbour unless its own top bit was set.
    if (digits | (digits & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits * 10 + (digits >> 8);
    const EVEN: u64 = 0x0000_00ff_0000_00ff;
    let low = (pairs & EVEN).wrapping_mul(100 + (1_000_000 << 32));
    let high = (pairs >> 16 & EVEN).wrapping_mul(1 + (10_000 << 32));
    Some(low.wrapping_add(high) >> 32)
}

#[inline(always)]
fn sixteen_digits(sixteen: u128) -> Option<u64> {
    Some(eight_digits(sixteen as u64)? * 100_000_000 + eight_digits((sixteen >> 64) as u64)?)
}

/// The nearest double; `None` if it isn't a number or lies beyond all doubles.
#[inline]
pub(super) fn double(text: &[u8]) -> Option<f64> {
    match short_double(text) {
        Some(value) => Some(value),
        None => long_double(text),
    }
}

#[inline(never)]
fn long_double(text: &[u8]) -> Option<f64> {
    float_of(text).filter(|value: &f64| value.is_finite())
}

/// The nearest one of a floating-point type, in one go: the parser keeps to JSON's grammar.
fn float_of<T: lexical_core::FromLexicalWithOptions<Options = lexical_core::ParseFloatOptions>>(text: &[u8]) -> Option<T> {
    const OPTIONS: lexical_core::ParseFloatOptions = lexical_core::ParseFloatOptions::new();
    lexical_core::parse_with_options::<T, { lexical_core::format::JSON }>(text, &OPTIONS).ok()
}

/// The nearest float, rounded once; `None` if it isn't a number or lies beyond all floats.
pub(super) fn float(text: &[u8]) -> Option<f32> {
    float_of(text).filter(|value: &f32| value.is_finite())
}

/// `-?digits(.digits)?` of few digits: both the digits as an integer and the power of ten are exact as doubles, and so
/// their quotient is rounded once, correctly (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
#[inline(always)]
fn short_double(text: &[u8]) -> Option<f64> {
    let (negative, digits) = split_sign(text)?;
    let length = digits.len();
    // 15 digits are below 2^53; one more byte is the point.
    if length > 16 {
        return None;
    }
    let sixteen = last_sixteen(digits);
    // The top bit of each byte that is a point; exact, as no byte borrows from its neighbour.
    const LOW7: u128 = 0x7f7f_7f7f_7f7f_7f7f_7f7f_7f7f_7f7f_7f7f;
    let differ = sixteen ^ 0x2e2e_2e2e_2e2e_2e2e_2e2e_2e2e_2e2e_2e2e;
    let points = !(((differ & LOW7) + LOW7) | differ | LOW7);
    let (mantissa, whole, fraction) = if points == 0 {
        if length > 15 {
            return None;
        }
        (sixteen, length, 0)
    } else {
        // The digits before it move up into its place; a second point is no digit.
        let at = points.trailing_zeros() as usize / 8;
        let before = sixteen & ((1 << (8 * at)) - 1);
        let behind = if at == 15 { 0 } else { sixteen >> (8 * at + 8) << (8 * at + 8) };
        (behind | before << 8 | u128::from(b'0'), length + at - 16, 15 - at)
    };
    let leading_zero = digits[0] == b'0' && whole > 1;
    if whole == 0 || leading_zero || (points != 0 && fraction == 0) {
        return None;
    }
    let value = sixteen_digits(mantissa)? as f64 / EXACT_POWERS[fraction];
    Some(if negative { -value } else { value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::{RngExt, SeedableRng, seq::IndexedRandom};

    use super::*;

    #[test]
    fn grammar() {
        for good in ["0", "-0", "1", "10", "0.5", "-1.25", "1e5", "1E+5", "1e-5", "0e0", "123.456e78"] {
            assert!(Number::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x1", "1_0", "NaN", "Infinity", "-Infinity", "1.5.5", "1-1", "1e5.5"] {
            assert!(Number::parse(bad.as_bytes()).is_none(), "{bad}");
            assert!(integer(bad.as_bytes()).is_none(), "{bad}");
            assert!(double(bad.as_bytes()).is_none(), "{bad}");
            assert!(float(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn short_forms_are_the_exact_ones() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut short = [0; 2];
        for round in 0..400_000 {
            let length = random.random_range(0..20);
            // Mostly digits, so that many are numbers, and any byte now and then.
            let mut text: Vec<u8> = (0..length).map(|_| random.random_range(b'0'..=b'9')).collect();
            for _ in 0..round % 3 {
                if length > 0 {
                    text[random.random_range(0..length)] = *b".-+e0/:\x00\xff\xae\xb5 "[..].choose(&mut random).unwrap();
                }
            }
            let number = Number::parse(&text);
            if let Some(value) = short_integer(&text) {
                assert_eq!(number.and_then(|number| number.scaled(0)), Some(value.into()), "{text:?}");
                short[0] += 1;
            } else {
                let plain = number.is_some_and(|number| number.fraction.is_empty() && !text.contains(&b'e') && number.whole.len() <= 16);
                assert!(!plain, "{text:?}");
            }
            if let Some(value) = short_double(&text) {
                assert_eq!(long_double(&text).map(f64::to_bits), Some(value.to_bits()), "{text:?}");
                short[1] += 1;
            }
            let plainly = number.and_then(|_| std::str::from_utf8(&text).unwrap().parse::<f64>().ok()).filter(|value| value.is_finite());
            assert_eq!(double(&text).map(f64::to_bits), plainly.map(f64::to_bits), "{text:?}");
            assert_eq!(long_double(&text).map(f64::to_bits), plainly.map(f64::to_bits), "{text:?}");
        }
        assert!(short[0] > 50_000 && short[1] > 50_000, "{short:?}");
    }

    #[test]
    fn integers_however_written() {
        for (text, value) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1.0", Some(1)),
            ("1.5", None),
            ("1e3", Some(1000)),
            ("1500e-2", Some(15)),
            ("1550e-2", None),
            ("-12.340e2", Some(-1234)),
            ("9223372036854775807", Some(i64::MAX.into())),
            ("-9223372036854775808", Some(i64::MIN.into())),
            ("18446744073709551615", Some(u64::MAX.into())),
            ("1e37", Some(10i128.pow(37))),
            ("1e38", None),
            ("0e999999999999999999999", Some(0)),
            ("1e999999999999999999999", None),
            ("1e-999999999999999999999", None),
            ("1.00000000000000000000000000000000000000000001", None),
            ("1.00000000000000000000000000000000000000000000", Some(1)),
        ] {
            assert_eq!(integer(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn doubles_are_the_nearest() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for _ in 0..200_000 {
            let digits = random.random_range(1..22);
            let mut text: String = (0..digits).map(|_| char::from(random.random_range(b'0'..=b'9'))).collect();
            let trimmed = text.trim_start_matches('0');
            text = if trimmed.is_empty() { "0".into() } else { trimmed.into() };
            if random.random_bool(0.7) {
                text.push('.');
                text.extend((0..random.random_range(1..20)).map(|_| char::from(random.random_range(b'0'..=b'9'))));
            }
            if random.random_bool(0.2) {
                text += &format!("e{}", random.random_range(-330..310));
            }
            let expected: f64 = text.parse().unwrap();
            assert_eq!(double(text.as_bytes()), Some(expected).filter(|x| x.is_finite()), "{text}");
            let expected: f32 = text.parse().unwrap();
            assert_eq!(float(text.as_bytes()), Some(expected).filter(|x| x.is_finite()), "{text}");
        }
        assert_eq!(double(b"1e400"), None);
        assert_eq!(double(b"-0.0").map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(double(b"1e-400"), Some(0.0));
        assert_eq!(float(b"1e39"), None);
    }
}
