//! RFC 3339 text, exactly: what a unit can't hold is not read, never rounded.

use super::schema::Unit;

/// `YYYY-MM-DD[Tt ]HH:MM:SS[.fraction](Z|z|±HH:MM)` as a count of a unit since 1970.
pub(super) fn timestamp(text: &[u8], unit: Unit) -> Option<i64> {
    let (&[a, b, c, d, b'-', e, f, b'-', g, h, b'T' | b't' | b' ', i, j, b':', k, l, b':', m, n], rest) = text.split_first_chunk()? else {
        return None;
    };
    let (year, month, day) = (two(a, b)? * 100 + two(c, d)?, two(e, f)?, two(g, h)?);
    let (hour, minute, second) = (two(i, j)?, two(k, l)?, two(m, n)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = match rest {
        [b'.', digits @ ..] => {
            let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
            if !(1..=9).contains(&count) {
                return None;
            }
            let nanos = digits[..count].iter().fold(0, |nanos, digit| nanos * 10 + i64::from(digit - b'0')) * 10i64.pow(9 - count as u32);
            (nanos, &digits[count..])
        }
        _ => (0, rest),
    };
    let offset = match *rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), a, b, b':', c, d] => {
            let (hours, minutes) = (two(a, b)?, two(c, d)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if sign == b'-' { -60 } else { 60 }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + (hour * 60 + minute) * 60 + second - offset;
    let step = 10i64.pow(9 - unit.digits());
    // Nanoseconds reach from 1677 to 2262; the outermost seconds are left out, so that nothing can overflow.
    let reaches = unit != Unit::Nanosecond || (-9_223_372_035..=9_223_372_035).contains(&seconds);
    (nanos % step == 0 && reaches).then(|| seconds * 10i64.pow(unit.digits()) + nanos / step)
}

/// Days since 1970 (Howard Hinnant's days_from_civil).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    shifted.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}
