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
    match plain_integer(text) {
        Some(value) => Some(i128::from(value)),
        None => Number::parse(text)?.scaled(0),
    }
}

/// The common form: at most 18 digits with a sign, so that nothing overflows.
#[inline(always)]
fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 18 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut value = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// The nearest double; `None` if it isn't a number or lies beyond all doubles.
#[inline]
pub(super) fn double(text: &[u8]) -> Option<f64> {
    match short_double(text) {
        Some(value) => Some(value),
        None => {
            Number::parse(text)?;
            // What has passed JSON's grammar is within the parser's.
            lexical_core::parse::<f64>(text).ok().filter(|value| value.is_finite())
        }
    }
}

/// The nearest float, rounded once; `None` if it isn't a number or lies beyond all floats.
pub(super) fn float(text: &[u8]) -> Option<f32> {
    Number::parse(text)?;
    lexical_core::parse::<f32>(text).ok().filter(|value| value.is_finite())
}

/// `-?digits(.digits)?` of few digits: both the digits as an integer and the power of ten are exact as doubles, and so
/// their quotient is rounded once, correctly (Clinger, "How to Read Floating Point Numbers Accurately", 1990).
#[inline(always)]
fn short_double(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text.first()? {
        b'-' => (true, &text[1..]),
        _ => (false, text),
    };
    // 15 digits are below 2^53; one more byte is the point.
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut point = None;
    for (i, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            mantissa = mantissa * 10 + u64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(i);
        } else {
            return None;
        }
    }
    let whole = point.unwrap_or(digits.len());
    let fraction = match point {
        Some(at) => digits.len() - at - 1,
        None => 0,
    };
    let leading_zero = digits[0] == b'0' && whole > 1;
    if whole == 0 || leading_zero || (point.is_some() && fraction == 0) || whole + fraction > 15 {
        return None;
    }
    let value = mantissa as f64 / EXACT_POWERS[fraction];
    Some(if negative { -value } else { value })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::{RngExt, SeedableRng};

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
