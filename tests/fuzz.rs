//! The bodies of `fuzz/` over mutated seeds, for a bounded number of rounds: TIDEGATE_FUZZ_ITERATIONS each (400), from TIDEGATE_FUZZ_SEED.
//! What fails is written to the temporary folder, and its place is named.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

#[path = "../fuzz/bodies.rs"]
mod bodies;

/// No input takes longer, in an unoptimised build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest input.
const LONGEST: usize = 16 << 10;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A seed, changed in a few places.
fn mutated(seeds: &[&[u8]], rng: &mut ChaCha8Rng) -> Vec<u8> {
    const ODD: &[&[u8]] = &[
        b"(",
        b")",
        b"[",
        b"{",
        b"}",
        b"\"",
        b"'",
        b"\\",
        b",",
        b";",
        b"--",
        b"/*",
        b"0",
        b"-1",
        b"9223372036854775808",
        b"1e999",
        b"null",
        b"\xff",
        b"\xed\xa0\x80",
        b"\0",
        b"\n",
        "\u{202e}".as_bytes(),
        "é".as_bytes(),
        b"SELECT ",
        b"CAST(",
        b" AS ",
        b"\\u0000",
        b"INTERVAL ",
        b"$1",
        b"?",
    ];
    let mut bytes = seeds.choose(rng).map(|seed| seed.to_vec()).unwrap_or_default();
    for _ in 0..rng.random_range(0..6) {
        let from = rng.random_range(0..=bytes.len());
        let to = (from + rng.random_range(0..32)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => drop(bytes.drain(from..to)),
            1 if from < bytes.len() => bytes[from] ^= 1 << rng.random_range(0..8),
            2 => {
                let part = bytes[from..to].to_vec();
                let many = part.repeat(rng.random_range(1..40));
                bytes.splice(from..from, many);
            }
            3 => {
                let other = seeds.choose(rng).copied().unwrap_or_default();
                let at = rng.random_range(0..=other.len());
                bytes.splice(from..to, other[at..].iter().copied());
            }
            _ => {
                let odd = ODD.choose(rng).copied().unwrap_or_default();
                bytes.splice(from..to, odd.repeat(if rng.random_range(0..10) == 0 { 500 } else { 1 }));
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// Runs on a thread with as much stack as a worker of the server has.
fn run(name: &'static str) {
    let (_, body, seeds) = *bodies::BODIES.iter().find(|(known, ..)| *known == name).expect("a body of this name");
    let (rounds, seed) = (setting("TIDEGATE_FUZZ_ITERATIONS", 400), setting("TIDEGATE_FUZZ_SEED", 1));
    let work = move || {
        let seeds: Vec<&[u8]> = seeds.iter().map(|seed| seed.as_bytes()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for round in 0..rounds {
            let bytes = match seeds.get(round as usize) {
                Some(seed) => seed.to_vec(),
                None => mutated(&seeds, &mut rng),
            };
            let began = Instant::now();
            let done = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
            if done.is_err() || began.elapsed() > PATIENCE {
                let place = std::env::temp_dir().join(format!("tidegate-fuzz-{name}-{seed}-{round}"));
                let _ = std::fs::write(&place, &bytes);
                panic!("body {name}, seed {seed}, round {round}: {:?}, {:?}; the input is in {}", done.is_ok(), began.elapsed(), place.display());
            }
        }
    };
    let thread = std::thread::Builder::new().name(name.into()).stack_size(2 << 20).spawn(work).expect("a thread");
    thread.join().expect("no finding");
}

macro_rules! bodies {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn all_are_run() {
            assert_eq!(bodies::BODIES.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

bodies!(sql decode avro times options config credentials files keys messages protobuf proto csv envelopes);
