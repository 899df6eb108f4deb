//! When the ball is dead: restarts, fouls, cards, substitutions, injuries, and the beginning and end of a period.

use super::draft::{Detail, Draft, Named, Player, Side, kind, pattern};
use super::pitch::Spot;
use super::play::{Flow, Play, Restart, Touch};
use super::teams::{SQUAD, tactics_json};
use super::touches::pass_kind;
use crate::source::matches::event::Period;

const YELLOW: Named = (7, "Yellow Card");
const SECOND_YELLOW: Named = (6, "Second Yellow");
const RED: Named = (5, "Red Card");

/// How many a team may bring on.
const MOST_SUBSTITUTES: u8 = 5;
/// A half.
const HALF_MS: i64 = 45 * 60_000;

impl Play {
    /// Goes on from where the last possession ended.
    pub(super) fn resume(&mut self) -> Flow {
        match self.restart {
            Restart::Won(touch) => Flow::Keep(touch),
            Restart::KickOff(side) => {
                self.new_possession(side, pattern::KICK_OFF);
                let striker = self.player_at(side, 10);
                self.kick(striker, Spot::new(600, 400), pass_kind::KICK_OFF)
            }
            Restart::ThrowIn(side, at) => {
                self.dead_ball(5_000, 20_000);
                self.new_possession(side, pattern::THROW_IN);
                let thrower = self.player_near(side, at);
                self.kick(thrower, at, pass_kind::THROW_IN)
            }
            Restart::GoalKick(side) => {
                self.dead_ball(14_000, 34_000);
                self.new_possession(side, pattern::GOAL_KICK);
                let keeper = self.player_at(side, 0);
                self.kick(keeper, Spot::new(60, 400), pass_kind::GOAL_KICK)
            }
            Restart::Corner(side) => {
                self.dead_ball(18_000, 42_000);
                self.new_possession(side, pattern::CORNER);
                let at = Spot::new(1_200, self.dice.pick([(1, 0.5), (800, 0.5)]));
                let taker = self.player_near(side, at);
                self.kick(taker, at, pass_kind::CORNER)
            }
            Restart::FreeKick(side, at) => {
                self.dead_ball(14_000, 52_000);
                self.new_possession(side, pattern::FREE_KICK);
                let taker = self.player_near(side, at);
                let in_range = at.x > 880 && (200..=600).contains(&at.y);
                if in_range && self.dice.chance(0.7) {
                    return self.shoot_free_kick(Touch { player: taker, at, origin: None });
                }
                self.kick(taker, at, pass_kind::FREE_KICK)
            }
            Restart::Penalty(side) => {
                self.dead_ball(60_000, 150_000);
                self.new_possession(side, pattern::OTHER);
                let taker = self.player_at(side, 10);
                self.shoot_penalty(Touch { player: taker, at: Spot::new(1_080, 400), origin: None })
            }
        }
    }

    fn kick(&mut self, player: Player, at: Spot, kind: Named) -> Flow {
        self.pass(Touch { player, at, origin: None }, Some(kind), None)
    }

    /// Time passes; the camera looks elsewhere, a player is replaced.
    fn dead_ball(&mut self, from_ms: i64, to_ms: i64) {
        self.wait(from_ms / 2, to_ms / 2);
        if self.dice.chance(0.3) {
            let side = self.possession_side;
            if self.dice.chance(0.25) {
                let off = self.of_team(kind::CAMERA_OFF, side);
                self.emit(off);
                self.wait(500, 3_000);
            }
            let on = self.of_team(kind::CAMERA_ON, side);
            self.emit(on);
        }
        if self.period == Period::SECOND && self.now_ms > HALF_MS / 6 && self.dice.chance(0.13) {
            let side = self.dice.below(2);
            self.substitute(side, false);
        }
        self.wait(from_ms / 2, to_ms / 2);
    }

    /// An opponent fouls the player with the ball.
    pub(super) fn foul(&mut self, touch: Touch) -> Flow {
        let Touch { player: victim, at, .. } = touch;
        let there = at.seen_by_opponent();
        let culprit = self.player_near(1 - victim.side, there);
        let penalty = at.in_box() && self.dice.chance(0.35);
        if at.in_box() && !penalty {
            // Referees look the other way: play goes on.
            return self.pass(touch, None, None);
        }
        let card = self.draw_card(culprit);
        let draft = self.by(kind::FOUL_COMMITTED, culprit, there);
        let foul = self.emit(Draft { detail: Detail::Foul { card, penalty }, ..draft });
        let draft = self.by(kind::FOUL_WON, victim, at);
        let flags: &[_] = if penalty {
            &["penalty"]
        } else if at.x < 400 {
            &["defensive"]
        } else {
            &[]
        };
        let detail = if flags.is_empty() { Detail::None } else { Detail::Flags("foul_won", flags) };
        let under_pressure = self.dice.chance(0.1);
        let won = self.emit(Draft { under_pressure, detail, ..draft });
        self.relate(foul, won);
        touch.origin.into_iter().for_each(|origin| self.relate(foul, origin));
        if card.is_some() {
            self.wait(8_000, 25_000);
            if matches!(card, Some(RED | SECOND_YELLOW)) {
                self.send_off(culprit);
            }
        }
        if self.dice.chance(0.06) {
            self.injury(victim.side);
        }
        if self.dice.chance(0.02) {
            self.bad_behaviour();
        }
        Flow::Over(if penalty { Restart::Penalty(victim.side) } else { Restart::FreeKick(victim.side, at) })
    }

    fn draw_card(&mut self, culprit: Player) -> Option<Named> {
        let roll = self.dice.unit();
        // Keepers stay on, so that there is always somebody in goal.
        if roll < 0.003 && culprit.place != 0 {
            return Some(RED);
        }
        if roll > 0.105 {
            return None;
        }
        let cautioned = &mut self.cautioned[culprit.side][usize::from(culprit.squad)];
        match std::mem::replace(cautioned, true) {
            false => Some(YELLOW),
            // Who has one already is careful: half of them get away.
            true if roll < 0.05 && culprit.place != 0 => Some(SECOND_YELLOW),
            true => None,
        }
    }

    fn send_off(&mut self, player: Player) {
        self.elevens[player.side][usize::from(player.place)] = None;
    }

    /// A card for something that is no foul.
    fn bad_behaviour(&mut self) {
        let side = self.dice.below(2);
        let place = 1 + self.dice.below(10);
        let player = self.player_at(side, place);
        if std::mem::replace(&mut self.cautioned[side][usize::from(player.squad)], true) {
            return;
        }
        let draft = Draft { player: Some(player), ..self.of_team(kind::BAD_BEHAVIOUR, side) };
        self.emit(Draft { detail: Detail::Named("bad_behaviour", &[("card", YELLOW)]), ..draft });
    }

    fn injury(&mut self, side: Side) {
        let draft = self.of_team(kind::INJURY_STOPPAGE, side);
        self.emit(Draft { detail: Detail::Flags("injury_stoppage", &["in_chain"]), ..draft });
        let other = self.of_team(kind::INJURY_STOPPAGE, 1 - side);
        self.emit(other);
        self.wait(30_000, 110_000);
        if self.dice.chance(0.15) {
            self.substitute(side, true);
        }
    }

    /// Brings on the next player from the bench.
    fn substitute(&mut self, side: Side, injured: bool) {
        if self.substitutes[side] >= MOST_SUBSTITUTES {
            return;
        }
        let place = 1 + self.dice.below(10);
        let player = self.player_at(side, place);
        if player.place == 0 {
            return;
        }
        let replacement = 11 + self.substitutes[side];
        debug_assert!(usize::from(replacement) < SQUAD);
        self.substitutes[side] += 1;
        let outcome = if injured { r#"{"id":102,"name":"Injury"}"# } else { r#"{"id":103,"name":"Tactical"}"# };
        let coming = &self.writer.teams[side].players[usize::from(replacement)];
        let detail = Detail::Ready("substitution", format!(r#"{{"outcome":{outcome},"replacement":{coming}}}"#));
        let draft = Draft { player: Some(player), ..self.of_team(kind::SUBSTITUTION, side) };
        self.emit(Draft { detail, ..draft });
        self.elevens[side][usize::from(player.place)] = Some(replacement);
        self.wait(5_000, 20_000);
        if self.dice.chance(0.3) {
            let draft = self.of_team(kind::TACTICAL_SHIFT, side);
            let detail = Detail::Ready("tactics", self.tactics(side));
            self.emit(Draft { duration_ms: Some(0), detail, ..draft });
        }
    }

    /// Who plays where, as JSON.
    pub(super) fn tactics(&self, side: Side) -> String {
        tactics_json(&self.writer.teams[side], self.writer.formations[side], &self.elevens[side])
    }

    /// A defender puts the ball into their own goal. There is no shot: the goal stands in this pair of events alone.
    pub(super) fn own_goal(&mut self, scoring: Side, there: Spot) -> Flow {
        let unlucky = self.player_near(1 - scoring, there);
        let draft = self.by(kind::OWN_GOAL_AGAINST, unlucky, there);
        let against = self.emit(draft);
        let draft = self.of_team(kind::OWN_GOAL_FOR, scoring);
        let own_goal = self.emit(draft);
        self.relate(against, own_goal);
        Flow::Over(Restart::KickOff(1 - scoring))
    }

    /// The whistle for a period.
    pub(super) fn start_period(&mut self) {
        let stoppage = if self.period == Period::FIRST { self.dice.between(40_000, 200_000) } else { self.dice.between(120_000, 330_000) };
        self.now_ms = 0;
        self.period_end_ms = HALF_MS + stoppage;
        self.both_teams(kind::HALF_START, Some(0));
        self.wait(40, 900);
    }

    /// The whistle that ends a period; `touch` is the player who has the ball then.
    pub(super) fn end_period(&mut self, touch: Option<Touch>) {
        if let (Some(touch), Period::FIRST, true) = (touch, self.period, self.late_receipt) {
            self.receive_late(touch);
        }
        self.both_teams(kind::HALF_END, None);
        if self.period == Period::FIRST {
            self.period = Period::SECOND;
            self.restart = Restart::KickOff(1 - self.first_kick_off);
            self.start_period();
            for side in [0, 1] {
                if self.dice.chance(0.2) {
                    self.substitute(side, false);
                }
            }
        } else {
            self.over = true;
        }
    }

    /// What real data does in four matches of ten: the last pass of the first half is received with the time of its beginning.
    fn receive_late(&mut self, touch: Touch) {
        let Flow::Keep(received) = self.pass(touch, None, None) else { return };
        if let Some(receipt) = received.origin {
            let late_ms = self.dice.between(80, 2_500);
            self.draft_mut(receipt).into_iter().for_each(|draft| draft.at_ms = late_ms);
        }
    }

    fn both_teams(&mut self, kind: Named, duration_ms: Option<i64>) {
        let [home, away] = [0, 1].map(|side| {
            let draft = self.of_team(kind, side);
            self.emit(Draft { duration_ms, ..draft })
        });
        self.relate(home, away);
    }
}
