//! Made-up teams and players, and how they line up. Names are put together from made-up parts; a team has the same squad
//! in every match, whatever the seed.

use super::chance::mix;
use super::pitch::Spot;

/// Teams of the league.
const TOWNS: [&str; 20] = [
    "Aldermoor",
    "Brackwater",
    "Casterfold",
    "Dunmarrow",
    "Fenholt",
    "Gravenhall",
    "Hollinsea",
    "Istervik",
    "Jorvath",
    "Kestrelby",
    "Lundamar",
    "Månevåg",
    "Norrvale",
    "Ostermere",
    "Peñarasa",
    "Quillford",
    "Rønstrand",
    "Silvermarsh",
    "Tarnwyck",
    "Yarrowdale",
];

const FIRST_NAMES: [&str; 24] = [
    "Adreno", "Belvar", "Corvin", "Dario", "Édrano", "Fenrick", "Galdo", "Hávar", "Ilmari", "Jorren", "Kelvo", "Lorcan", "Mirko", "Nevio", "Orsel", "Pavlin",
    "Quimo", "Rádek", "Silvan", "Torvald", "Ulrik", "Vesko", "Wendel", "Zoltar",
];
const LAST_BEGINNINGS: [&str; 20] = [
    "Tave", "Korri", "Belda", "Marro", "Usten", "Greva", "Pella", "Vanto", "Solvi", "Drago", "Hansa", "Quera", "Lindo", "Ferra", "Zeppo", "Aska", "Rundo",
    "Calva", "Ysta", "Mølle",
];
const LAST_ENDINGS: [&str; 16] =
    ["linsen", "mar", "vachev", "tossi", "kwist", "nández", "brook", "rovic", "gård", "delle", "stein", "quay", "morel", "zadeh", "poulos", "wicz"];

/// How many teams there are.
pub const TEAM_COUNT: usize = TOWNS.len();
/// Eleven who start and seven who may come on.
pub const SQUAD: usize = 18;

/// One place of a formation.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// StatsBomb's number of the position.
    pub id: u16,
    /// StatsBomb's name of the position.
    pub name: &'static str,
    /// Where its player stands when the ball is in the middle.
    pub home: Spot,
}

const fn position(id: u16, name: &'static str, x: i64, y: i64) -> Position {
    Position { id, name, home: Spot { x, y } }
}

const KEEPER: Position = position(1, "Goalkeeper", 80, 400);
const BACK_FOUR: [Position; 4] = [
    position(2, "Right Back", 450, 700),
    position(3, "Right Center Back", 350, 500),
    position(5, "Left Center Back", 350, 300),
    position(6, "Left Back", 450, 100),
];

/// A formation: its number as StatsBomb writes it, and its eleven places; the keeper's comes first.
#[derive(Debug)]
pub struct Formation {
    /// 433 for 4-3-3.
    pub number: u16,
    /// The eleven places.
    pub positions: [Position; 11],
}

const fn formation(number: u16, ahead: [Position; 6]) -> Formation {
    let [rb, rcb, lcb, lb] = BACK_FOUR;
    let [a, b, c, d, e, f] = ahead;
    Formation { number, positions: [KEEPER, rb, rcb, lcb, lb, a, b, c, d, e, f] }
}

/// The formations that teams play.
pub static FORMATIONS: [Formation; 3] = [
    formation(
        433,
        [
            position(10, "Center Defensive Midfield", 500, 400),
            position(13, "Right Center Midfield", 620, 540),
            position(15, "Left Center Midfield", 620, 260),
            position(17, "Right Wing", 820, 680),
            position(21, "Left Wing", 820, 120),
            position(23, "Center Forward", 920, 400),
        ],
    ),
    formation(
        442,
        [
            position(12, "Right Midfield", 650, 700),
            position(13, "Right Center Midfield", 580, 500),
            position(15, "Left Center Midfield", 580, 300),
            position(16, "Left Midfield", 650, 100),
            position(22, "Right Center Forward", 880, 480),
            position(24, "Left Center Forward", 880, 320),
        ],
    ),
    formation(
        4231,
        [
            position(9, "Right Defensive Midfield", 520, 500),
            position(11, "Left Defensive Midfield", 520, 300),
            position(17, "Right Wing", 750, 680),
            position(19, "Center Attacking Midfield", 760, 400),
            position(21, "Left Wing", 750, 120),
            position(23, "Center Forward", 930, 400),
        ],
    ),
];

/// A team with its squad, and the pieces of JSON that its events repeat.
#[derive(Debug, Clone)]
pub struct Team {
    /// Its name.
    pub name: &'static str,
    /// 0.85 to 1.2: how often its attacks end in a shot.
    pub strength: f64,
    /// `{"id":…,"name":"…"}` of the team.
    pub json: String,
    /// The same for each player of the squad.
    pub players: Vec<String>,
}

impl Team {
    /// Team `number` of the league, counted from 0.
    pub fn new(number: usize) -> Self {
        let id = 5001 + number as u64;
        let name = TOWNS[number % TEAM_COUNT];
        let player = |place: u64| {
            let id = id * 100 + place + 1;
            format!(r#"{{"id":{id},"name":"{}"}}"#, player_name(id))
        };
        Self {
            name,
            strength: 0.85 + (mix(id) % 36) as f64 / 100.0,
            json: format!(r#"{{"id":{id},"name":"{name}"}}"#),
            players: (0..SQUAD as u64).map(player).collect(),
        }
    }
}

fn player_name(id: u64) -> String {
    let bits = mix(id) as usize;
    let part = |names: &[&'static str], shift: usize| names[(bits >> shift) % names.len()];
    format!("{} {}{}", part(&FIRST_NAMES, 0), part(&LAST_BEGINNINGS, 16), part(&LAST_ENDINGS, 32))
}

/// The `tactics` of a lineup: the formation and who plays where. `eleven` gives each place's player by place in the squad;
/// a player who was sent off leaves their place empty.
pub fn tactics_json(team: &Team, formation: &Formation, eleven: &[Option<u8>; 11]) -> String {
    let lineup: Vec<String> = eleven
        .iter()
        .zip(&formation.positions)
        .filter_map(|(player, at)| player.map(|p| (usize::from(p), at)))
        .map(|(player, at)| {
            let (name, id, shirt) = (at.name, at.id, player + 1);
            format!(r#"{{"player":{},"position":{{"id":{id},"name":"{name}"}},"jersey_number":{shirt}}}"#, team.players[player])
        })
        .collect();
    format!(r#"{{"formation":{},"lineup":[{}]}}"#, formation.number, lineup.join(","))
}
