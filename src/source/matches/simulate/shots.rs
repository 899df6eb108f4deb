//! Shots: their expected goals, what becomes of them, and the goalkeeper's part in it.

use super::draft::{Detail, Draft, Named, Pass, Shot, Side, kind};
use super::pitch::{Spot, expected_goals};
use super::play::{Flow, Play, Restart, Touch};
use super::sight::shot_frame;
use super::touches::{HEAD, LEFT_FOOT, RIGHT_FOOT};

const OPEN_PLAY: Named = (87, "Open Play");
const FREE_KICK: Named = (62, "Free Kick");
const PENALTY: Named = (88, "Penalty");
const NORMAL: Named = (93, "Normal");

const BLOCKED: Named = (96, "Blocked");
const GOAL: Named = (97, "Goal");
const OFF_TARGET: Named = (98, "Off T");
const POST: Named = (99, "Post");
const SAVED: Named = (100, "Saved");
const WAYWARD: Named = (101, "Wayward");

/// What a penalty is worth.
const PENALTY_GOALS: f64 = 0.76;

impl Play {
    /// A shot from open play.
    pub(super) fn shoot(&mut self, touch: Touch, under_pressure: bool) -> Flow {
        let header = touch.at.x > 1_080 && self.dice.chance(0.3);
        let body_part = if header { HEAD } else { self.dice.pick([(RIGHT_FOOT, 0.62), (LEFT_FOOT, 0.38)]) };
        let technique = if header { NORMAL } else { self.dice.pick([(NORMAL, 0.84), ((95, "Volley"), 0.08), ((91, "Half Volley"), 0.08)]) };
        let worth = expected_goals(touch.at) * (0.6 + 0.8 * self.dice.unit()) * if header { 0.6 } else { 1.0 } * if under_pressure { 0.85 } else { 1.0 };
        self.strike(touch, under_pressure, OPEN_PLAY, worth, body_part, technique)
    }

    /// A free kick straight at the goal.
    pub(super) fn shoot_free_kick(&mut self, touch: Touch) -> Flow {
        let worth = 0.02 + expected_goals(touch.at) * 0.7;
        let body_part = self.dice.pick([(RIGHT_FOOT, 0.7), (LEFT_FOOT, 0.3)]);
        self.strike(touch, false, FREE_KICK, worth, body_part, NORMAL)
    }

    /// A penalty.
    pub(super) fn shoot_penalty(&mut self, touch: Touch) -> Flow {
        let body_part = self.dice.pick([(RIGHT_FOOT, 0.75), (LEFT_FOOT, 0.25)]);
        self.strike(touch, false, PENALTY, PENALTY_GOALS, body_part, NORMAL)
    }

    fn strike(&mut self, touch: Touch, under_pressure: bool, shot_kind: Named, worth: f64, body_part: Named, technique: Named) -> Flow {
        let Touch { player, at, origin } = touch;
        let side = player.side;
        let worth = worth.clamp(0.003, 0.97);
        let is_penalty = shot_kind == PENALTY;
        // A goal has exactly the probability that the shot's expected goals say.
        let outcome = match self.dice.chance(worth) {
            true => GOAL,
            false if is_penalty => self.dice.pick([(SAVED, 0.7), (OFF_TARGET, 0.2), (POST, 0.1)]),
            false => self.dice.pick([(OFF_TARGET, 340.0), (BLOCKED, 259.0), (SAVED, 211.0), (WAYWARD, 72.0), (POST, 17.0)]),
        };
        let (end, end_height) = self.shot_end(at, outcome);
        let frame = if is_penalty { Vec::new() } else { shot_frame(player, at, self.writer.formations, &self.elevens, &mut self.dice) };
        let shot_index = self.next_index();
        let key_pass = if shot_kind == OPEN_PLAY { self.assist(touch, shot_index, outcome == GOAL) } else { None };
        let detail = Detail::Shot(Box::new(Shot {
            xg: (worth * 1e7).round() as i64,
            end,
            end_height,
            key_pass,
            technique,
            kind: shot_kind,
            body_part,
            outcome,
            first_time: shot_kind == OPEN_PLAY && body_part != HEAD && self.dice.chance(0.25),
            frame,
        }));
        let duration = (at.distance(end) * 42.0) as i64 + 120;
        let draft = self.by(kind::SHOT, player, at);
        let shot = self.emit(Draft { duration_ms: Some(duration), under_pressure, detail, ..draft });
        origin.into_iter().for_each(|origin| self.relate(shot, origin));
        self.now_ms += duration;
        if outcome == BLOCKED {
            let there = end.seen_by_opponent();
            let blocker = self.player_near(1 - side, there);
            let block = self.by(kind::BLOCK, blocker, there);
            let block = self.emit(block);
            self.relate(shot, block);
        }
        let held = outcome == SAVED && self.dice.chance(0.55);
        self.keep_goal(shot, 1 - side, outcome, is_penalty, held);
        self.after_shot(side, outcome, end, held)
    }

    /// Where the shot ended, and how high.
    fn shot_end(&mut self, at: Spot, outcome: Named) -> (Spot, Option<i64>) {
        match outcome {
            BLOCKED => (Spot::new(at.x + self.dice.between(15, 60), at.y).near(&mut self.dice, 20), None),
            SAVED => (Spot::new(1_180, self.dice.between(366, 434)), Some(self.dice.between(1, 24))),
            GOAL => (Spot::new(1_200, self.dice.between(363, 437)), Some(self.dice.between(0, 26))),
            POST => (Spot::new(1_200, self.dice.pick([(362, 0.5), (438, 0.5)])), Some(self.dice.between(3, 27))),
            _ => {
                let wide = self.dice.between(5, 120);
                let left = self.dice.chance(0.5);
                (Spot::new(1_200, if left { 360 - wide } else { 440 + wide }), Some(self.dice.between(2, 60)))
            }
        }
    }

    /// If the shooter has the ball from a pass, that pass assisted the shot.
    fn assist(&mut self, touch: Touch, shot: u32, goal: bool) -> Option<u32> {
        let (pass, recipient) = self.last_pass.take()?;
        if recipient != touch.player {
            return None;
        }
        let Detail::Pass(Pass { flags, assisted_shot, .. }) = &mut self.draft_mut(pass)?.detail else { return None };
        flags.push(if goal { "goal_assist" } else { "shot_assist" });
        *assisted_shot = Some(shot);
        Some(pass)
    }

    fn keep_goal(&mut self, shot: u32, side: Side, outcome: Named, penalty: bool, held: bool) {
        type Members = &'static [(&'static str, Named)];
        const STANDING: Members = &[("type", (33, "Shot Saved")), ("outcome", (15, "Success")), ("technique", (46, "Standing")), ("position", (44, "Set"))];
        const DIVING: Members =
            &[("type", (33, "Shot Saved")), ("outcome", (52, "In Play Danger")), ("technique", (45, "Diving")), ("position", (42, "Moving"))];
        let members: Members = match outcome {
            GOAL if penalty => &[("type", (28, "Penalty Conceded")), ("outcome", (55, "No Touch"))],
            GOAL => &[("type", (26, "Goal Conceded")), ("outcome", (55, "No Touch")), ("position", (44, "Set"))],
            SAVED if penalty => &[("type", (29, "Penalty Saved")), ("outcome", (52, "In Play Danger"))],
            SAVED if held => STANDING,
            SAVED => DIVING,
            _ => &[("type", (32, "Shot Faced")), ("position", (44, "Set"))],
        };
        let keeper = self.player_at(side, 0);
        let at = Spot::new(25, 400).near(&mut self.dice, 30);
        let draft = self.by(kind::GOAL_KEEPER, keeper, at);
        let keeping = self.emit(Draft { detail: Detail::Named("goalkeeper", members), ..draft });
        self.relate(shot, keeping);
    }

    fn after_shot(&mut self, side: Side, outcome: Named, end: Spot, held: bool) -> Flow {
        let restart = match outcome {
            GOAL => Restart::KickOff(1 - side),
            SAVED if held => return self.keeper_has_it(1 - side),
            SAVED if self.dice.chance(0.45) => Restart::Corner(side),
            SAVED | POST => {
                let rebound = Spot::new(1_100, end.y).near(&mut self.dice, 120);
                return self.second_ball(side, rebound);
            }
            BLOCKED if self.dice.chance(0.25) => Restart::Corner(side),
            BLOCKED => {
                let rebound = end.near(&mut self.dice, 100);
                return self.second_ball(side, rebound);
            }
            _ => Restart::GoalKick(1 - side),
        };
        Flow::Over(restart)
    }

    fn keeper_has_it(&mut self, side: Side) -> Flow {
        self.wait(2_000, 9_000);
        self.new_possession(side, super::draft::pattern::KEEPER);
        let player = self.player_at(side, 0);
        Flow::Over(Restart::Won(Touch { player, at: Spot::new(60, 400), origin: None }))
    }
}
