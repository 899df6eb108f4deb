//! Times and sizes as people write them: `5ms`, `1.5s`, `64 MiB`, `1000`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A length of time: a number with a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span(pub Duration);

/// A number of bytes or of anything else; bytes may have a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size(pub usize);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("'{text}' is not a length of time: write a number with us, ms, s, m, h or d, as in '5ms'");
        let (number, unit) = number_and_unit(text).ok_or_else(malformed)?;
        let unit_seconds = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(malformed()),
        };
        Duration::try_from_secs_f64(number * unit_seconds).map(Self).map_err(|_| malformed())
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("'{text}' is not a size: write a number, for bytes also with KiB, MiB or GiB");
        let (number, unit) = number_and_unit(text).ok_or_else(malformed)?;
        let factor = match unit {
            "" | "B" => 1u64,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return Err(malformed()),
        };
        let size = number * factor as f64;
        if size.fract() != 0.0 || size > 9e15 { Err(malformed()) } else { Ok(Self(size as usize)) }
    }
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl de::Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a size as '64 MiB'")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                usize::try_from(number).map(Size).map_err(|_| E::custom(format!("{number} is negative")))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Size, E> {
                usize::try_from(number).map(Size).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |text: &str, expected: Option<Duration>| assert_eq!(text.parse::<Span>().ok().map(|span| span.0), expected, "{text}");
        check("5ms", Some(Duration::from_millis(5)));
        check("1.5 s", Some(Duration::from_millis(1500)));
        check("0s", Some(Duration::ZERO));
        check("2h", Some(Duration::from_secs(7200)));
        for text in ["", "5", "ms", "-1s", "5 parsecs", "1e9s", "99999999999999999999999d"] {
            check(text, None);
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<usize>| assert_eq!(text.parse::<Size>().ok().map(|size| size.0), expected, "{text}");
        check("1000", Some(1000));
        check("64MiB", Some(64 << 20));
        check("1.5 KiB", Some(1536));
        for text in ["", "x", "1.5", "-1", "5 MB!", "99999999999999999999"] {
            check(text, None);
        }
    }
}
