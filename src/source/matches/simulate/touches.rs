//! What a player does with the ball: carry it under pressure or not, pass, dribble, lose it.

use super::draft::{Detail, Draft, Named, Pass, Player, kind, pattern};
use super::pitch::{Spot, expected_goals};
use super::play::{Flow, Play, Restart, Touch};
use super::sight::stands;

const GROUND: Named = (1, "Ground Pass");
const LOW: Named = (2, "Low Pass");
const HIGH: Named = (3, "High Pass");
pub(super) const RIGHT_FOOT: Named = (40, "Right Foot");
pub(super) const LEFT_FOOT: Named = (38, "Left Foot");
pub(super) const HEAD: Named = (37, "Head");
const INCOMPLETE: Named = (9, "Incomplete");

/// How a pass fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Recovered,
    Intercepted,
    Cleared,
    Blocked,
    Headed,
    Collected,
    Out,
    Offside,
}

/// How a pass is started again after the ball was dead, and from a recovery.
pub(super) mod pass_kind {
    use super::Named;

    pub const CORNER: Named = (61, "Corner");
    pub const FREE_KICK: Named = (62, "Free Kick");
    pub const GOAL_KICK: Named = (63, "Goal Kick");
    pub const KICK_OFF: Named = (65, "Kick Off");
    pub const RECOVERY: Named = (66, "Recovery");
    pub const THROW_IN: Named = (67, "Throw-in");
}

impl Play {
    /// One touch of the ball.
    pub(super) fn act(&mut self, touch: Touch) -> Flow {
        let (touch, carry) = self.carry(touch);
        let pressure = self.press(touch, carry);
        let Touch { player, at, .. } = touch;
        // Hardly anybody shoots from further than 30 yards.
        let willing = match at.x {
            ..880 => 0.0,
            880..960 => 0.06,
            960..1_100 => 0.21 + expected_goals(at) * 1.25,
            _ => 0.27 + expected_goals(at) * 0.6,
        };
        let shot = willing * self.writer.teams[player.side].strength;
        if player.place == 0 {
            // A goalkeeper takes no risks.
            return self.pass(touch, None, pressure);
        }
        let roll = self.dice.unit();
        let under_pressure = pressure.is_some();
        match roll {
            r if r < 0.030 => self.foul(touch),
            r if r < 0.046 => self.miscontrol(touch, pressure),
            r if r < 0.064 => self.dispossessed(touch, pressure),
            r if r < 0.098 => self.dribble(touch, under_pressure),
            r if r < 0.098 + shot => self.shoot(touch, under_pressure),
            _ => self.pass(touch, None, pressure),
        }
    }

    /// Runs with the ball, or plays it at once.
    fn carry(&mut self, touch: Touch) -> (Touch, Option<u32>) {
        if !self.dice.chance(0.83) {
            self.wait(0, 300);
            return (touch, None);
        }
        // Most carries are short: 1.4 s at the median, 3.8 s at the ninth decile.
        let share = self.dice.unit();
        let duration = 200 + (share * share * 5_100.0) as i64;
        let reach = self.dice.between(10, 45) * duration / 1000;
        let at = touch.at;
        let end = Spot::new((at.x + reach * self.dice.between(-25, 100) / 100).min(1140), (at.y + self.dice.around(reach)).clamp(10, 790));
        let draft = self.by(kind::CARRY, touch.player, at);
        let carry = self.emit(Draft { duration_ms: Some(duration), detail: Detail::Carry(end), ..draft });
        touch.origin.into_iter().for_each(|origin| self.relate(carry, origin));
        self.now_ms += duration;
        (Touch { at: end, origin: Some(carry), ..touch }, Some(carry))
    }

    /// An opponent may press the player, during a carry or as the ball comes.
    fn press(&mut self, touch: Touch, carry: Option<u32>) -> Option<u32> {
        if !self.dice.chance(0.26 + touch.at.x as f64 / 6_000.0) {
            return None;
        }
        let there = touch.at.seen_by_opponent().near(&mut self.dice, 30);
        let presser = self.player_near(1 - touch.player.side, there);
        let carried_ms = carry.and_then(|carry| self.draft_mut(carry)?.duration_ms).unwrap_or(0);
        let share = self.dice.unit();
        let duration = 250 + (share * share * 2_000.0) as i64;
        let at_ms = self.now_ms - self.dice.between(0, carried_ms);
        let counterpress = self.dice.chance(0.28);
        let draft = self.by(kind::PRESSURE, presser, there);
        let pressure = self.emit(Draft { at_ms, duration_ms: Some(duration), counterpress, ..draft });
        if let Some(carry) = carry {
            self.relate(pressure, carry);
            self.draft_mut(carry).into_iter().for_each(|carry| carry.under_pressure = true);
        }
        Some(pressure)
    }

    /// Plays the ball to a team-mate; `kind` says if it starts play again.
    pub(super) fn pass(&mut self, touch: Touch, kind: Option<Named>, pressure: Option<u32>) -> Flow {
        let Touch { player, at: from, origin } = touch;
        let (recipient, meant) = self.choose_recipient(player, from, kind);
        let length = from.distance(meant);
        let into_box = meant.in_box();
        let cross = from.x > 900 && !(200..=600).contains(&from.y) && into_box;
        let height = match length {
            _ if cross || kind == Some(pass_kind::CORNER) => HIGH,
            l if l > 30.0 => self.dice.pick([(HIGH, 0.8), (LOW, 0.1), (GROUND, 0.1)]),
            _ => self.dice.pick([(GROUND, 0.83), (LOW, 0.09), (HIGH, 0.08)]),
        };
        let hard = length * 0.0042 + if pressure.is_some() { 0.06 } else { 0.0 } + if meant.x > 950 { 0.14 } else { 0.0 };
        let hard = hard + if cross || kind == Some(pass_kind::CORNER) { 0.25 } else { 0.0 } - if length < 12.0 { 0.02 } else { 0.0 };
        let loss = self.dice.chance(0.025 + hard).then(|| self.choose_loss(meant, height, kind));

        let end = match loss {
            Some(Loss::Out) if meant.x > 1_080 => Spot::new(1200, meant.y),
            Some(Loss::Out) => Spot::new(meant.x, if meant.y < 400 { 1 } else { 800 }),
            // Blocked right where it was played.
            Some(Loss::Blocked) => from.near(&mut self.dice, 60),
            _ => meant,
        };
        let outcome = loss.map(|loss| match loss {
            Loss::Out => (75, "Out"),
            Loss::Offside => (76, "Pass Offside"),
            _ => INCOMPLETE,
        });
        let mut flags = Vec::new();
        if cross {
            flags.push("cross");
        }
        if (end.y - from.y).abs() > 360 {
            flags.push("switch");
        }
        let body_part = match kind {
            Some(pass_kind::THROW_IN) => None,
            Some(_) => Some(self.dice.pick([(RIGHT_FOOT, 0.7), (LEFT_FOOT, 0.3)])),
            None => Some(self.dice.pick([(RIGHT_FOOT, 0.65), (LEFT_FOOT, 0.29), (HEAD, 0.06)])),
        };
        let kind = kind.or_else(|| self.dice.chance(0.06).then_some(pass_kind::RECOVERY));
        let duration = (from.distance(end) * if height == HIGH { 62.0 } else { 72.0 }) as i64 + self.dice.between(150, 450);
        let known = loss.is_none() || self.dice.chance(0.72);
        let draft = self.by(kind::PASS, player, from);
        let detail = Detail::Pass(Pass { recipient: known.then_some(recipient), from, end, height, kind, body_part, outcome, flags, assisted_shot: None });
        let pass = self.emit(Draft { duration_ms: Some(duration), under_pressure: pressure.is_some(), detail, ..draft });
        origin.into_iter().chain(pressure).for_each(|earlier| self.relate(pass, earlier));
        self.now_ms += duration;

        let Some(loss) = loss else {
            let draft = self.by(kind::BALL_RECEIPT, recipient, end);
            let receipt = self.emit(draft);
            self.relate(pass, receipt);
            self.last_pass = Some((pass, recipient));
            return Flow::Keep(Touch { player: recipient, at: end, origin: Some(receipt) });
        };
        if known {
            let missed = end.near(&mut self.dice, 25);
            let draft = self.by(kind::BALL_RECEIPT, recipient, missed);
            let receipt = self.emit(Draft { detail: Detail::Named("ball_receipt", &[("outcome", INCOMPLETE)]), ..draft });
            self.relate(pass, receipt);
        }
        self.lose(loss, pass, recipient, end)
    }

    /// A team-mate and where they want the ball. The nearer and the further ahead, the likelier.
    fn choose_recipient(&mut self, player: Player, from: Spot, kind: Option<Named>) -> (Player, Spot) {
        let mut spots = [from; 11];
        let mut weights = [0.0; 11];
        let corner = kind == Some(pass_kind::CORNER);
        for place in 0..11 {
            if place == usize::from(player.place) || self.elevens[player.side][place].is_none() || (corner && place < 3) {
                continue;
            }
            let stand = stands(self.writer.formations[player.side], place, from, &mut self.dice);
            let spot = if corner { Spot::new(1_110, 400).near(&mut self.dice, 140) } else { stand };
            let yards = from.distance(spot).max(3.0);
            let ahead = if spot.x > from.x { 1.25 } else { 1.0 };
            let keeper = if place == 0 { 0.5 } else { 1.0 };
            // Goal kicks and free kicks go long more often.
            let reach = if matches!(kind, Some(pass_kind::GOAL_KICK | pass_kind::FREE_KICK)) { 45.0 } else { 15.0 };
            let near = 1.0 / (1.0 + (yards / reach) * (yards / reach));
            spots[place] = spot;
            weights[place] = near * ahead * keeper;
        }
        let place = self.dice.weighted(&weights);
        let recipient = self.player_at(player.side, if weights[place] > 0.0 { place } else { 0 });
        (recipient, spots[usize::from(recipient.place)])
    }

    fn choose_loss(&mut self, end: Spot, height: Named, kind: Option<Named>) -> Loss {
        let deep = end.x > 850;
        let open_play = kind.is_none();
        self.dice.pick([
            (Loss::Recovered, 30.0),
            (Loss::Intercepted, 14.0),
            (Loss::Cleared, if deep { 42.0 } else { 2.0 }),
            (Loss::Blocked, if open_play { 10.0 } else { 1.0 }),
            (Loss::Headed, if height == HIGH { 22.0 } else { 0.0 }),
            (Loss::Collected, if end.in_box() { 6.0 } else { 0.0 }),
            (Loss::Out, if kind == Some(pass_kind::CORNER) { 4.0 } else { 17.0 }),
            (Loss::Offside, if deep && open_play { 2.5 } else { 0.0 }),
        ])
    }

    /// The pass has failed: who has the ball now?
    fn lose(&mut self, loss: Loss, pass: u32, recipient: Player, end: Spot) -> Flow {
        let side = recipient.side;
        let there = end.seen_by_opponent();
        match loss {
            Loss::Recovered => self.recover(1 - side, there, Some(pass)),
            Loss::Intercepted => {
                let player = self.player_near(1 - side, there);
                let safe = self.dice.chance(0.75);
                if safe {
                    self.new_possession(1 - side, pattern::REGULAR);
                }
                let outcome: &[_] = if safe { &[("outcome", (4, "Won"))] } else { &[("outcome", (13, "Lost In Play"))] };
                let draft = self.by(kind::INTERCEPTION, player, there);
                let interception = self.emit(Draft { detail: Detail::Named("interception", outcome), ..draft });
                self.relate(pass, interception);
                if safe { Flow::Over(Restart::Won(Touch { player, at: there, origin: Some(interception) })) } else { self.recover(side, end, None) }
            }
            Loss::Cleared => {
                if end.in_box() && self.dice.chance(0.04) {
                    return self.own_goal(side, there);
                }
                let player = self.player_near(1 - side, there);
                let draft = self.by(kind::CLEARANCE, player, there);
                let under_pressure = self.dice.chance(0.3);
                let clearance = self.emit(Draft { under_pressure, ..draft });
                self.relate(pass, clearance);
                self.wait(900, 2_800);
                let away = Spot::new(end.x - 250, end.y).near(&mut self.dice, 200);
                self.second_ball(side, away)
            }
            Loss::Blocked => {
                let player = self.player_near(1 - side, there);
                let draft = self.by(kind::BLOCK, player, there);
                let block = self.emit(draft);
                self.relate(pass, block);
                self.second_ball(side, end)
            }
            Loss::Headed => {
                let winner = self.player_near(1 - side, there);
                let draft = self.by(kind::DUEL, recipient, end);
                let duel = self.emit(Draft { detail: Detail::Named("duel", &[("type", (10, "Aerial Lost"))]), ..draft });
                let draft = self.by(kind::CLEARANCE, winner, there);
                let clearance = self.emit(Draft { detail: Detail::Flags("clearance", &["aerial_won"]), ..draft });
                self.relate(duel, clearance);
                self.wait(700, 2_000);
                let away = end.near(&mut self.dice, 150);
                self.second_ball(side, away)
            }
            Loss::Collected => {
                let keeper = self.player_at(1 - side, 0);
                let draft = self.by(kind::GOAL_KEEPER, keeper, there);
                let collected = Detail::Named("goalkeeper", &[("type", (25, "Collected")), ("outcome", (15, "Success"))]);
                let collected = self.emit(Draft { detail: collected, ..draft });
                self.relate(pass, collected);
                self.wait(2_000, 9_000);
                self.new_possession(1 - side, pattern::KEEPER);
                Flow::Over(Restart::Won(Touch { player: keeper, at: there, origin: Some(collected) }))
            }
            Loss::Out if end.x >= 1200 => Flow::Over(if self.dice.chance(0.25) { Restart::Corner(side) } else { Restart::GoalKick(1 - side) }),
            Loss::Out => Flow::Over(Restart::ThrowIn(1 - side, there)),
            Loss::Offside => Flow::Over(Restart::FreeKick(1 - side, there)),
        }
    }

    /// A ball that nobody has: the attacking team gets it back, the other one does, or it goes out.
    pub(super) fn second_ball(&mut self, attacking: usize, at: Spot) -> Flow {
        if self.dice.chance(0.015) {
            self.fifty_fifty(attacking, at);
        }
        match self.dice.pick([(0, 0.48), (1, 0.41), (2, 0.11)]) {
            0 => self.recover(attacking, at, None),
            1 => self.recover(1 - attacking, at.seen_by_opponent(), None),
            _ => Flow::Over(Restart::ThrowIn(attacking, Spot::new(at.x, if at.y < 400 { 1 } else { 800 }))),
        }
    }

    /// Two players reach the ball at once.
    fn fifty_fifty(&mut self, attacking: usize, at: Spot) {
        let sides = [(attacking, at, LOST), (1 - attacking, at.seen_by_opponent(), WON)];
        const LOST: &[(&str, Named)] = &[("outcome", (1, "Lost"))];
        const WON: &[(&str, Named)] = &[("outcome", (4, "Won"))];
        let [lost, won] = sides.map(|(side, at, outcome)| {
            let player = self.player_near(side, at);
            let draft = self.by(kind::FIFTY_FIFTY, player, at);
            self.emit(Draft { detail: Detail::Named("50_50", outcome), ..draft })
        });
        self.relate(lost, won);
    }

    /// A player of the team picks the ball up.
    pub(super) fn recover(&mut self, side: usize, at: Spot, lost_with: Option<u32>) -> Flow {
        self.wait(250, 2_600);
        let player = self.player_near(side, at);
        if side != self.possession_side {
            let counter = at.x < 500 && self.dice.chance(0.04);
            self.new_possession(side, if counter { pattern::COUNTER } else { pattern::REGULAR });
        }
        // Who just plays on has no event of their own for it.
        if self.dice.chance(0.35) {
            return Flow::Over(Restart::Won(Touch { player, at, origin: None }));
        }
        let draft = self.by(kind::BALL_RECOVERY, player, at);
        let recovery = self.emit(draft);
        lost_with.into_iter().for_each(|pass| self.relate(pass, recovery));
        Flow::Over(Restart::Won(Touch { player, at, origin: Some(recovery) }))
    }

    fn miscontrol(&mut self, touch: Touch, pressure: Option<u32>) -> Flow {
        let draft = self.by(kind::MISCONTROL, touch.player, touch.at);
        let miscontrol = self.emit(Draft { under_pressure: pressure.is_some(), ..draft });
        pressure.into_iter().for_each(|pressure| self.relate(miscontrol, pressure));
        self.second_ball(touch.player.side, touch.at)
    }

    fn dispossessed(&mut self, touch: Touch, pressure: Option<u32>) -> Flow {
        let there = touch.at.seen_by_opponent();
        let tackler = self.player_near(1 - touch.player.side, there);
        let draft = self.by(kind::DISPOSSESSED, touch.player, touch.at);
        let lost = self.emit(Draft { under_pressure: pressure.is_some(), ..draft });
        let draft = self.by(kind::DUEL, tackler, there);
        let tackle = self.emit(Draft { detail: Detail::Named("duel", &[("type", (11, "Tackle")), ("outcome", (4, "Won"))]), ..draft });
        self.relate(lost, tackle);
        self.recover(tackler.side, there, None)
    }

    fn dribble(&mut self, touch: Touch, under_pressure: bool) -> Flow {
        let there = touch.at.seen_by_opponent();
        let opponent = self.player_near(1 - touch.player.side, there);
        let past = self.dice.chance(0.61);
        let draft = self.by(kind::DRIBBLE, touch.player, touch.at);
        if past {
            let beaten = self.by(kind::DRIBBLED_PAST, opponent, there);
            let beaten = self.emit(beaten);
            let dribble = self.emit(Draft { under_pressure, detail: Detail::Named("dribble", &[("outcome", (8, "Complete"))]), ..draft });
            self.relate(dribble, beaten);
            return Flow::Keep(Touch { origin: Some(dribble), ..touch });
        }
        let dribble = self.emit(Draft { under_pressure, detail: Detail::Named("dribble", &[("outcome", INCOMPLETE)]), ..draft });
        let tackle = self.by(kind::DUEL, opponent, there);
        let tackle = self.emit(Draft { detail: Detail::Named("duel", &[("type", (11, "Tackle")), ("outcome", (16, "Success In Play"))]), ..tackle });
        self.relate(dribble, tackle);
        self.second_ball(touch.player.side, touch.at)
    }
}
