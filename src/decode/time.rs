//! Dates and timestamps, exactly: what a column's unit can't hold is a misfit, never rounded.

use arrow::datatypes::TimeUnit;
use chrono::{MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeZone};

use super::number::Number;
use crate::catalog::TimeFormat;

const DAY: i64 = 86_400;

/// How many of a unit make a second, as a power of ten.
pub(super) fn digits_of(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// A timestamp in nanoseconds; `None` outside the years 1677 to 2262.
#[inline]
pub(super) fn to_nanos(value: i64, unit: TimeUnit) -> Option<i64> {
    value.checked_mul(match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    })
}

/// `YYYY-MM-DD` as days since 1970.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let (days, rest) = read_date(text)?;
    if !rest.is_empty() {
        return None;
    }
    i32::try_from(days).ok()
}

/// Text in `format` as a count of `unit` since 1970.
pub(super) fn timestamp(text: &[u8], format: &TimeFormat, unit: TimeUnit) -> Option<i64> {
    let zone = match format {
        TimeFormat::Local(zone) => Some(zone),
        _ => None,
    };
    let (local, rest) = match whole_seconds(text) {
        Some(read) => read,
        None => {
            let (days, rest) = read_date(text)?;
            let rest = rest.strip_prefix(b"T").or_else(|| rest.strip_prefix(b" ")).or_else(|| rest.strip_prefix(b"t"))?;
            let (second, rest) = read_time(rest, zone.is_some())?;
            (days * DAY + second, rest)
        }
    };
    let (nanos, rest) = read_fraction(rest)?;
    let offset = match (rest, zone) {
        (b"Z", _) => 0,
        (b"", Some(zone)) => zone_offset(zone, local)?,
        _ => read_offset(rest)?,
    };
    let second = local - offset;
    match unit {
        TimeUnit::Second => in_unit::<1>(second, nanos),
        TimeUnit::Millisecond => in_unit::<1_000>(second, nanos),
        TimeUnit::Microsecond => in_unit::<1_000_000>(second, nanos),
        TimeUnit::Nanosecond => in_unit::<1_000_000_000>(second, nanos),
    }
}

/// A time as a count of a unit of which so many make a second. One function a unit, since a division by a number that is known is none.
#[inline(always)]
fn in_unit<const EACH_SECOND: u32>(second: i64, nanos: u32) -> Option<i64> {
    let step = 1_000_000_000 / EACH_SECOND;
    if !nanos.is_multiple_of(step) {
        return None;
    }
    // The product alone may lie below the range that the sum is in.
    i64::try_from(i128::from(second) * i128::from(EACH_SECOND) + i128::from(nanos / step)).ok()
}

/// The common form, `YYYY-MM-DDTHH:MM:SS` whatever follows, eight bytes at a time: seconds since 1970 where it is written, and what follows.
#[inline]
fn whole_seconds(text: &[u8]) -> Option<(i64, &[u8])> {
    let (whole, rest) = text.split_first_chunk::<19>()?;
    let eight = |at: usize| whole[at..].first_chunk().map(|eight| u64::from_le_bytes(*eight));
    let date = pairs(eight(0)?, u64::from_le_bytes(*b"0000-00-"), 0x7f76_767f_7676_7676)?;
    let clock = pairs(eight(11)?, u64::from_le_bytes(*b"00:00:00"), 0x7676_7f76_767f_7676)?;
    let [a, b, b'T', ..] = whole[8..] else { return None };
    let pair = |eight: u64, at: u32| i64::from((eight >> (8 * at)) as u8);
    let days = days(pair(date, 0) * 100 + pair(date, 2), pair(date, 5), two(a, b)?)?;
    let (hour, minute, second) = (pair(clock, 0), pair(clock, 3), pair(clock, 6));
    (hour <= 23 && minute <= 59 && second <= 59).then_some((days * DAY + (hour * 60 + minute) * 60 + second, rest))
}

/// The value of each byte and the next as two digits, where they look like this: `0` stands for any digit. `above` brings up the top bit of a
/// digit above 9, and of another byte that differs.
#[inline(always)]
fn pairs(eight: u64, like: u64, above: u64) -> Option<u64> {
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let differ = eight ^ like;
    let odd = (differ | (differ & !TOPS).wrapping_add(above)) & TOPS;
    (odd == 0).then_some(differ.wrapping_mul(10).wrapping_add(differ >> 8))
}

/// A number in `format` as a count of `unit` since 1970.
pub(super) fn epoch(number: &[u8], format: &TimeFormat, unit: TimeUnit) -> Option<i64> {
    let digits = match format {
        TimeFormat::EpochSeconds => 0,
        TimeFormat::EpochMillis => 3,
        TimeFormat::EpochMicros => 6,
        TimeFormat::Rfc3339 | TimeFormat::Local(_) => return None,
    };
    let scale = i64::from(digits_of(unit)) - digits;
    i64::try_from(Number::parse(number)?.scaled(scale)?).ok()
}

/// A whole number in `format` as a count of `unit` since 1970.
pub(super) fn epoch_of(number: i128, format: &TimeFormat, unit: TimeUnit) -> Option<i64> {
    let written = match format {
        TimeFormat::EpochSeconds => 0,
        TimeFormat::EpochMillis => 3,
        TimeFormat::EpochMicros => 6,
        TimeFormat::Rfc3339 | TimeFormat::Local(_) => return None,
    };
    let wanted = digits_of(unit);
    let value = match wanted.checked_sub(written) {
        Some(more) => number.checked_mul(10i128.pow(more))?,
        None => {
            let step = 10i128.pow(written - wanted);
            (number % step == 0).then_some(number / step)?
        }
    };
    i64::try_from(value).ok()
}

/// What is expected where a timestamp is written so.
pub(super) fn expected(unit: TimeUnit, format: &TimeFormat) -> String {
    let written = match format {
        TimeFormat::Rfc3339 => "as RFC 3339 text".to_string(),
        TimeFormat::Local(zone) => format!("as local time in {zone}"),
        TimeFormat::EpochSeconds => "as seconds since 1970".into(),
        TimeFormat::EpochMillis => "as milliseconds since 1970".into(),
        TimeFormat::EpochMicros => "as microseconds since 1970".into(),
    };
    format!("TIMESTAMP({}) {written}", digits_of(unit))
}

/// `YYYY-MM-DD`: days since 1970 and what follows.
fn read_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (date, rest) = text.split_at_checked(10)?;
    let &[a, b, c, d, b'-', e, f, b'-', g, h] = date else {
        return None;
    };
    Some((days(two(a, b)? * 100 + two(c, d)?, two(e, f)?, two(g, h)?)?, rest))
}

/// A date as days since 1970, if there is such a day.
#[inline]
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    // Howard Hinnant's days_from_civil: years that begin in March, so that the leap day comes last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// `HH:MM:SS`: seconds of the day and what follows. The seconds may be left out if `short`.
fn read_time(text: &[u8], short: bool) -> Option<(i64, &[u8])> {
    let (&[a, b, b':', c, d], rest) = text.split_first_chunk()? else {
        return None;
    };
    let (hour, minute) = (two(a, b)?, two(c, d)?);
    if hour > 23 || minute > 59 {
        return None;
    }
    let minutes = (hour * 60 + minute) * 60;
    let (second, rest) = match rest {
        [b':', e, f, rest @ ..] => (two(*e, *f)?, rest),
        // There is no fraction of a minute.
        _ if short && rest.first() != Some(&b'.') => return Some((minutes, rest)),
        _ => return None,
    };
    // A leap second has no place in a count of seconds since 1970.
    if second > 59 {
        return None;
    }
    Some((minutes + second, rest))
}

/// `[.fraction]`: nanoseconds and what follows.
#[inline]
fn read_fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(fraction) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    if let [a, b, c, b'Z'] = fraction {
        return Some(((two(b'0', *a)? * 100 + two(*b, *c)?) as u32 * 1_000_000, b"Z"));
    }
    let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let (digits, rest) = fraction.split_at(count);
    let nanos = digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')) * 10u32.pow(9 - count as u32);
    Some((nanos, rest))
}

/// `Z` or `±HH:MM`: seconds east of Greenwich.
fn read_offset(text: &[u8]) -> Option<i64> {
    let &[sign, a, b, b':', c, d] = text else {
        return matches!(text, b"Z" | b"z").then_some(0);
    };
    let (hours, minutes) = (two(a, b)?, two(c, d)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = (hours * 60 + minutes) * 60;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

/// Seconds east of Greenwich at a local time, given as seconds since 1970 on a clock there. A time that the clocks skip
/// has none; of one that they show twice it is the earlier.
fn zone_offset(zone: &chrono_tz::Tz, local: i64) -> Option<i64> {
    let days = i32::try_from(local.div_euclid(DAY)).ok()?;
    let date = NaiveDate::from_epoch_days(days)?;
    let time = chrono::NaiveTime::from_num_seconds_from_midnight_opt(local.rem_euclid(DAY) as u32, 0)?;
    match zone.offset_from_local_datetime(&NaiveDateTime::new(date, time)) {
        MappedLocalTime::Single(offset) => Some(offset.fix().local_minus_utc().into()),
        MappedLocalTime::Ambiguous(a, b) => Some(a.fix().local_minus_utc().max(b.fix().local_minus_utc()).into()),
        MappedLocalTime::None => None,
    }
}

#[inline(always)]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens * 10 + ones))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use chrono::{DateTime, Datelike};

    use super::*;

    fn nanos(text: &str) -> Option<i64> {
        timestamp(text.as_bytes(), &TimeFormat::Rfc3339, TimeUnit::Nanosecond)
    }

    #[test]
    fn dates_agree_with_chrono() {
        for days in -719_528..=2_932_896 {
            let text = NaiveDate::from_epoch_days(days).unwrap().to_string();
            assert_eq!(date(text.as_bytes()), Some(days), "{text}");
        }
        for bad in ["2023-02-29", "2024-13-01", "2024-00-10", "2024-04-31", "2024-1-1", "2024-01-01 ", "20240101", "", "2024-01-00", "-024-01-01"] {
            assert_eq!(date(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(NaiveDate::from_epoch_days(-719_528).unwrap().year(), 0);
    }

    #[test]
    fn rfc_3339() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2018-06-14T15:00:00.123Z",
            "2018-06-14t15:00:00.123456789z",
            "2018-06-14T18:00:00.5+03:00",
            "2018-06-14T00:30:00-11:30",
            "1969-12-31T23:59:59.999999999Z",
            "2262-04-11T23:47:16.854775807Z",
            "1677-09-21T00:12:43.145224192Z",
        ] {
            assert_eq!(nanos(text), DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt(), "{text}");
        }
        assert_eq!(nanos("2018-06-14 15:00:00Z"), nanos("2018-06-14T15:00:00Z"));
        for bad in [
            "2018-06-14T15:00:00",
            "2018-06-14",
            "2018-06-14T15:00Z",
            "2018-06-14T24:00:00Z",
            "2018-06-14T15:60:00Z",
            "2018-06-14T15:00:60Z",
            "2018-06-14T15:00:00.Z",
            "2018-06-14T15:00:00.1234567891Z",
            "2018-06-14T15:00:00+03",
            "2018-06-14T15:00:00+24:00",
            "2018-06-14T15:00:00 Z",
            "2018-06-14T15:00:00ZZ",
            "2018-06-14X15:00:00Z",
            "2262-04-11T23:47:16.854775808Z",
            "1677-09-21T00:12:43.145224191Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(nanos(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_unit_holds_what_it_can() {
        let at = |text: &str, unit| timestamp(text.as_bytes(), &TimeFormat::Rfc3339, unit);
        assert_eq!(at("9999-12-31T23:59:59Z", TimeUnit::Second), Some(253_402_300_799));
        assert_eq!(at("1970-01-01T00:00:01.500Z", TimeUnit::Millisecond), Some(1500));
        assert_eq!(at("1970-01-01T00:00:01.5001Z", TimeUnit::Millisecond), None);
        assert_eq!(at("1969-12-31T23:59:59.5Z", TimeUnit::Microsecond), Some(-500_000));
        assert_eq!(at("1970-01-01T00:00:00.5Z", TimeUnit::Second), None);
    }

    #[test]
    fn local_time_in_a_zone() {
        let madrid = TimeFormat::Local(chrono_tz::Europe::Madrid);
        let at = |text: &str| timestamp(text.as_bytes(), &madrid, TimeUnit::Second);
        let utc = |text: &str| timestamp(text.as_bytes(), &TimeFormat::Rfc3339, TimeUnit::Second);
        assert_eq!(at("2024-01-15T12:00:00"), utc("2024-01-15T11:00:00Z"));
        assert_eq!(at("2024-07-15 12:00:00"), utc("2024-07-15T10:00:00Z"));
        assert_eq!(at("2024-07-15 12:00"), utc("2024-07-15T10:00:00Z"));
        assert_eq!(at("2024-07-15T12:00:00Z"), utc("2024-07-15T12:00:00Z"), "an offset in the text counts");
        assert_eq!(at("2024-03-31T02:30:00"), None, "the clocks skip this hour");
        assert_eq!(at("2024-10-27T02:30:00"), utc("2024-10-27T00:30:00Z"), "the clocks show this hour twice; the earlier");
        assert!(at("2024-10-27").is_none());
    }

    #[test]
    fn counts_since_1970() {
        use TimeFormat::*;
        let at = |text: &str, format: TimeFormat, unit| epoch(text.as_bytes(), &format, unit);
        assert_eq!(at("1528988400.123456789", EpochSeconds, TimeUnit::Nanosecond), Some(1_528_988_400_123_456_789));
        assert_eq!(at("1528988400.1234567891", EpochSeconds, TimeUnit::Nanosecond), None);
        assert_eq!(at("1.5e3", EpochMillis, TimeUnit::Microsecond), Some(1_500_000));
        assert_eq!(at("1500", EpochMillis, TimeUnit::Second), None);
        assert_eq!(at("2000", EpochMillis, TimeUnit::Second), Some(2));
        assert_eq!(at("-1", EpochMicros, TimeUnit::Nanosecond), Some(-1000));
        assert_eq!(at("9223372036854775807", EpochMicros, TimeUnit::Microsecond), Some(i64::MAX));
        assert_eq!(at("9223372036854775807", EpochMicros, TimeUnit::Nanosecond), None);
        assert_eq!(at("true", EpochMicros, TimeUnit::Nanosecond), None);
    }
}
