use tidegate_kernels::aggregate::{AggregateError, Aggregates, Batch, DeviceAggregator, Groups, Input, Values, Windows, aggregate};

use super::{emulator, random::Random};

/// To the bit: floats print so that they are told apart, but for NaNs, which are all one.
fn shown(groups: &Groups) -> String {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let input = |input: &Aggregates| match input {
        Aggregates::Float64 { count, sum, min, max } => format!("{count:?} {:?} {:?} {:?}", bits(sum), bits(min), bits(max)),
        integers => format!("{integers:?}"),
    };
    format!("{:?} {:?} {:?} {:?}", groups.keys, groups.bins, groups.rows, groups.inputs.iter().map(input).collect::<Vec<_>>())
}

/// Columns of a batch.
struct Columns {
    keys: Vec<i64>,
    times: Vec<i64>,
    floats: Vec<f64>,
    integers: Vec<i64>,
}

impl Columns {
    fn random(random: &mut Random, rows: usize, keys: usize) -> Self {
        let odd = |random: &mut Random| [i64::MIN, i64::MAX, 0, -1][random.below(4)];
        let integer = |random: &mut Random| if random.once_in(9) { odd(random) } else { random.next() as i64 >> 20 };
        Self {
            keys: (0..rows).map(|_| if random.once_in(50) { odd(random) } else { random.below(keys) as i64 }).collect(),
            times: (0..rows).map(|_| random.next() as i64 >> 44).collect(),
            floats: (0..rows).map(|_| random.float()).collect(),
            integers: (0..rows).map(|_| integer(random)).collect(),
        }
    }
}

#[test]
fn groups_are_the_references() {
    let gpu = emulator::open(2);
    let mut random = Random(2);
    for round in 0..60 {
        emulator::seed(round);
        let rows = [0, 1, 31, 255, 256, 257, 1500][random.below(7)];
        // One key; so many that a block's own table is shared; more than it has places.
        let keys = [1, 3, 40, 1000][random.below(4)];
        let columns = Columns::random(&mut random, rows, keys);
        let (valid, selected) = (random.bitmap(rows), random.bitmap(rows));
        let windows = Windows::new(1 + random.below(1 << 19) as i64, random.next() as i64 >> 30).unwrap();
        let valid = random.once_in(2).then_some(valid.as_slice());
        let inputs = [
            Input { values: Values::Float64(&columns.floats), valid },
            Input { values: Values::Int64(&columns.integers), valid },
            Input { values: Values::Float64(&columns.floats), valid: None },
        ];
        let batch = Batch {
            keys: &columns.keys,
            times: (!random.once_in(3)).then_some((&columns.times, windows)),
            selected: random.once_in(2).then_some(&selected),
            inputs: &inputs[random.below(4)..],
        };
        let found = DeviceAggregator::new(&gpu, 4096).aggregate(&batch).unwrap();
        assert_eq!(shown(&found), shown(&aggregate(&batch).unwrap()), "round {round}");
    }
}

#[test]
fn the_order_of_rows_does_not_show() {
    let gpu = emulator::open(1);
    let mut random = Random(3);
    let mut columns = Columns::random(&mut random, 700, 5);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let inputs = [Input { values: Values::Float64(&columns.floats), valid: None }, Input { values: Values::Int64(&columns.integers), valid: None }];
        let batch = Batch { keys: &columns.keys, times: None, selected: None, inputs: &inputs };
        seen.push(shown(&aggregate(&batch).unwrap()));
        seen.push(shown(&DeviceAggregator::new(&gpu, 100).aggregate(&batch).unwrap()));
        for row in (1..columns.keys.len()).rev() {
            let other = random.below(row + 1);
            columns.keys.swap(row, other);
            columns.floats.swap(row, other);
            columns.integers.swap(row, other);
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[test]
fn the_reference_is_the_definition() {
    let windows = Windows::new(10, 3).unwrap();
    assert_eq!([-8, -7, 2, 3, 12, 13].map(|time| windows.start(time)), [Some(-17), Some(-7), Some(-7), Some(3), Some(3), Some(13)]);
    assert!(Windows::new(0, 0).is_none() && Windows::new(-1, 0).is_none());
    assert_eq!(Windows::new(10, 3).unwrap(), Windows::new(10, -7).unwrap());
    let inputs = [
        Input { values: Values::Int64(&[i64::MAX, i64::MAX, 5, 7]), valid: Some(&[0b0111]) },
        Input { values: Values::Float64(&[-0.0, 0.0, f64::NAN, 1.5]), valid: None },
    ];
    let batch = Batch { keys: &[1, 1, 1, 2], times: Some((&[3, 12, 13, 13], windows)), selected: None, inputs: &inputs };
    let groups = aggregate(&batch).unwrap();
    assert_eq!((groups.keys, groups.bins, groups.rows), (vec![1, 1, 2], vec![3, 13, 13], vec![2, 1, 1]));
    assert_eq!(
        groups.inputs[0],
        Aggregates::Int64 { count: vec![2, 1, 0], sum: vec![i128::from(i64::MAX) * 2, 5, 0], min: vec![i64::MAX, 5, 0], max: vec![i64::MAX, 5, 0] }
    );
    assert_eq!((0..4).map(|group| groups.inputs[0].sum_i64(group)).collect::<Vec<_>>(), [None, Some(5), Some(0), None]);
    let Aggregates::Float64 { sum, min, max, .. } = &groups.inputs[1] else { panic!() };
    assert_eq!((sum[0].to_bits(), min[0].to_bits(), max[0].to_bits()), (0, (-0.0f64).to_bits(), 0));
    assert!(sum[1].is_nan() && min[1].is_nan() && max[1].is_nan());
    assert_eq!((sum[2], min[2], max[2]), (1.5, 1.5, 1.5));
}

#[test]
fn sums_are_close_to_what_any_order_gives() {
    let mut random = Random(4);
    for _ in 0..200 {
        let values: Vec<f64> = (0..500).map(|_| (random.unit() - 0.3) * 10f64.powi(random.below(20) as i32)).collect();
        let keys = vec![0; values.len()];
        let batch = Batch { keys: &keys, times: None, selected: None, inputs: &[Input { values: Values::Float64(&values), valid: None }] };
        let groups = aggregate(&batch).unwrap();
        let Aggregates::Float64 { sum, .. } = &groups.inputs[0] else { panic!() };
        let plain: f64 = values.iter().sum();
        let magnitude: f64 = values.iter().map(|value| value.abs()).sum();
        assert!((sum[0] - plain).abs() <= magnitude * f64::EPSILON * 500.0, "{} {plain}", sum[0]);
    }
}

#[test]
fn what_a_device_leaves_to_the_cpu() {
    let gpu = emulator::open(1);
    let mut random = Random(5);
    let columns = Columns::random(&mut random, 2000, 500);
    let batch = Batch { keys: &columns.keys, times: None, selected: None, inputs: &[] };
    for most in [1, 2, 100, 400] {
        assert_eq!(DeviceAggregator::new(&gpu, most).aggregate(&batch), Err(AggregateError::TooManyGroups(most)));
    }
    let groups = aggregate(&batch).unwrap().keys.len() as u32;
    assert!(DeviceAggregator::new(&gpu, groups).aggregate(&batch).is_ok());
    assert_eq!(DeviceAggregator::new(&gpu, groups - 1).aggregate(&batch), Err(AggregateError::TooManyGroups(groups - 1)));

    let windows = Windows::new(1 << 40, 0).unwrap();
    let early = Batch { keys: &[0, 0], times: Some((&[5, i64::MIN + 1], Windows::new(1000, 0).unwrap())), selected: None, inputs: &[] };
    assert_eq!(aggregate(&early), Err(AggregateError::Range));
    assert_eq!(DeviceAggregator::new(&gpu, 10).aggregate(&early), Err(AggregateError::Range));
    // Unless nobody asks for that row.
    let unasked = Batch { selected: Some(&[1]), ..early };
    assert_eq!(DeviceAggregator::new(&gpu, 10).aggregate(&unasked).unwrap(), aggregate(&unasked).unwrap());
    // A window that starts at the first time of all.
    let first = Batch { keys: &[0, 0], times: Some((&[i64::MAX, i64::MIN], windows)), selected: None, inputs: &[] };
    assert_eq!(DeviceAggregator::new(&gpu, 10).aggregate(&first).unwrap(), aggregate(&first).unwrap());

    let short = Batch { times: Some((&[1], windows)), ..first };
    assert_eq!(aggregate(&short).unwrap_err().to_string(), "the time column has 1 rows where the keys have 2");
    assert!(DeviceAggregator::new(&gpu, 10).aggregate(&short).is_err());
    let short = Batch { selected: Some(&[]), ..first };
    assert!(aggregate(&short).is_err() && DeviceAggregator::new(&gpu, 10).aggregate(&short).is_err());
}
