//! Replays a folder of StatsBomb's open data: which matches, when they kick off, in what order, once or for ever.

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::event::{DEFAULT_KICK_OFF_MS, MatchEvent};
use super::folder::{Folder, MatchFiles, read_match};
use super::interleave::{Interleave, Match, Order};
use crate::{Error, Result};

/// The longest that a match can last: its penalty shoot-out starts after three hours.
const LONGEST_MATCH_MS: i64 = 4 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;

/// What to replay.
#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Only these matches; empty for all.
    pub matches: Vec<i64>,
    /// Every match kicks off at this time, in milliseconds since 1970; else as the match lists say.
    pub kick_off_ms: Option<i64>,
    /// How matches share the topic.
    pub order: Order,
    /// Shuffles the matches: side by side they start in the order drawn, by event time it decides between equal kick-offs.
    pub seed: Option<u64>,
    /// Start again for ever, each round with match ids and times of its own.
    pub endless: bool,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { matches: vec![], kick_off_ms: None, order: Order::EventTime, seed: None, endless: false }
    }
}

/// The events of the matches of a folder, in the order they go out. A file that can't be read ends it with an error.
#[derive(Debug)]
pub struct Replay {
    events: Interleave<Rounds>,
    match_count: u64,
}

impl Replay {
    /// Opens a folder. Events are read match by match, as their turn comes.
    pub fn open(path: &Path, options: &ReplayOptions) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotFound(format!("{} is no folder; give the one that holds StatsBomb's 'events'", path.display())));
        }
        let mut folder = Folder::open(path)?;
        let ids = if options.matches.is_empty() { folder.matches.keys().copied().collect() } else { options.matches.clone() };
        let mut matches = Vec::with_capacity(ids.len());
        for id in ids {
            let files = folder.matches.remove(&id).ok_or_else(|| unknown_match(id, path, matches.iter().any(|m: &Planned| m.id == id)))?;
            let kick_off_ms = options.kick_off_ms.or_else(|| folder.kick_offs.get(&id).copied()).unwrap_or(DEFAULT_KICK_OFF_MS);
            matches.push(Planned { id, kick_off_ms, files });
        }
        matches.sort_by_key(|m| (m.kick_off_ms, m.id));
        if let Some(seed) = options.seed {
            shuffle(&mut matches, seed);
        }
        if options.order == Order::EventTime {
            matches.sort_by_key(|m| m.kick_off_ms);
        }
        let match_count = matches.len() as u64;
        Ok(Self { events: Interleave::new(Rounds::new(matches, options.endless), options.order), match_count })
    }

    /// How many matches a round has.
    pub fn match_count(&self) -> u64 {
        self.match_count
    }
}

impl Iterator for Replay {
    type Item = Result<MatchEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        self.events.next()
    }
}

fn unknown_match(id: i64, path: &Path, twice: bool) -> Error {
    if twice {
        return Error::Invalid(format!("match {id} is asked for twice; name each match once"));
    }
    let file: PathBuf = path.join("events").join(format!("{id}.json"));
    Error::NotFound(format!("there is no match {id} in the folder: neither {} nor the same with .gz exists", file.display()))
}

/// Fisher and Yates's shuffle. Written out, since the same seed must give the same order with every version of every library.
fn shuffle(matches: &mut [Planned], seed: u64) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut random = ChaCha8Rng::from_seed(key);
    for last in (1..matches.len()).rev() {
        matches.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
}

/// A match of the folder with its place in time.
#[derive(Debug, Clone)]
struct Planned {
    id: i64,
    kick_off_ms: i64,
    files: MatchFiles,
}

impl Match for Planned {
    type Error = Error;
    type Events = std::vec::IntoIter<MatchEvent>;

    fn kick_off_ms(&self) -> i64 {
        self.kick_off_ms
    }

    fn open(self) -> Result<Self::Events> {
        Ok(read_match(&self.files, self.id, self.kick_off_ms)?.into_iter())
    }
}

/// The matches, once or round after round. A later round's ids and times are those of the first, moved on.
#[derive(Debug)]
struct Rounds {
    matches: Vec<Planned>,
    endless: bool,
    next: usize,
    round: i64,
    /// From one round to the next: match ids by a power of ten above all ids, so that 7525 becomes 17525, and 27525.
    id_step: i64,
    /// Whole days, so that matches keep their time of day.
    time_step_ms: i64,
}

impl Rounds {
    fn new(matches: Vec<Planned>, endless: bool) -> Self {
        let highest = matches.iter().map(|m| m.id).max().unwrap_or(0);
        let id_step = std::iter::successors(Some(10i64), |step| step.checked_mul(10)).find(|step| *step > highest).unwrap_or(i64::MAX);
        let kick_offs = || matches.iter().map(|m| m.kick_off_ms);
        let span = kick_offs().max().unwrap_or(0) - kick_offs().min().unwrap_or(0) + LONGEST_MATCH_MS;
        let time_step_ms = (span + DAY_MS - 1) / DAY_MS * DAY_MS;
        Self { matches, endless, next: 0, round: 0, id_step, time_step_ms }
    }
}

impl Iterator for Rounds {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        if self.next == self.matches.len() && self.endless {
            self.next = 0;
            self.round += 1;
        }
        let mut planned = self.matches.get(self.next)?.clone();
        self.next += 1;
        planned.id += self.round * self.id_step;
        planned.kick_off_ms += self.round * self.time_step_ms;
        Some(planned)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Write;

    use serde_json::Value;

    use super::*;
    use crate::source::matches::parse_kick_off;

    /// A folder of small matches: number of events is given by the match; the first is played on 2018-06-14 at 17:00.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["events", "three-sixty", "matches/43"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let event = |id: &str, index: i64, period: i64, time: &str, kind: &str, team: &str| {
            format!(
                r#"{{"id":"{id}","index":{index},"period":{period},"timestamp":"{time}","type":{{"id":1,"name":"{kind}"}},"team":{{"name":"{team}"}},"x":1.50}}"#
            )
        };
        let first = [
            event("a4", 4, 1, "00:00:09.000", "Pass", "Rød"),
            event("a1", 1, 1, "00:00:00.000", "Starting XI", "Rød"),
            event("a2", 2, 1, "00:00:00.000", "Starting XI", "Blå"),
            event("a3", 3, 2, "00:00:02.000", "Pass", "Blå"),
        ];
        fs::write(dir.path().join("events/11.json"), format!("[ {} ]\n", first.join(" ,\n  "))).unwrap();
        let second = [event("b1", 1, 1, "00:00:00.000", "Starting XI", "Gul"), event("b2", 2, 1, "00:00:01.000", "Starting XI", "Grøn")];
        gz(&dir.path().join("events/12.json.gz"), &format!("[{}]", second.join(",")));
        gz(
            &dir.path().join("three-sixty/11.json.gz"),
            r#"[{"event_uuid":"a3","visible_area":[1.10, 2],"freeze_frame":[ {"teammate" : true,"location":[3.0,4]}]}]"#,
        );
        fs::write(
            dir.path().join("matches/43/3.json"),
            r#"[{"match_id":11,"match_date":"2018-06-14","kick_off":"17:00:00.000"},{"match_id":12,"match_date":"2018-06-14","kick_off":null}]"#,
        )
        .unwrap();
        dir
    }

    fn gz(path: &Path, text: &str) {
        let mut out = flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap();
    }

    fn replay(dir: &Path, options: ReplayOptions) -> Vec<MatchEvent> {
        Replay::open(dir, &options).unwrap().map(Result::unwrap).collect()
    }

    fn json(event: &MatchEvent) -> Value {
        serde_json::from_slice(&event.payload).unwrap()
    }

    #[test]
    fn stamps_what_the_event_lacks_and_goes_by_index() {
        let dir = folder();
        let events = replay(dir.path(), ReplayOptions { matches: vec![11], ..Default::default() });
        let ids: Vec<_> = events.iter().map(|e| json(e)["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, ["a1", "a2", "a3", "a4"]);
        let third = json(&events[2]);
        assert_eq!((&third["match_id"], &third["home_team"], &third["away_team"]), (&11.into(), &"Rød".into(), &"Blå".into()));
        assert_eq!(third["event_time"], "2018-06-14T18:05:02.000Z");
        assert_eq!(events[0].key(), "11");
        assert_eq!(events.iter().map(|e| e.last).collect::<Vec<_>>(), [false, false, false, true]);
        // The event's own text is untouched, number for number.
        assert!(events[0].payload.starts_with(br#"{"id":"a1","index":1,"period":1,"timestamp":"00:00:00.000","type":{"id":1,"name":"Starting XI"}"#));
        assert!(String::from_utf8_lossy(&events[0].payload).contains(r#""x":1.50,"match_id":11"#));
    }

    #[test]
    fn joins_360_data_by_event() {
        let dir = folder();
        let events = replay(dir.path(), ReplayOptions { matches: vec![11], ..Default::default() });
        assert!(String::from_utf8_lossy(&events[2].payload).ends_with(r#""visible_area":[1.10,2],"freeze_frame":[{"teammate":true,"location":[3.0,4]}]}"#));
        assert_eq!(json(&events[1]).get("freeze_frame"), None);
    }

    #[test]
    fn kick_off_comes_from_the_list_or_the_default_or_the_option() {
        let dir = folder();
        let times = |events: &[MatchEvent]| events.iter().map(|e| json(e)["event_time"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        let unlisted = replay(dir.path(), ReplayOptions { matches: vec![12], ..Default::default() });
        assert_eq!(times(&unlisted), ["2018-01-01T00:00:00.000Z", "2018-01-01T00:00:01.000Z"]);
        let together = replay(dir.path(), ReplayOptions { kick_off_ms: Some(parse_kick_off("2020-01-01T10:00:00Z").unwrap()), ..Default::default() });
        let keys: Vec<_> = together.iter().map(|e| (e.match_id, e.event_time_ms % 86_400_000 - 36_000_000)).collect();
        assert_eq!(keys, [(11, 0), (11, 0), (12, 0), (12, 1_000), (11, 3_902_000), (11, 9_000)]);
    }

    #[test]
    fn rounds_have_ids_and_times_of_their_own() {
        let dir = folder();
        let options = ReplayOptions { endless: true, order: Order::SideBySide(1), ..Default::default() };
        let events: Vec<_> = Replay::open(dir.path(), &options).unwrap().take(14).map(Result::unwrap).collect();
        let ids: Vec<_> = events.iter().map(|e| e.match_id).collect();
        assert_eq!(ids, [12, 12, 11, 11, 11, 11, 112, 112, 111, 111, 111, 111, 212, 212]);
        let step = events[6].event_time_ms - events[0].event_time_ms;
        assert_eq!(step, 165 * DAY_MS, "from 1 January 00:00 to 14 June 17:00, in whole days");
        assert_eq!(json(&events[6])["match_id"], 112);
        assert!(events[6].event_time_ms > events[5].event_time_ms);
    }

    #[test]
    fn a_seed_draws_the_order() {
        let dir = folder();
        let order = |seed| {
            let options = ReplayOptions { seed: Some(seed), order: Order::SideBySide(1), ..Default::default() };
            replay(dir.path(), options)[0].match_id
        };
        assert_eq!(order(3), order(3));
        assert_eq!((0..20).map(order).collect::<std::collections::HashSet<_>>().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_file() {
        let dir = folder();
        let open = |options: ReplayOptions| Replay::open(dir.path(), &options).and_then(|r| r.collect::<Result<Vec<_>>>()).unwrap_err().to_string();
        assert!(open(ReplayOptions { matches: vec![99], ..Default::default() }).contains("no match 99"));
        assert!(open(ReplayOptions { matches: vec![11, 11], ..Default::default() }).contains("twice"));
        fs::write(dir.path().join("events/13.json"), "[{\"id\":").unwrap();
        assert!(open(ReplayOptions::default()).contains("events/13.json is not the JSON"));
        fs::write(dir.path().join("events/13.json"), r#"[{"id":"c"}]"#).unwrap();
        assert!(open(ReplayOptions::default()).contains("event 1 is not one of StatsBomb's"));
        fs::write(dir.path().join("events/13.json"), "[]").unwrap();
        assert!(open(ReplayOptions::default()).contains("Starting XI"));
        fs::write(dir.path().join("events/lineups.json"), "[]").unwrap();
        assert!(open(ReplayOptions::default()).contains("not named by a match id"));
        let empty = tempfile::tempdir().unwrap();
        assert!(Replay::open(empty.path(), &ReplayOptions::default()).unwrap_err().to_string().contains("no folder 'events'"));
        assert!(Replay::open(&empty.path().join("x"), &ReplayOptions::default()).unwrap_err().to_string().contains("is no folder"));
        fs::create_dir(empty.path().join("events")).unwrap();
        assert!(Replay::open(empty.path(), &ReplayOptions::default()).unwrap_err().to_string().contains("holds no match"));
    }
}
