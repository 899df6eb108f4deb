//! An event before it is written: what happened, to whom, where and when. Relations between events are still open then,
//! since an event also names those that come after it.

use super::pitch::Spot;

/// StatsBomb's number and name of a type, an outcome, a body part, …
pub type Named = (u16, &'static str);

/// An event's type, by StatsBomb's numbers and names.
#[allow(missing_docs)]
pub mod kind {
    use super::Named;

    pub const BALL_RECOVERY: Named = (2, "Ball Recovery");
    pub const DISPOSSESSED: Named = (3, "Dispossessed");
    pub const DUEL: Named = (4, "Duel");
    pub const CAMERA_ON: Named = (5, "Camera On");
    pub const BLOCK: Named = (6, "Block");
    pub const CLEARANCE: Named = (9, "Clearance");
    pub const INTERCEPTION: Named = (10, "Interception");
    pub const DRIBBLE: Named = (14, "Dribble");
    pub const SHOT: Named = (16, "Shot");
    pub const PRESSURE: Named = (17, "Pressure");
    pub const HALF_START: Named = (18, "Half Start");
    pub const SUBSTITUTION: Named = (19, "Substitution");
    pub const OWN_GOAL_AGAINST: Named = (20, "Own Goal Against");
    pub const FOUL_WON: Named = (21, "Foul Won");
    pub const FOUL_COMMITTED: Named = (22, "Foul Committed");
    pub const GOAL_KEEPER: Named = (23, "Goal Keeper");
    pub const BAD_BEHAVIOUR: Named = (24, "Bad Behaviour");
    pub const OWN_GOAL_FOR: Named = (25, "Own Goal For");
    pub const CAMERA_OFF: Named = (29, "Camera off");
    pub const PASS: Named = (30, "Pass");
    pub const FIFTY_FIFTY: Named = (33, "50/50");
    pub const HALF_END: Named = (34, "Half End");
    pub const STARTING_XI: Named = (35, "Starting XI");
    pub const TACTICAL_SHIFT: Named = (36, "Tactical Shift");
    pub const MISCONTROL: Named = (38, "Miscontrol");
    pub const DRIBBLED_PAST: Named = (39, "Dribbled Past");
    pub const INJURY_STOPPAGE: Named = (40, "Injury Stoppage");
    pub const BALL_RECEIPT: Named = (42, "Ball Receipt*");
    pub const CARRY: Named = (43, "Carry");
}

/// How a possession began.
#[allow(missing_docs)]
pub mod pattern {
    use super::Named;

    pub const REGULAR: Named = (1, "Regular Play");
    pub const CORNER: Named = (2, "From Corner");
    pub const FREE_KICK: Named = (3, "From Free Kick");
    pub const THROW_IN: Named = (4, "From Throw In");
    pub const OTHER: Named = (5, "Other");
    pub const COUNTER: Named = (6, "From Counter");
    pub const GOAL_KICK: Named = (7, "From Goal Kick");
    pub const KEEPER: Named = (8, "From Keeper");
    pub const KICK_OFF: Named = (9, "From Kick Off");
}

/// One of the two teams: 0 is at home.
pub type Side = usize;

/// A player in a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Player {
    /// Their team.
    pub side: Side,
    /// The place in the squad.
    pub squad: u8,
    /// The place in the formation.
    pub place: u8,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its type.
    pub kind: Named,
    /// Milliseconds into the period.
    pub at_ms: i64,
    /// The acting team.
    pub side: Side,
    /// The acting player; events of the whole match have none.
    pub player: Option<Player>,
    /// Where, seen by the acting team.
    pub location: Option<Spot>,
    /// How long it lasted, in milliseconds.
    pub duration_ms: Option<i64>,
    /// Whether an opponent pressed.
    pub under_pressure: bool,
    /// Whether it is pressing right after losing the ball.
    pub counterpress: bool,
    /// The indices of related events.
    pub related: Vec<u32>,
    /// What only this type of event has.
    pub detail: Detail,
}

/// What only one type of event has.
#[derive(Debug, Clone)]
pub enum Detail {
    /// Nothing.
    None,
    /// An object whose text is ready: its name and its JSON.
    Ready(&'static str, String),
    /// An object that holds outcomes and the like: its name and its members.
    Named(&'static str, &'static [(&'static str, Named)]),
    /// An object of flags: its name and what is true.
    Flags(&'static str, &'static [&'static str]),
    /// A pass.
    Pass(Pass),
    /// Where a carry ended.
    Carry(Spot),
    /// A foul, with a card perhaps.
    Foul {
        /// The card shown.
        card: Option<Named>,
        /// Whether it gave a penalty.
        penalty: bool,
    },
    /// A shot.
    Shot(Box<Shot>),
}

/// A pass.
#[derive(Debug, Clone)]
pub struct Pass {
    /// Whom it was meant for.
    pub recipient: Option<Player>,
    /// Where it was played from.
    pub from: Spot,
    /// Where it ended.
    pub end: Spot,
    /// How high.
    pub height: Named,
    /// Free kick, throw-in, …; none in open play.
    pub kind: Option<Named>,
    /// With what.
    pub body_part: Option<Named>,
    /// None means that it arrived.
    pub outcome: Option<Named>,
    /// Flags that hold.
    pub flags: Vec<&'static str>,
    /// The index of the shot that it led to.
    pub assisted_shot: Option<u32>,
}

/// A shot.
#[derive(Debug, Clone)]
pub struct Shot {
    /// Expected goals in units of 10^-7, as many digits as StatsBomb gives.
    pub xg: i64,
    /// Where it ended.
    pub end: Spot,
    /// How high it ended, in tenths of a yard; blocked shots have no height.
    pub end_height: Option<i64>,
    /// The index of the pass that led to it.
    pub key_pass: Option<u32>,
    /// Normal, volley, …
    pub technique: Named,
    /// Open play, free kick or penalty.
    pub kind: Named,
    /// With what.
    pub body_part: Named,
    /// Goal, saved, …
    pub outcome: Named,
    /// Whether it was taken with the first touch.
    pub first_time: bool,
    /// Who stood where, seen by the shooter; empty for a penalty.
    pub frame: Vec<(Player, Spot)>,
}
