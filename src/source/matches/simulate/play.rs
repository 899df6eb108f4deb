//! A match being played: its state, and the loop that plays one possession after another.

use std::collections::VecDeque;

use super::Fixture;
use super::chance::{Dice, mix};
use super::draft::{Detail, Draft, Named, Player, Side, kind, pattern};
use super::pitch::Spot;
use super::sight::{Elevens, three_sixty};
use super::teams::{FORMATIONS, SQUAD, TEAM_COUNT, Team};
use super::write::{Place, Writer};
use crate::source::matches::event::{Frame, MatchEvent, Period, Stamp};

/// One match, as an iterator of its events.
#[derive(Debug)]
pub struct Play {
    pub(super) dice: Dice,
    /// Draws for 360 data alone, so that asking for more of it changes nothing about the match.
    camera: Dice,
    pub(super) writer: Writer,
    stamp: Stamp,
    three_sixty: f64,
    /// Whether the last pass of the first half is received late.
    pub(super) late_receipt: bool,
    pub(super) period: Period,
    /// Milliseconds into the period.
    pub(super) now_ms: i64,
    /// When the referee looks for a moment to end the period.
    pub(super) period_end_ms: i64,
    possession: u32,
    pub(super) possession_side: Side,
    pattern: Named,
    /// Who kicked off the first half.
    pub(super) first_kick_off: Side,
    /// How play goes on.
    pub(super) restart: Restart,
    /// Who is on the pitch.
    pub(super) elevens: Elevens,
    /// How many have come on.
    pub(super) substitutes: [u8; 2],
    /// Who has a yellow card, by place in the squad.
    pub(super) cautioned: [[bool; SQUAD]; 2],
    /// The newest pass that arrived, and with whom: it assists a shot that they take next.
    pub(super) last_pass: Option<(u32, Player)>,
    /// Events that others may still name.
    drafts: Vec<(Draft, Place)>,
    /// The index of the next event.
    next_index: u32,
    ready: VecDeque<MatchEvent>,
    pub(super) over: bool,
}

/// How play goes on after a possession.
#[derive(Debug, Clone, Copy)]
pub enum Restart {
    /// From the centre spot.
    KickOff(Side),
    /// From the touchline, seen by the team that throws.
    ThrowIn(Side, Spot),
    /// From the own six-yard box.
    GoalKick(Side),
    /// From a corner.
    Corner(Side),
    /// From where the foul was.
    FreeKick(Side, Spot),
    /// From the penalty spot.
    Penalty(Side),
    /// A player has won the ball.
    Won(Touch),
}

/// A player with the ball.
#[derive(Debug, Clone, Copy)]
pub struct Touch {
    /// Who.
    pub player: Player,
    /// Where.
    pub at: Spot,
    /// The event that brought the ball, by index.
    pub origin: Option<u32>,
}

/// What comes of a touch.
#[derive(Debug, Clone, Copy)]
pub enum Flow {
    /// The same team goes on.
    Keep(Touch),
    /// The possession has ended.
    Over(Restart),
}

impl Play {
    /// The match of a fixture, before its first event.
    pub(super) fn new(fixture: &Fixture) -> Self {
        let mut dice = Dice::new(fixture.options.seed, fixture.number);
        let (home, away) = pairing(fixture.options.seed, fixture.number);
        let teams = [Team::new(home), Team::new(away)];
        let formations = [0, 1].map(|_| &FORMATIONS[dice.below(FORMATIONS.len())]);
        let stamp = Stamp::new(fixture.match_id(), teams[0].name, teams[1].name, fixture.kick_off_ms);
        let id_seed = mix(mix(fixture.options.seed) ^ fixture.number);
        let first = dice.below(2);
        let mut play = Self {
            late_receipt: dice.chance(0.4) && fixture.options.late_receipts,
            camera: Dice::new(fixture.options.seed, fixture.number | 1 << 63),
            dice,
            writer: Writer { teams, formations, id_seed },
            stamp,
            three_sixty: fixture.options.three_sixty,
            period: Period::FIRST,
            now_ms: 0,
            period_end_ms: 0,
            possession: 1,
            possession_side: first,
            pattern: pattern::REGULAR,
            first_kick_off: first,
            restart: Restart::KickOff(first),
            elevens: [std::array::from_fn(|place| Some(place as u8)); 2],
            substitutes: [0; 2],
            cautioned: [[false; SQUAD]; 2],
            last_pass: None,
            drafts: Vec::with_capacity(64),
            next_index: 1,
            ready: VecDeque::with_capacity(64),
            over: false,
        };
        play.line_up();
        play.start_period();
        play
    }

    /// Plays until the possession ends, the period ends with it, or the ball is lost.
    fn play_possession(&mut self) {
        let mut flow = self.resume();
        loop {
            match flow {
                Flow::Over(restart) => {
                    self.restart = restart;
                    break;
                }
                // No referee ends a period while a team is about to shoot, unless it takes them too long.
                Flow::Keep(touch) if self.now_ms >= self.period_end_ms && (touch.at.x < 900 || self.now_ms > self.period_end_ms + 60_000) => {
                    self.end_period(Some(touch));
                    break;
                }
                Flow::Keep(touch) => flow = self.act(touch),
            }
        }
        if let Restart::Won(_) = self.restart {
            return;
        }
        // The ball is dead: the other moment to end a period.
        if !self.over && self.now_ms >= self.period_end_ms {
            self.end_period(None);
        }
    }

    /// From here on, events belong to a new possession.
    pub(super) fn new_possession(&mut self, side: Side, pattern: Named) {
        self.possession += 1;
        self.possession_side = side;
        self.pattern = pattern;
    }

    /// Adds an event and returns its index.
    pub(super) fn emit(&mut self, draft: Draft) -> u32 {
        let index = self.next_index;
        let place = Place { index, period: self.period, possession: self.possession, possession_side: self.possession_side, pattern: self.pattern };
        self.drafts.push((draft, place));
        self.next_index += 1;
        index
    }

    /// The index that the next event will have.
    pub(super) fn next_index(&self) -> u32 {
        self.next_index
    }

    /// An event that is not written yet.
    pub(super) fn draft_mut(&mut self, index: u32) -> Option<&mut Draft> {
        let first = self.drafts.first()?.1.index;
        self.drafts.get_mut(index.checked_sub(first)? as usize).map(|(draft, _)| draft)
    }

    /// Makes two events name each other. One that is written already can't be changed any more, so then neither names the other.
    pub(super) fn relate(&mut self, one: u32, other: u32) {
        const MOST: usize = 5;
        let room = |draft: Option<&mut Draft>| draft.is_some_and(|draft| draft.related.len() < MOST);
        if room(self.draft_mut(one)) && room(self.draft_mut(other)) {
            self.draft_mut(one).into_iter().for_each(|draft| draft.related.push(other));
            self.draft_mut(other).into_iter().for_each(|draft| draft.related.push(one));
        }
    }

    /// An event of a player, now.
    pub(super) fn by(&self, kind: Named, player: Player, at: Spot) -> Draft {
        Draft { player: Some(player), location: Some(at), ..self.of_team(kind, player.side) }
    }

    /// An event of a team, now.
    pub(super) fn of_team(&self, kind: Named, side: Side) -> Draft {
        Draft {
            kind,
            at_ms: self.now_ms,
            side,
            player: None,
            location: None,
            duration_ms: None,
            under_pressure: false,
            counterpress: false,
            related: Vec::new(),
            detail: Detail::None,
        }
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, from_ms: i64, to_ms: i64) {
        self.now_ms += self.dice.between(from_ms, to_ms);
    }

    /// The player of a place; if they were sent off, the next one who is still there.
    pub(super) fn player_at(&self, side: Side, place: usize) -> Player {
        let on_pitch = |place: usize| self.elevens[side][place].map(|squad| Player { side, squad, place: place as u8 });
        (0..11).find_map(|step| on_pitch((place + step) % 11)).expect("a team is never without its goalkeeper")
    }

    /// The player of a team, not its keeper, who would be about here; seen by that team.
    pub(super) fn player_near(&mut self, side: Side, at: Spot) -> Player {
        let tries: [usize; 4] = std::array::from_fn(|_| 1 + self.dice.below(10));
        let distance = |place: usize| self.writer.formations[side].positions[place].home.distance(at);
        let nearest = tries.into_iter().min_by(|a, b| distance(*a).total_cmp(&distance(*b))).unwrap_or(1);
        self.player_at(side, nearest)
    }

    /// Writes what was played.
    fn flush(&mut self) {
        let count = self.drafts.len();
        let (mut area, mut frame) = (Vec::new(), Vec::new());
        for (number, (draft, place)) in self.drafts.drain(..).enumerate() {
            let mut payload = Vec::with_capacity(896);
            self.writer.write(&mut payload, &draft, &place);
            let event_time_ms = self.stamp.event_time_ms(place.period, draft.at_ms);
            let seen = draft.player.zip(draft.location).filter(|_| self.three_sixty > 0.0 && self.camera.chance(self.three_sixty));
            if let Some((player, at)) = seen {
                area.clear();
                frame.clear();
                three_sixty(&mut area, &mut frame, player, at, self.writer.formations, &self.elevens, &mut self.camera);
            }
            let frame = seen.map(|_| Frame { visible_area: Some(&area), freeze_frame: &frame });
            self.stamp.finish(&mut payload, event_time_ms, frame);
            let last = self.over && number + 1 == count;
            self.ready.push_back(MatchEvent { match_id: self.stamp.match_id(), event_time_ms, last, payload });
        }
    }

    /// The teams as they start.
    fn line_up(&mut self) {
        for side in [0, 1] {
            let draft = self.of_team(kind::STARTING_XI, side);
            let tactics = Detail::Ready("tactics", self.tactics(side));
            self.emit(Draft { duration_ms: Some(0), detail: tactics, ..draft });
        }
    }
}

/// Who plays match `number`. In ten matches that follow each other every team of the twenty plays once, so that with ten
/// matches side by side nobody plays two at a time.
fn pairing(seed: u64, number: u64) -> (usize, usize) {
    const TOGETHER: u64 = TEAM_COUNT as u64 / 2;
    let mut draw = Dice::new(mix(seed), number / TOGETHER);
    let mut teams: [usize; TEAM_COUNT] = std::array::from_fn(|team| team);
    for last in (1..TEAM_COUNT).rev() {
        teams.swap(last, draw.below(last + 1));
    }
    let pair = 2 * (number % TOGETHER) as usize;
    (teams[pair], teams[pair + 1])
}

impl Iterator for Play {
    type Item = MatchEvent;

    fn next(&mut self) -> Option<MatchEvent> {
        /// Enough for any relation to find its partner; bounds what a match keeps in memory.
        const MOST_DRAFTS: usize = 200;
        while self.ready.is_empty() && !self.over {
            self.play_possession();
            // Events on both sides of a won ball name each other; over a dead ball they never do.
            if self.over || !matches!(self.restart, Restart::Won(_)) || self.drafts.len() > MOST_DRAFTS {
                self.flush();
            }
        }
        self.ready.pop_front()
    }
}
