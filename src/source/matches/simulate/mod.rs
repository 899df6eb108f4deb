//! Matches made up by seed, in StatsBomb's schema: possessions of passes, carries and duels, shots with expected goals,
//! goals drawn by them, fouls, cards, substitutions, freeze frames. A match is played possession by possession as it is
//! read, so any number of matches side by side needs little memory; the same seed gives the same bytes everywhere.
//!
//! `play` holds a match's state and moves it on; `touches`, `shots` and `stoppages` are what can happen; `draft` is an event
//! before it is written, `write` writes it. `chance` is the only source of randomness.

mod chance;
mod draft;
mod pitch;
mod play;
mod shots;
mod sight;
mod stoppages;
mod teams;
mod touches;
mod write;

use std::convert::Infallible;

use super::event::{DEFAULT_KICK_OFF_MS, MatchEvent};
use super::interleave::{Interleave, Match, Order};
use play::Play;

/// Matches that kick off together are followed by the next ones after three hours.
const ROUND_MS: i64 = 3 * 3_600_000;
/// Match ids start at 100,000,001, far above any of StatsBomb's; each seed has a million of its own, below 2^31.
const FIRST_ID: i64 = 100_000_001;
const IDS_PER_SEED: i64 = 1_000_000;

/// What to make up.
#[derive(Debug, Clone)]
pub struct SimulateOptions {
    /// Everything follows from it.
    pub seed: u64,
    /// How many matches; `None` for no end of them.
    pub matches: Option<u64>,
    /// How many are played at the same time.
    pub concurrent: u64,
    /// When the first of them kick off, in milliseconds since 1970.
    pub kick_off_ms: i64,
    /// The share of events that have 360 data, from 0 to 1.
    pub three_sixty: f64,
    /// Whether some matches have a `Ball Receipt*` that comes after the first half and carries the time of its beginning,
    /// as 27 of 66 real ones do.
    pub late_receipts: bool,
}

impl Default for SimulateOptions {
    fn default() -> Self {
        Self { seed: 1, matches: Some(10), concurrent: 10, kick_off_ms: DEFAULT_KICK_OFF_MS, three_sixty: 0.05, late_receipts: true }
    }
}

/// The events of simulated matches, in the order they go out: by event time.
#[derive(Debug)]
pub struct SimulatedMatches {
    events: Interleave<Fixtures>,
}

impl SimulatedMatches {
    /// Makes up matches; the first event costs as little as any other.
    pub fn new(options: &SimulateOptions) -> Self {
        Self { events: Interleave::new(Fixtures { options: options.clone(), next: 0 }, Order::EventTime) }
    }
}

impl Iterator for SimulatedMatches {
    type Item = MatchEvent;

    fn next(&mut self) -> Option<MatchEvent> {
        match self.events.next()? {
            Ok(event) => Some(event),
            Err(never) => match never {},
        }
    }
}

/// Which match follows which.
#[derive(Debug)]
struct Fixtures {
    options: SimulateOptions,
    next: u64,
}

impl Iterator for Fixtures {
    type Item = Fixture;

    fn next(&mut self) -> Option<Fixture> {
        let number = self.next;
        if self.options.matches.is_some_and(|matches| number >= matches) {
            return None;
        }
        self.next += 1;
        let round = (number / self.options.concurrent.max(1)) as i64;
        Some(Fixture { number, kick_off_ms: self.options.kick_off_ms + round * ROUND_MS, options: self.options.clone() })
    }
}

/// A match before its kick-off.
#[derive(Debug)]
struct Fixture {
    number: u64,
    kick_off_ms: i64,
    options: SimulateOptions,
}

impl Fixture {
    fn match_id(&self) -> i64 {
        FIRST_ID + (self.options.seed % 1000) as i64 * IDS_PER_SEED + (self.number % IDS_PER_SEED as u64) as i64
    }
}

impl Match for Fixture {
    type Error = Infallible;
    type Events = Play;

    fn kick_off_ms(&self) -> i64 {
        self.kick_off_ms
    }

    fn open(self) -> Result<Play, Infallible> {
        Ok(Play::new(&self))
    }
}

#[cfg(test)]
mod tests;
