//! Writes a draft as StatsBomb writes an event: the same fields in the same order, flags only where they are true, no number
//! in a form that depends on a floating-point formatter.

use super::chance::mix;
use super::draft::{Detail, Draft, Named, Pass, Player, Shot};
use super::pitch::Spot;
use super::teams::{Formation, Team};
use crate::source::matches::event::{Period, write_clock};

/// What the events of a match share.
#[derive(Debug)]
pub struct Writer {
    /// The two teams.
    pub teams: [Team; 2],
    /// Their formations.
    pub formations: [&'static Formation; 2],
    /// What the events' ids are made from.
    pub id_seed: u64,
}

/// Where in the match an event stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its number in the match, from 1.
    pub index: u32,
    /// Its period.
    pub period: Period,
    /// The number of the possession.
    pub possession: u32,
    /// The team in possession.
    pub possession_side: usize,
    /// How the possession began.
    pub pattern: Named,
}

impl Writer {
    /// Writes an event without its closing brace: the match's own fields follow.
    pub fn write(&self, out: &mut Vec<u8>, draft: &Draft, place: &Place) {
        let regular_minutes = (i64::from(place.period.number()) - 1) * 45;
        text(out, r#"{"id":"#);
        self.id(out, place.index);
        text(out, r#","index":"#);
        number(out, i64::from(place.index));
        text(out, r#","period":"#);
        number(out, i64::from(place.period.number()));
        text(out, r#","timestamp":""#);
        write_clock(out, draft.at_ms);
        text(out, r#"","minute":"#);
        number(out, regular_minutes + draft.at_ms / 60_000);
        text(out, r#","second":"#);
        number(out, draft.at_ms / 1000 % 60);
        text(out, r#","type":"#);
        named(out, draft.kind);
        text(out, r#","possession":"#);
        number(out, i64::from(place.possession));
        text(out, r#","possession_team":"#);
        text(out, &self.teams[place.possession_side].json);
        text(out, r#","play_pattern":"#);
        named(out, place.pattern);
        text(out, r#","team":"#);
        text(out, &self.teams[draft.side].json);
        if let Some(player) = draft.player {
            text(out, r#","player":"#);
            self.player(out, player);
            text(out, r#","position":"#);
            self.position(out, player);
        }
        if let Some(location) = draft.location {
            text(out, r#","location":"#);
            spot(out, location);
        }
        if let Some(duration) = draft.duration_ms {
            text(out, r#","duration":"#);
            fixed(out, duration, 3);
        }
        if draft.under_pressure {
            text(out, r#","under_pressure":true"#);
        }
        if draft.counterpress {
            text(out, r#","counterpress":true"#);
        }
        if !draft.related.is_empty() {
            text(out, r#","related_events":"#);
            list(out, &draft.related, |out, index| self.id(out, *index));
        }
        self.detail(out, &draft.detail);
    }

    fn detail(&self, out: &mut Vec<u8>, detail: &Detail) {
        match detail {
            Detail::None => {}
            Detail::Ready(name, json) => {
                member(out, name);
                text(out, json);
            }
            Detail::Named(name, members) => object(out, name, |object| members.iter().for_each(|(name, value)| object.named(name, *value))),
            Detail::Flags(name, flags) => object(out, name, |object| flags.iter().for_each(|flag| object.flag(flag))),
            Detail::Carry(end) => object(out, "carry", |object| object.member("end_location", |out| spot(out, *end))),
            Detail::Foul { card, penalty } => {
                if card.is_some() || *penalty {
                    object(out, "foul_committed", |object| {
                        card.iter().for_each(|card| object.named("card", *card));
                        if *penalty {
                            object.flag("penalty");
                        }
                    });
                }
            }
            Detail::Pass(pass) => self.pass(out, pass),
            Detail::Shot(shot) => self.shot(out, shot),
        }
    }

    fn pass(&self, out: &mut Vec<u8>, pass: &Pass) {
        object(out, "pass", |object| {
            pass.recipient.iter().for_each(|player| object.member("recipient", |out| self.player(out, *player)));
            object.member("length", |out| fixed(out, rounded(pass.from.distance(pass.end), 1e6), 6));
            object.member("angle", |out| fixed(out, rounded(pass.from.angle(pass.end), 1e7), 7));
            object.named("height", pass.height);
            object.member("end_location", |out| spot(out, pass.end));
            pass.kind.iter().for_each(|kind| object.named("type", *kind));
            pass.body_part.iter().for_each(|part| object.named("body_part", *part));
            pass.outcome.iter().for_each(|outcome| object.named("outcome", *outcome));
            pass.flags.iter().for_each(|flag| object.flag(flag));
            pass.assisted_shot.iter().for_each(|shot| object.member("assisted_shot_id", |out| self.id(out, *shot)));
        });
    }

    fn shot(&self, out: &mut Vec<u8>, shot: &Shot) {
        object(out, "shot", |object| {
            object.member("statsbomb_xg", |out| fixed(out, shot.xg, 7));
            object.member("end_location", |out| {
                spot(out, shot.end);
                if let Some(height) = shot.end_height {
                    out.pop();
                    out.push(b',');
                    fixed(out, height, 1);
                    out.push(b']');
                }
            });
            shot.key_pass.iter().for_each(|pass| object.member("key_pass_id", |out| self.id(out, *pass)));
            object.named("technique", shot.technique);
            object.named("type", shot.kind);
            object.named("body_part", shot.body_part);
            object.named("outcome", shot.outcome);
            if shot.first_time {
                object.flag("first_time");
            }
            let shooter_side = shot.frame.first().map(|(player, _)| player.side);
            let others = shot.frame.get(1..).unwrap_or_default();
            if !others.is_empty() {
                object.member("freeze_frame", |out| {
                    list(out, others, |out, (player, at)| {
                        text(out, r#"{"location":"#);
                        spot(out, *at);
                        text(out, r#","player":"#);
                        self.player(out, *player);
                        text(out, r#","position":"#);
                        self.position(out, *player);
                        text(out, if Some(player.side) == shooter_side { r#","teammate":true}"# } else { r#","teammate":false}"# });
                    });
                });
            }
        });
    }

    fn player(&self, out: &mut Vec<u8>, player: Player) {
        text(out, &self.teams[player.side].players[usize::from(player.squad)]);
    }

    fn position(&self, out: &mut Vec<u8>, player: Player) {
        let at = &self.formations[player.side].positions[usize::from(player.place)];
        named(out, (at.id, at.name));
    }

    /// An event's id: a UUID in quotes, made from the match's seed and the event's index, so that any event can name any other.
    fn id(&self, out: &mut Vec<u8>, index: u32) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let high = mix(self.id_seed ^ u64::from(index));
        let low = mix(high ^ self.id_seed.rotate_left(32));
        // The form of a random UUID: version 4, variant 1.
        let bits = u128::from(high & !0xf000 | 0x4000) << 64 | u128::from(low >> 2 | 1 << 63);
        out.push(b'"');
        for digit in 0..32 {
            if matches!(digit, 8 | 12 | 16 | 20) {
                out.push(b'-');
            }
            out.push(HEX[(bits >> (124 - 4 * digit)) as usize & 15]);
        }
        out.push(b'"');
    }
}

/// An object whose members are being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    separator: &'static [u8],
}

/// Writes a member that is an object.
fn object(out: &mut Vec<u8>, name: &str, members: impl FnOnce(&mut Object<'_>)) {
    member(out, name);
    out.push(b'{');
    members(&mut Object { out, separator: b"" });
    out.push(b'}');
}

impl Object<'_> {
    fn member(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.out.extend_from_slice(self.separator);
        self.separator = b",";
        self.out.push(b'"');
        text(self.out, name);
        text(self.out, "\":");
        value(self.out);
    }

    fn named(&mut self, name: &str, value: Named) {
        self.member(name, |out| named(out, value));
    }

    fn flag(&mut self, name: &str) {
        self.member(name, |out| text(out, "true"));
    }
}

fn member(out: &mut Vec<u8>, name: &str) {
    text(out, ",\"");
    text(out, name);
    text(out, "\":");
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn named(out: &mut Vec<u8>, (id, name): Named) {
    text(out, r#"{"id":"#);
    number(out, i64::from(id));
    text(out, r#","name":""#);
    text(out, name);
    text(out, r#""}"#);
}

/// Writes `[…]` with commas between the items.
pub fn list<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (place, value) in items.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        item(out, value);
    }
    out.push(b']');
}

fn spot(out: &mut Vec<u8>, at: Spot) {
    out.push(b'[');
    fixed(out, at.x, 1);
    out.push(b',');
    fixed(out, at.y, 1);
    out.push(b']');
}

fn rounded(value: f64, unit: f64) -> i64 {
    (value * unit).round() as i64
}

fn number(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut left = value.unsigned_abs();
    loop {
        first -= 1;
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[first..]);
}

/// Writes a number given in units of 10^-`places`, with its point.
pub fn fixed(out: &mut Vec<u8>, value: i64, places: u32) {
    let unit = 10i64.pow(places);
    if value < 0 {
        out.push(b'-');
    }
    let value = value.abs();
    number(out, value / unit);
    out.push(b'.');
    for place in (0..places).rev() {
        out.push(b'0' + (value / 10i64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_digit_by_digit() {
        let written = |value, places| {
            let mut out = vec![];
            fixed(&mut out, value, places);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(written(1205, 1), "120.5");
        assert_eq!(written(-5, 7), "-0.0000005");
        assert_eq!(written(0, 3), "0.000");
        let mut out = vec![];
        number(&mut out, -1200);
        assert_eq!(out, b"-1200");
    }
}
