//! Who stands where: the freeze frame of a shot, and 360 data, the players and the part of the pitch that the camera shows.

use super::chance::Dice;
use super::draft::{Player, Side};
use super::pitch::Spot;
use super::teams::Formation;
use super::write::{fixed, list};

/// The players of both teams who are on the pitch, by team and place.
pub type Elevens = [[Option<u8>; 11]; 2];

/// Where the player of a place stands when the ball is at a spot: the team moves with the ball.
pub fn stands(formation: &Formation, place: usize, ball: Spot, dice: &mut Dice) -> Spot {
    let home = formation.positions[place].home;
    // The keeper hardly leaves the goal.
    let (along, across, spread) = if place == 0 { (12, 8, 25) } else { (48, 30, 110) };
    // Attackers stay in front of the goal line.
    let x = (home.x + (ball.x - 600) * along / 100).min(1_090);
    Spot::new(x, home.y + (ball.y - 400) * across / 100).near(dice, spread)
}

/// Everyone with their place, as the team `side` sees it.
fn everyone(side: Side, ball: Spot, formations: [&Formation; 2], elevens: &Elevens, dice: &mut Dice) -> Vec<(Player, Spot)> {
    let mut all = Vec::with_capacity(22);
    for of in [side, 1 - side] {
        let seen = if of == side { ball } else { ball.seen_by_opponent() };
        for (place, squad) in elevens[of].iter().enumerate() {
            let Some(squad) = *squad else { continue };
            let at = stands(formations[of], place, seen, dice);
            let at = if of == side { at } else { at.seen_by_opponent() };
            all.push((Player { side: of, squad, place: place as u8 }, at));
        }
    }
    all
}

/// The freeze frame of a shot: the shooter, then all others near enough to matter, the goalkeeper always.
pub fn shot_frame(shooter: Player, ball: Spot, formations: [&Formation; 2], elevens: &Elevens, dice: &mut Dice) -> Vec<(Player, Spot)> {
    let all = everyone(shooter.side, ball, formations, elevens, dice);
    let matters = |(player, at): &(Player, Spot)| *player != shooter && (at.distance(ball) < 27.0 || (player.side != shooter.side && player.place == 0));
    std::iter::once((shooter, ball)).chain(all.into_iter().filter(matters)).collect()
}

/// 360 data of an event as JSON: the visible area, and the players in it.
pub fn three_sixty(area: &mut Vec<u8>, frame: &mut Vec<u8>, actor: Player, ball: Spot, formations: [&Formation; 2], elevens: &Elevens, dice: &mut Dice) {
    // The camera shows a trapezium around the ball, wider at the far side. It may overrun the pitch a little, as real ones do.
    let (half_near, half_far) = (dice.between(160, 220), dice.between(260, 330));
    let corners = [(ball.x - half_near, 800), (ball.x - half_far, 0), (ball.x + half_far, 0), (ball.x + half_near, 800), (ball.x - half_near, 800)];
    let mut numbers = Vec::with_capacity(10);
    for (x, y) in corners {
        // Millionths of a yard from tenths of a yard.
        numbers.push(x.clamp(0, 1200) * 100_000);
        numbers.push(y * 100_000);
    }
    list(area, &numbers, |out, millionths| fixed(out, *millionths, 6));

    let mut players = everyone(actor.side, ball, formations, elevens, dice);
    players.iter_mut().filter(|(player, _)| *player == actor).for_each(|(_, at)| *at = ball);
    players.retain(|(_, at)| (at.x - ball.x).abs() < half_near + (half_far - half_near) * (800 - at.y) / 800);
    list(frame, &players, |out, (player, at)| {
        let flag = |out: &mut Vec<u8>, name: &str, value: bool| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(if value { b"true" } else { b"false" });
        };
        flag(out, r#"{"teammate":"#, player.side == actor.side);
        flag(out, r#","actor":"#, *player == actor);
        flag(out, r#","keeper":"#, player.place == 0);
        out.extend_from_slice(br#","location":["#);
        fixed(out, at.x * 100_000 + dice.between(0, 99_999), 6);
        out.push(b',');
        fixed(out, at.y * 100_000 + dice.between(0, 99_999), 6);
        out.extend_from_slice(b"]}");
    });
}
