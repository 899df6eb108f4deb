//! What every record of a match looks like: the StatsBomb event plus the five or so fields that the event itself lacks.
//!
//! StatsBomb's event names neither its match nor a date: the match is the file's name, and `timestamp` starts anew in
//! each period. A record adds `match_id`, `home_team`, `away_team`, `event_time`, and `visible_area` and `freeze_frame` where
//! the event has 360 data. Here alone it is decided how: replayed and simulated matches come out alike.

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use crate::{Error, Result};

/// Kick-off where nothing says otherwise: 2018-01-01T00:00:00Z, in milliseconds since 1970.
pub const DEFAULT_KICK_OFF_MS: i64 = 1_514_764_800_000;

/// Where periods 1 to 5 start, in minutes after kick-off: two halves, two halves of extra time, the penalty shoot-out.
/// Far enough apart that no stoppage time runs into the next period.
const PERIOD_START_MINUTES: [i64; 5] = [0, 65, 135, 155, 180];

/// One event of a match, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchEvent {
    /// The match; as text it is the record's key.
    pub match_id: i64,
    /// The event's time in milliseconds since 1970; the payload holds it as `event_time`.
    pub event_time_ms: i64,
    /// Whether the match ends with this event; lets a sender count finished matches.
    pub last: bool,
    /// The record's payload: one JSON object.
    pub payload: Vec<u8>,
}

impl MatchEvent {
    /// The record's key: the match id as text, so that a match stays in one partition.
    pub fn key(&self) -> String {
        self.match_id.to_string()
    }
}

/// What a match adds to each of its events.
#[derive(Debug, Clone)]
pub struct Stamp {
    match_id: i64,
    kick_off_ms: i64,
    /// `,"match_id":…,"home_team":…,"away_team":…,"event_time":"`: the same for all events, so it is written once.
    constant: Vec<u8>,
}

/// 360 data of one event: the JSON texts as they came.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The part of the pitch that the camera saw; some providers leave it out.
    pub visible_area: Option<&'a [u8]>,
    /// The players in sight.
    pub freeze_frame: &'a [u8],
}

impl Stamp {
    /// The stamp of one match.
    pub fn new(match_id: i64, home_team: &str, away_team: &str, kick_off_ms: i64) -> Self {
        let text = |s: &str| serde_json::Value::from(s).to_string();
        let constant = format!(r#","match_id":{match_id},"home_team":{},"away_team":{},"event_time":""#, text(home_team), text(away_team));
        Self { match_id, kick_off_ms, constant: constant.into_bytes() }
    }

    /// The match.
    pub fn match_id(&self) -> i64 {
        self.match_id
    }

    /// An event's time: kick-off, plus the start of its period, plus how far it is into the period.
    pub fn event_time_ms(&self, period: Period, into_period_ms: i64) -> i64 {
        self.kick_off_ms + period.start_ms() + into_period_ms
    }

    /// Ends an event whose text is written up to, and without, its closing brace: adds the match's fields and the brace.
    pub fn finish(&self, payload: &mut Vec<u8>, event_time_ms: i64, frame: Option<Frame<'_>>) {
        payload.extend_from_slice(&self.constant);
        write_time(payload, event_time_ms);
        payload.push(b'"');
        if let Some(frame) = frame {
            if let Some(area) = frame.visible_area {
                payload.extend_from_slice(br#","visible_area":"#);
                payload.extend_from_slice(area);
            }
            payload.extend_from_slice(br#","freeze_frame":"#);
            payload.extend_from_slice(frame.freeze_frame);
        }
        payload.push(b'}');
    }
}

/// A period of play: 1 and 2 are the halves, 3 and 4 extra time, 5 the penalty shoot-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(u8);

impl Period {
    /// The first half.
    pub const FIRST: Period = Period(1);
    /// The second half.
    pub const SECOND: Period = Period(2);

    /// The period of this number; there are five.
    pub fn new(number: i64) -> Option<Self> {
        (1..=5).contains(&number).then_some(Self(number as u8))
    }

    /// Its number, 1 to 5.
    pub fn number(self) -> u8 {
        self.0
    }

    /// How long after kick-off it starts, in milliseconds.
    pub fn start_ms(self) -> i64 {
        PERIOD_START_MINUTES[usize::from(self.0) - 1] * 60_000
    }
}

/// Reads an event's `timestamp`, `HH:MM:SS.mmm` since its period began, as milliseconds. Fractions finer than that are cut off.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if ![hours, minutes, seconds, fraction].into_iter().all(all_digits) {
        return None;
    }
    let number = |digits: &str| digits.parse::<u16>().ok().map(i64::from);
    let millis = fraction.bytes().chain(*b"00").take(3).fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
    (minutes < 60 && seconds < 60).then_some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

/// Kick-off from a match list's `match_date` and `kick_off`, both taken as UTC; `None` when they can't be read.
pub fn kick_off_from_list(match_date: &str, kick_off: &str) -> Option<i64> {
    let date = NaiveDate::parse_from_str(match_date, "%Y-%m-%d").ok()?;
    let time = NaiveTime::parse_from_str(kick_off, "%H:%M:%S%.f").ok()?;
    Some(NaiveDateTime::new(date, time).and_utc().timestamp_millis())
}

/// Kick-off from the command line: RFC 3339, like `2018-06-14T15:00:00Z`.
pub fn parse_kick_off(text: &str) -> Result<i64> {
    DateTime::parse_from_rfc3339(text)
        .map(|t| t.timestamp_millis())
        .map_err(|e| Error::Invalid(format!("'{text}' is no time ({e}); write it like 2018-06-14T15:00:00Z")))
}

/// A time as RFC 3339 in UTC with milliseconds, as `event_time` has it.
pub fn format_time(ms: i64) -> String {
    let mut text = Vec::with_capacity(24);
    write_time(&mut text, ms);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes a time as RFC 3339 in UTC with milliseconds. By hand, since it is done for every event: chrono's takes
/// longer than writing all the rest of a simulated event.
fn write_time(out: &mut Vec<u8>, ms: i64) {
    const DAY_MS: i64 = 86_400_000;
    let date = DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default().date_naive();
    write_digits(out, date.year().unsigned_abs(), 4);
    out.push(b'-');
    write_digits(out, date.month(), 2);
    out.push(b'-');
    write_digits(out, date.day(), 2);
    out.push(b'T');
    write_clock(out, ms.rem_euclid(DAY_MS));
    out.push(b'Z');
}

/// Writes milliseconds as `HH:MM:SS.mmm`.
pub fn write_clock(out: &mut Vec<u8>, ms: i64) {
    let part = |unit: i64, modulus: i64| (ms / unit % modulus) as u32;
    write_digits(out, part(3_600_000, 100), 2);
    out.push(b':');
    write_digits(out, part(60_000, 60), 2);
    out.push(b':');
    write_digits(out, part(1000, 60), 2);
    out.push(b'.');
    write_digits(out, part(1, 1000), 3);
}

fn write_digits(out: &mut Vec<u8>, number: u32, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (number / 10u32.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn time_of(kick_off: &str, period: i64, timestamp: &str) -> String {
        let stamp = Stamp::new(1, "a", "b", parse_kick_off(kick_off).unwrap());
        format_time(stamp.event_time_ms(Period::new(period).unwrap(), parse_timestamp(timestamp).unwrap()))
    }

    #[test]
    fn each_period_has_its_own_start() {
        let kick_off = "2018-06-14T15:00:00Z";
        assert_eq!(time_of(kick_off, 1, "00:00:00.000"), "2018-06-14T15:00:00.000Z");
        assert_eq!(time_of(kick_off, 1, "00:47:02.013"), "2018-06-14T15:47:02.013Z");
        assert_eq!(time_of(kick_off, 2, "00:00:00.040"), "2018-06-14T16:05:00.040Z");
        assert_eq!(time_of(kick_off, 3, "00:01:00.000"), "2018-06-14T17:16:00.000Z");
        assert_eq!(time_of(kick_off, 4, "00:00:00.001"), "2018-06-14T17:35:00.001Z");
        assert_eq!(time_of("2018-12-31T22:00:00Z", 5, "00:00:01.500"), "2019-01-01T01:00:01.500Z");
        assert_eq!(Period::new(0), None);
        assert_eq!(Period::new(6), None);
    }

    #[test]
    fn a_kick_off_may_carry_an_offset() {
        assert_eq!(format_time(parse_kick_off("2018-06-14T18:00:00+03:00").unwrap()), "2018-06-14T15:00:00.000Z");
        assert!(parse_kick_off("yesterday").unwrap_err().to_string().contains("2018-06-14T15:00:00Z"));
        assert_eq!(format_time(DEFAULT_KICK_OFF_MS), "2018-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_match_list_gives_date_and_time() {
        assert_eq!(kick_off_from_list("2018-06-14", "17:00:00.000").map(format_time).unwrap(), "2018-06-14T17:00:00.000Z");
        assert_eq!(kick_off_from_list("2018-06-14", "noon"), None);
    }

    #[test]
    fn timestamps_that_are_none_are_refused() {
        assert_eq!(parse_timestamp("01:02:03.045"), Some(3_723_045));
        assert_eq!(parse_timestamp("00:00:07"), Some(7_000));
        assert_eq!(parse_timestamp("00:00:07.5"), Some(7_500));
        for wrong in ["", "00:00", "00:60:00.000", "00:00:61.000", "00:00:00.", "-1:00:00.000", "+1:00:00.000", "00:00:00.0x0", "1:2:3:4"] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_stamped_event_keeps_its_text_and_gains_the_match() {
        let stamp = Stamp::new(7, "Öst \"A\"", "B", DEFAULT_KICK_OFF_MS);
        let mut payload = br#"{"z":1.50,"a":1e2"#.to_vec();
        stamp.finish(&mut payload, DEFAULT_KICK_OFF_MS, Some(Frame { visible_area: Some(b"[1.0,2]"), freeze_frame: b"[]" }));
        let want = r#"{"z":1.50,"a":1e2,"match_id":7,"home_team":"Öst \"A\"","away_team":"B","event_time":"2018-01-01T00:00:00.000Z","visible_area":[1.0,2],"freeze_frame":[]}"#;
        assert_eq!(String::from_utf8(payload).unwrap(), want);
    }
}
