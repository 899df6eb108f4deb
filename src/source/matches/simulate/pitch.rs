//! Where things are: StatsBomb's pitch of 120 by 80 yards, always seen by the acting team, which plays towards x = 120.
//! Places are whole tenths of a yard, so that no rounding of floating-point numbers shows in the text.

use super::chance::Dice;

/// A place in tenths of a yard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Along the pitch, 1 to 1200.
    pub x: i64,
    /// Across it, 1 to 800; small is the left side.
    pub y: i64,
}

/// The middle of the opponent's goal.
const GOAL: Spot = Spot { x: 1200, y: 400 };

impl Spot {
    /// A place, moved onto the pitch if it lies beside it.
    pub fn new(x: i64, y: i64) -> Self {
        Self { x: x.clamp(1, 1200), y: y.clamp(1, 800) }
    }

    /// The same place as the other team sees it.
    pub fn seen_by_opponent(self) -> Self {
        Self::new(1201 - self.x, 801 - self.y)
    }

    /// A place near by.
    pub fn near(self, dice: &mut Dice, spread: i64) -> Self {
        Self::new(self.x + dice.around(spread), self.y + dice.around(spread))
    }

    /// The distance in yards.
    pub fn distance(self, other: Spot) -> f64 {
        let (dx, dy) = ((other.x - self.x) as f64, (other.y - self.y) as f64);
        (dx * dx + dy * dy).sqrt() / 10.0
    }

    /// The direction to another place in radians; 0 is straight ahead.
    pub fn angle(self, other: Spot) -> f64 {
        libm::atan2((other.y - self.y) as f64, (other.x - self.x) as f64)
    }

    /// Whether it lies in the opponent's penalty area.
    pub fn in_box(self) -> bool {
        self.x > 1020 && (180..=620).contains(&self.y)
    }
}

/// Expected goals of an ordinary shot from here: a logistic function of the distance and of the angle between the posts.
/// Gives about 0.50 at 6 yards straight ahead, 0.20 at 12, 0.08 at 18 and 0.03 at 25.
pub fn expected_goals(from: Spot) -> f64 {
    let distance = from.distance(GOAL);
    let (dx, dy) = ((GOAL.x - from.x) as f64 / 10.0, (GOAL.y - from.y) as f64 / 10.0);
    // The goal is 8 yards wide: the angle between the lines to its posts.
    let angle = libm::atan2(8.0 * dx, dx * dx + dy * dy - 16.0).max(0.0);
    1.0 / (1.0 + libm::exp(0.355 - 1.02 * angle + 0.1406 * distance))
}
