//! Against brute force in 128 bits, and in plans.

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, TimestampNanosecondArray},
        datatypes::{Date32Type, Field, Schema, TimestampNanosecondType},
        util::pretty::pretty_format_batches,
    },
    config::ConfigOptions,
    logical_expr::{ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDFImpl},
    prelude::SessionContext,
};

use super::{
    function::{Shape, WindowFunction},
    *,
};

const MINUTE: i64 = 60_000_000_000;

fn function(role: Role, shape: Shape) -> WindowFunction {
    WindowFunction::all().into_iter().find(|f| (f.role, f.shape) == (role, shape)).unwrap()
}

fn call(role: Role, times: ColumnarValue, constants: &[ScalarValue]) -> Result<ColumnarValue> {
    call_of(&function(role, Shape::Tumble), times, constants)
}

fn call_of(function: &WindowFunction, times: ColumnarValue, constants: &[ScalarValue]) -> Result<ColumnarValue> {
    let time = times.data_type();
    let rows = if let ColumnarValue::Array(a) = &times { a.len() } else { 1 };
    let mut args = vec![times];
    args.extend(constants.iter().cloned().map(ColumnarValue::Scalar));
    let arg_fields = args.iter().map(|a| Arc::new(Field::new("a", a.data_type(), true))).collect();
    function.invoke_with_args(ScalarFunctionArgs {
        args,
        arg_fields,
        number_rows: rows,
        return_field: Arc::new(Field::new("r", time, true)),
        config_options: Arc::new(ConfigOptions::default()),
    })
}

fn ns(length: i64) -> ScalarValue {
    ScalarValue::new_interval_mdn(0, 0, length)
}

/// By search over windows in 128 bits, without a remainder.
fn naive(t: i64, size: i64, offset: i64, low: i128, high: i128) -> Option<(i128, i128)> {
    let (t, size, offset) = (t as i128, size as i128, offset as i128);
    let mut start = offset + (t - offset) / size * size;
    while start > t {
        start -= size;
    }
    while start + size <= t {
        start += size;
    }
    (start >= low && start + size <= high).then_some((start, start + size))
}

/// A small generator, so that the crate needs no further dependency for its tests.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as i64
    }
}

#[test]
fn agrees_with_a_naive_search() {
    let mut dice = Dice(42);
    for round in 0..400 {
        let size = 1 + dice.roll().rem_euclid(if round % 2 == 0 { 1_000 } else { i64::MAX - 1 });
        let offset = if round % 3 == 0 { dice.roll() / 2 } else { 0 };
        let mut at = dice.roll() >> (round % 60);
        let times: Vec<Option<i64>> = (0..100)
            .map(|i| {
                at = if i % 10 == 0 { dice.roll() >> (round % 60) } else { at.wrapping_add(dice.roll() % 50) };
                match i % 17 {
                    0 => None,
                    1 => Some([i64::MIN, i64::MAX, i64::MIN + 1, i64::MAX - 1, 0, -1][round % 6]),
                    _ => Some(at),
                }
            })
            .collect();
        let array: ArrayRef = Arc::new(TimestampNanosecondArray::from(times.clone()).with_timezone("+02:00"));
        for role in [Role::Start, Role::End] {
            let ColumnarValue::Array(got) = call(role, ColumnarValue::Array(array.clone()), &[ns(size), ns(offset)]).unwrap() else { panic!() };
            assert_eq!(got.data_type(), array.data_type());
            let got = got.as_primitive::<TimestampNanosecondType>();
            for (row, t) in times.iter().enumerate() {
                let want = t.and_then(|t| naive(t, size, offset, i64::MIN as i128, i64::MAX as i128));
                let want = want.map(|(start, end)| if role == Role::Start { start as i64 } else { end as i64 });
                assert_eq!(got.is_valid(row).then(|| got.value(row)), want, "row {row}: {t:?}, size {size}, offset {offset}, {role:?}");
            }
        }
    }
}

#[test]
fn every_unit_and_a_scalar() {
    for (unit, per_second) in [(TimeUnit::Second, 1), (TimeUnit::Millisecond, 1_000), (TimeUnit::Microsecond, 1_000_000), (TimeUnit::Nanosecond, 1_000_000_000)]
    {
        for zone in [None, Some("Europe/Madrid")] {
            let kind = DataType::Timestamp(unit, zone.map(Into::into));
            let time = ScalarValue::Int64(Some(61 * per_second)).cast_to(&kind).unwrap();
            let ColumnarValue::Scalar(got) = call(Role::End, ColumnarValue::Scalar(time), &[ns(MINUTE)]).unwrap() else { panic!() };
            assert_eq!(got, ScalarValue::Int64(Some(120 * per_second)).cast_to(&kind).unwrap());
        }
    }
    let half = call(Role::Start, ColumnarValue::Scalar(ScalarValue::TimestampSecond(Some(1), None)), &[ns(500_000_000)]);
    assert!(half.unwrap_err().to_string().contains("no whole number of steps"));
}

#[test]
fn dates_in_whole_days() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(-1), Some(0), Some(8), None, Some(i32::MAX), Some(i32::MIN)]));
    let week = ScalarValue::new_interval_mdn(0, 7, 0);
    let ColumnarValue::Array(got) = call(Role::Start, ColumnarValue::Array(days.clone()), &[week]).unwrap() else { panic!() };
    assert_eq!(got.as_primitive::<Date32Type>(), &Date32Array::from(vec![Some(-7), Some(0), Some(7), None, None, None]));
    assert!(call(Role::Start, ColumnarValue::Array(days), &[ns(MINUTE)]).is_err());
}

#[test]
fn refuses_what_is_no_window() {
    let time = ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(1), None));
    for (size, message) in [
        (ns(0), "must be positive"),
        (ns(-1), "must be positive"),
        (ScalarValue::new_interval_mdn(1, 0, 0), "without months"),
        (ScalarValue::IntervalMonthDayNano(None), "fixed length"),
    ] {
        let error = call(Role::Start, time.clone(), &[size]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn in_a_plan() {
    let mut context = SessionContext::new();
    crate::register(&mut context).unwrap();
    let rows = |sql: &'static str| {
        let context = context.clone();
        async move { context.sql(sql).await?.collect().await }
    };
    let got = rows(
        "SELECT count(*) FROM (SELECT to_timestamp_nanos(value * 7919000000 - 90000000000000) AS ts FROM generate_series(1, 50000))
         WHERE __window_start(ts, INTERVAL '1 minute') = date_bin(INTERVAL '1 minute', ts, TIMESTAMP '1970-01-01T00:00:00')
           AND __window_end(ts, INTERVAL '1 minute') = __window_start(ts, INTERVAL '1 minute') + INTERVAL '1 minute'",
    )
    .await
    .unwrap();
    assert_eq!(got[0].column(0).as_ref(), &Int64Array::from(vec![50_000]) as &dyn Array);
    for (sql, message) in [
        ("SELECT __window_start(now(), arrow_cast(value, 'Duration(Second)')) FROM generate_series(1, 2)", "must be a constant"),
        ("SELECT __window_start(1, INTERVAL '1 minute')", "not over Int64"),
        ("SELECT __window_start(now(), 'minute')", "are intervals like"),
        ("SELECT __window_start(now())", "not 1 arguments"),
        ("SELECT __window_start(now(), INTERVAL '1 month')", "without months"),
    ] {
        let error = rows(sql).await.unwrap_err().to_string();
        assert!(error.contains(message), "{sql}: {error}");
    }
}

/// The ends of all windows that hold `t`, by trying every window near it, in 128 bits.
fn brute_force(windows: Windows, t: i64, low: i128, high: i128) -> Vec<i64> {
    let (t, size) = (t as i128, windows.size_ns() as i128);
    let (period, offset) = match windows {
        Windows::Tumble { size_ns, offset_ns } | Windows::Cumulate { size_ns, offset_ns, .. } => (size_ns as i128, offset_ns as i128),
        Windows::Hop { slide_ns, offset_ns, .. } => (slide_ns as i128, offset_ns as i128),
    };
    let mut ends = vec![];
    let mut start = offset + (t - offset) / period * period - (size / period + 2) * period;
    while start <= t {
        let lengths: Vec<i128> = match windows {
            Windows::Cumulate { step_ns, .. } => (1..=size / step_ns as i128).map(|k| k * step_ns as i128).collect(),
            _ => vec![size],
        };
        ends.extend(lengths.iter().map(|length| start + length).filter(|end| start >= low && *end > t && *end <= high).map(|end| end as i64));
        start += period;
    }
    ends
}

/// Windows of a random kind; a row lies in a few hundred of them at most.
fn some_windows(dice: &mut Dice, scale: i64) -> Windows {
    let offset = if dice.roll() % 2 == 0 { dice.roll() / 2 } else { 0 };
    let step = 1 + dice.roll().rem_euclid(scale);
    match dice.roll().rem_euclid(3) {
        0 => Windows::tumble(step, offset).unwrap(),
        1 => {
            let size = 1 + dice.roll().rem_euclid(step.saturating_mul(20));
            Windows::hop(size, step, offset).unwrap()
        }
        _ => Windows::cumulate(step.saturating_mul(1 + dice.roll().rem_euclid(20)) / step * step, step, offset).unwrap(),
    }
}

#[test]
fn windows_agree_with_brute_force() {
    let mut dice = Dice(7);
    let (low, high) = (i64::MIN as i128, i64::MAX as i128);
    let mut held = 0;
    for round in 0..20_000 {
        let scale = [3, 10, 1_000, 1 << 40, i64::MAX / 40, i64::MAX - 1][round % 6];
        let windows = some_windows(&mut dice, scale);
        let near = dice.roll() >> (round % 64);
        let t = match round % 11 {
            0 => i64::MIN + (near & 0xff),
            1 => i64::MAX - (near & 0xff),
            2 => i64::MIN.saturating_add(near.checked_abs().unwrap_or(0)),
            3 => i64::MAX - near.checked_abs().unwrap_or(0),
            _ => near,
        };
        let want = brute_force(windows, t, low, high);
        let ends = windows.ends_of(t);
        assert_eq!(ends.len(), want.len(), "{windows:?} at {t}");
        assert_eq!(ends.collect::<Vec<_>>(), want, "{windows:?} at {t}");
        assert_eq!(windows.last_end_of(t), want.last().copied(), "{windows:?} at {t}");
        for end in &want {
            let start = windows.start_of(*end).unwrap();
            assert!(start <= t && t < *end && *end as i128 - start as i128 <= windows.size_ns() as i128, "{windows:?} at {t}: {start}..{end}");
            if !matches!(windows, Windows::Cumulate { .. }) {
                assert_eq!(*end - start, windows.size_ns());
            }
        }
        // A pane's instants lie in the same windows.
        let [pane] = windows.panes().ends_of(t).collect::<Vec<_>>()[..] else { continue };
        for inside in [windows.panes().start_of(pane).unwrap(), pane - 1] {
            assert_eq!(windows.ends_of(inside).collect::<Vec<_>>(), want, "{windows:?}: the pane of {t} up to {pane}");
        }
        held += want.len();
    }
    assert!(held > 20_000, "the windows held {held} instants only");
}

#[test]
fn what_ends_nowhere_has_no_start() {
    let hop = Windows::hop(3 * MINUTE, 2 * MINUTE, 1).unwrap();
    assert_eq!((hop.start_of(3 * MINUTE + 1), hop.start_of(3 * MINUTE), hop.start_of(i64::MIN)), (Some(1), None, None));
    let cumulate = Windows::cumulate(3 * MINUTE, MINUTE, 0).unwrap();
    let starts = [1, 2, 3, 4].map(|n| cumulate.start_of(n * MINUTE));
    assert_eq!(starts, [Some(0), Some(0), Some(0), Some(3 * MINUTE)]);
    assert_eq!(cumulate.start_of(MINUTE - 1), None);
    let tumble = Windows::tumble(MINUTE, -1).unwrap();
    assert_eq!((tumble.start_of(-1), tumble.start_of(0)), (Some(-MINUTE - 1), None));
    assert_eq!((hop.pane_ns(), cumulate.pane_ns(), tumble.pane_ns()), (MINUTE, MINUTE, MINUTE));
}

#[test]
fn windows_are_checked() {
    let said = |windows: std::result::Result<Windows, InvalidWindows>| windows.unwrap_err().to_string();
    assert_eq!(said(Windows::tumble(0, 0)), "a window's size must be positive");
    assert_eq!(said(Windows::hop(1, 0, 0)), "a window's slide must be positive");
    assert_eq!(said(Windows::hop(-1, 1, 0)), "a window's size must be positive");
    assert_eq!(said(Windows::hop(10_001, 1, 0)), "a row would lie in 10001 windows, at most 10000 are allowed: write a longer slide");
    assert!(said(Windows::cumulate(10, 3, 0)).contains("a whole number of steps"));
    assert!(said(Windows::cumulate(10, -5, 0)).contains("step must be positive"));
    assert!(said(Windows::cumulate(10_001, 1, 0)).contains("write a longer step"));
    assert!(Windows::hop(10_000, 1, 0).is_ok() && Windows::cumulate(10_000, 1, 0).is_ok() && Windows::hop(1, i64::MAX, 0).is_ok());
}

#[test]
fn lists_agree_with_brute_force() {
    let mut dice = Dice(11);
    for round in 0..400 {
        let windows = match round % 2 {
            0 => Windows::hop(1 + dice.roll().rem_euclid(500), 1 + dice.roll().rem_euclid(100), dice.roll() / 2).unwrap(),
            _ => {
                let step = 1 + dice.roll().rem_euclid(50);
                Windows::cumulate(step * (1 + dice.roll().rem_euclid(9)), step, dice.roll() / 2).unwrap()
            }
        };
        let days = round % 3 == 0;
        let (low, high) = if days { (i32::MIN as i128, i32::MAX as i128) } else { (i64::MIN as i128, i64::MAX as i128) };
        let mut at = 0_i64;
        let times: Vec<Option<i64>> = (0..100)
            .map(|i| {
                at += dice.roll() % 20;
                let edge = [low as i64, high as i64, low as i64 + 7, high as i64 - 7][i % 4];
                (i % 13 != 0).then_some(if i % 10 == 0 { edge } else { at })
            })
            .collect();
        // Lengths of a column of days are whole days.
        let unit = if days { DAY_NS } else { 1 };
        let array: ArrayRef = match days {
            true => Arc::new(times.iter().map(|t| t.map(|t| t as i32)).collect::<Date32Array>()),
            false => Arc::new(TimestampNanosecondArray::from(times.clone()).with_timezone("+02:00")),
        };
        let (shape, lengths) = match windows {
            Windows::Hop { size_ns, slide_ns, offset_ns } => (Shape::Hop, [size_ns, slide_ns, offset_ns]),
            Windows::Cumulate { size_ns, step_ns, offset_ns } => (Shape::Cumulate, [size_ns, step_ns, offset_ns]),
            Windows::Tumble { .. } => panic!(),
        };
        let constants = lengths.map(|length| ns(length * unit));
        let got = call_of(&function(Role::Ends, shape), ColumnarValue::Array(array.clone()), &constants).unwrap();
        let ColumnarValue::Array(got) = got else { panic!() };
        assert_eq!(got.data_type(), &DataType::new_list(array.data_type().clone(), true));
        let got = got.as_list::<i32>();
        for (row, t) in times.iter().enumerate() {
            let list: Vec<Option<i64>> = match days {
                _ if got.value_length(row) == 0 => vec![],
                true => got.value(row).as_primitive::<Date32Type>().iter().map(|v| v.map(i64::from)).collect(),
                false => got.value(row).as_primitive::<TimestampNanosecondType>().iter().collect(),
            };
            let want: Vec<Option<i64>> = match t {
                Some(t) => brute_force(windows, *t, low, high).into_iter().map(Some).collect(),
                None => vec![None],
            };
            assert_eq!(list, want, "row {row}: {t:?} in {windows:?}");
        }
        // Back from each end to its start.
        let ends = got.values().clone();
        let ColumnarValue::Array(starts) = call_of(&function(Role::StartOfEnd, shape), ColumnarValue::Array(ends.clone()), &constants).unwrap() else {
            panic!()
        };
        assert_eq!((starts.data_type(), starts.null_count()), (array.data_type(), ends.null_count()));
    }
}

#[test]
fn every_unit_of_lists() {
    for (unit, per_second) in [(TimeUnit::Second, 1), (TimeUnit::Millisecond, 1_000), (TimeUnit::Microsecond, 1_000_000), (TimeUnit::Nanosecond, 1_000_000_000)]
    {
        for zone in [None, Some("Europe/Madrid")] {
            let kind = DataType::Timestamp(unit, zone.map(Into::into));
            let value = |seconds: i64| ScalarValue::Int64(Some(seconds * per_second)).cast_to(&kind).unwrap();
            let lengths = [ns(2 * MINUTE), ns(MINUTE)];
            let ColumnarValue::Scalar(got) = call_of(&function(Role::Ends, Shape::Hop), ColumnarValue::Scalar(value(-1)), &lengths).unwrap() else { panic!() };
            assert_eq!(got, ScalarValue::List(ScalarValue::new_list(&[value(0), value(60)], &kind, true)));
            let ColumnarValue::Scalar(got) = call_of(&function(Role::StartOfEnd, Shape::Hop), ColumnarValue::Scalar(value(60)), &lengths).unwrap() else {
                panic!()
            };
            assert_eq!(got, value(-60));
        }
    }
    let half = call_of(&function(Role::Ends, Shape::Hop), ColumnarValue::Scalar(ScalarValue::TimestampSecond(Some(1), None)), &[ns(MINUTE), ns(500_000_000)]);
    assert!(half.unwrap_err().to_string().contains("no whole number of steps"));
}

async fn rows(context: &SessionContext, sql: &str) -> Result<String> {
    Ok(pretty_format_batches(&context.sql(sql).await?.collect().await?)?.to_string())
}

#[tokio::test]
async fn lists_in_a_plan() {
    let mut context = SessionContext::new();
    crate::register(&mut context).unwrap();
    let sql = |call: &str| {
        format!(
            "SELECT id, {call} AS w FROM (VALUES (1, TIMESTAMP '1970-01-01T00:00:30'), (2, NULL), (3, TIMESTAMP '1970-01-01T00:01:30')) AS t (id, ts) ORDER BY id, w"
        )
    };
    // A size of one minute every two: the third row lies in no window and is gone.
    let got = rows(&context, &sql("unnest(__hop_ends(ts, INTERVAL '1 minute', INTERVAL '2 minutes'))")).await.unwrap();
    assert_eq!(got.lines().filter(|l| l.contains("1970-01-01T00:01:00")).count(), 1, "{got}");
    assert_eq!(got.lines().count(), 4 + 2, "{got}");
    let got = rows(&context, &sql("unnest(__cumulate_ends(ts, INTERVAL '3 minutes', INTERVAL '1 minute'))")).await.unwrap();
    assert_eq!(got.lines().count(), 4 + 3 + 1 + 2, "{got}");
    for (call, message) in [
        ("__hop_ends(ts, INTERVAL '1 minute')", "takes a timestamp, a size, a slide and perhaps an offset, not 2 arguments"),
        ("__cumulate_ends(ts, INTERVAL '1 hour', INTERVAL '7 minutes')", "a whole number of steps"),
        ("__hop_ends(ts, INTERVAL '1 day', INTERVAL '1 second')", "would lie in 86400 windows"),
        ("__hop_ends(id, INTERVAL '1 day', INTERVAL '1 second')", "not over Int64"),
        ("__session_start(ts) OVER (ORDER BY ts)", "takes a timestamp and a gap, not 1 arguments"),
        ("__session_start(ts, INTERVAL '0 seconds') OVER (ORDER BY ts)", "gap must be positive"),
        ("__session_start(ts, 5) OVER (ORDER BY ts)", "are intervals like"),
        ("__session_start(ts, INTERVAL '1 month') OVER (ORDER BY ts)", "without months"),
        ("__session_start(ts, INTERVAL '1 day') OVER (ORDER BY ts DESC)", "in the order of time"),
    ] {
        let error = rows(&context, &sql(call)).await.unwrap_err().to_string();
        assert!(error.contains(message), "{call}: {error}");
    }
}

/// Sessions of one key by definition: two times belong together if a chain of pauses shorter than the gap links them.
fn sessions_by_brute_force(times: &[i64], gap: i64) -> Vec<Option<(i64, i64)>> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    times
        .iter()
        .map(|t| {
            let at = sorted.iter().position(|s| s == t).unwrap();
            let breaks = |a: i64, b: i64| b as i128 - a as i128 >= gap as i128;
            let first = (1..=at).rev().find(|&i| breaks(sorted[i - 1], sorted[i])).unwrap_or(0);
            let last = (at + 1..sorted.len()).find(|&i| breaks(sorted[i - 1], sorted[i])).unwrap_or(sorted.len()) - 1;
            Some((sorted[first], sorted[last].checked_add(gap)?))
        })
        .collect()
}

#[tokio::test]
async fn sessions_agree_with_brute_force() {
    let mut dice = Dice(3);
    for round in 0..60 {
        let rows = 1 + dice.roll().rem_euclid(200) as usize;
        let gap = 1 + dice.roll().rem_euclid(40);
        let keys: Vec<i64> = (0..rows).map(|_| dice.roll().rem_euclid(3)).collect();
        let times: Vec<Option<i64>> = (0..rows)
            .map(|row| match row % 19 {
                7 => None,
                8 if round % 5 == 0 => Some([i64::MAX, i64::MAX - 5, i64::MIN][dice.roll().rem_euclid(3) as usize]),
                _ => Some(dice.roll().rem_euclid(1_000) - 500),
            })
            .collect();
        let kind = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("k", DataType::Int64, false),
            Field::new("ts", kind.clone(), true),
        ]));
        let batch = RecordBatch::try_new(
            schema,
            vec![
                Arc::new(Int64Array::from_iter_values(0..rows as i64)),
                Arc::new(Int64Array::from(keys.clone())),
                Arc::new(TimestampNanosecondArray::from(times.clone()).with_timezone("UTC")),
            ],
        )
        .unwrap();
        let mut context = SessionContext::new();
        crate::register(&mut context).unwrap();
        context.register_batch("t", batch).unwrap();
        let over = format!("(ts, INTERVAL '{gap} nanoseconds') OVER (PARTITION BY k ORDER BY ts)");
        let sql = format!("SELECT __session_start{over} AS s, __session_end{over} AS e FROM t ORDER BY id");
        let got = context.sql(&sql).await.unwrap().collect().await.unwrap();
        let got: Vec<(Option<i64>, Option<i64>)> = got
            .iter()
            .flat_map(|b| {
                assert_eq!(b.column(0).data_type(), &kind);
                let [s, e] = [0, 1].map(|c| b.column(c).as_primitive::<TimestampNanosecondType>().clone());
                (0..b.num_rows()).map(move |i| (s.is_valid(i).then(|| s.value(i)), e.is_valid(i).then(|| e.value(i)))).collect::<Vec<_>>()
            })
            .collect();
        let mut want = vec![(None, None); rows];
        for key in 0..3 {
            let mine: Vec<usize> = (0..rows).filter(|&row| keys[row] == key && times[row].is_some()).collect();
            let of_key: Vec<i64> = mine.iter().map(|&row| times[row].unwrap()).collect();
            for (row, session) in mine.iter().zip(sessions_by_brute_force(&of_key, gap)) {
                want[*row] = (session.map(|s| s.0), session.map(|s| s.1));
            }
        }
        assert_eq!(got, want, "round {round}, gap {gap}");
    }
}

/// The expressions of a query's nodes.
async fn expressions(sql: &str) -> Vec<Expr> {
    let mut context = SessionContext::new();
    crate::register(&mut context).unwrap();
    let plan = context.sql(sql).await.unwrap().into_optimized_plan().unwrap();
    let mut found = vec![];
    let mut left: Vec<&LogicalPlan> = vec![&plan];
    while let Some(node) = left.pop() {
        found.extend(node.expressions());
        left.extend(node.inputs());
    }
    found
}

#[tokio::test]
async fn calls_are_found_in_a_plan() {
    let from = "FROM (SELECT to_timestamp_nanos(value) AS ts, value AS k FROM generate_series(1, 5))";
    let sql = format!(
        "SELECT __window_start(ts, INTERVAL '1 minute', INTERVAL '-1 nanoseconds') AS a, __window_end(ts, INTERVAL '1 minute') AS b,
                __hop_start(ts, INTERVAL '3 minutes', INTERVAL '1 minute') AS c, unnest(__cumulate_ends(ts, INTERVAL '2 minutes', INTERVAL '1 minute')) AS d {from}"
    );
    let found = expressions(&sql).await;
    let calls: Vec<_> = found.iter().filter_map(WindowCall::of).map(|call| (call.role, call.windows)).collect();
    for wanted in [
        (Role::Start, Windows::tumble(MINUTE, MINUTE - 1).unwrap()),
        (Role::End, Windows::tumble(MINUTE, 0).unwrap()),
        (Role::StartOfEnd, Windows::hop(3 * MINUTE, MINUTE, 0).unwrap()),
        (Role::Ends, Windows::cumulate(2 * MINUTE, MINUTE, 0).unwrap()),
    ] {
        assert!(calls.contains(&wanted), "{wanted:?} is not in {calls:?}");
    }
    let found = expressions(&format!("SELECT __session_end(ts, INTERVAL '1 minute') OVER (PARTITION BY k ORDER BY ts) {from}")).await;
    let calls: Vec<_> = found.iter().filter_map(SessionCall::of).collect();
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((call.bound, call.gap_ns, call.partition_by.len(), call.time.to_string().ends_with("ts")), (Bound::End, MINUTE, 1, true));
}

#[test]
fn calls_without_constants_are_none() {
    use datafusion::logical_expr::{col, lit};
    let end = functions().into_iter().find(|f| f.name() == WINDOW_END).unwrap();
    let call = end.call(vec![col("ts"), lit(ns(MINUTE)), lit(ns(-1))]).alias("window_end");
    let found = WindowCall::of(&call).unwrap();
    assert_eq!((found.role, found.argument, found.windows), (Role::End, &col("ts"), Windows::Tumble { size_ns: MINUTE, offset_ns: MINUTE - 1 }));
    assert!(WindowCall::of(&col("window_end")).is_none());
    assert!(WindowCall::of(&end.call(vec![col("ts"), col("size")])).is_none());
    assert!(WindowCall::of(&end.call(vec![col("ts"), lit(ns(0))])).is_none());
}
