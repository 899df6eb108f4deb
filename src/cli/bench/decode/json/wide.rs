//! A flat record of a hundred fields, of which five are read.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    super::{
        Contest,
        record::{Part, Record, Text, Time, record},
        source,
    },
    measured, time,
};

record!(Row<'a> { count_5: i64, ratio_26: f64, label_47: Text<'a>, flag_68: bool, at_94: Time<'a> });

pub(in super::super) fn contest(count: usize) -> anyhow::Result<Contest> {
    let mut random = ChaCha8Rng::seed_from_u64(100);
    let payloads = (0..count as i64).map(|number| payload(number, &mut random).into_bytes()).collect();
    super::contest::<Row<'_>>("wide-100-5", source(&Row::columns(), "format = 'json'")?, payloads)
}

/// Counts, ratios, labels, flags and times by turns.
fn payload(number: i64, random: &mut ChaCha8Rng) -> String {
    let fields = (0..100).map(|at| match at % 5 {
        0 => format!("\"count_{at}\":{}", random.random_range(0..10_000_000)),
        1 => format!("\"ratio_{at}\":{}", measured(random, 1)),
        2 => format!("\"label_{at}\":\"label {} of field {at}\"", random.random_range(0..1000)),
        3 => format!("\"flag_{at}\":{}", random.random_bool(0.5)),
        _ => format!("\"at_{at}\":\"{}\"", time(number * 1000 + at)),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}
