use std::cell::RefCell;

use tidegate_kernels::{
    device::DeviceError,
    expr::{
        Arithmetic, Batch, Buffer, Column, Comparison, DeviceProgram, EvaluateError, Evaluated, Expr, Faults, Misfit, OutOfRange, Program, Projected, Type,
        Unit, Value, Values, evaluate,
    },
};

use super::{
    emulator,
    expressions::{self, Data},
    random::Random,
};

fn int(value: i64) -> Expr {
    Expr::literal(Value::Int64(value))
}

fn float(value: f64) -> Expr {
    Expr::literal(Value::Float64(value))
}

fn null(of: Type) -> Expr {
    Expr::literal(Value::Null(of))
}

#[test]
fn results_are_the_references() {
    let gpu = emulator::open(2);
    let mut random = Random(8);
    let (mut kept, mut given_back, mut values) = (0, 0, 0);
    for round in 0..12 {
        let program = expressions::program(&mut random, 10);
        let device = DeviceProgram::new(&gpu, &program).unwrap_or_else(|error| panic!("{error}\n{}", program.text()));
        for batch in 0..6 {
            emulator::seed(round * 10 + batch);
            let rows = [0, 1, 31, 32, 33, 255, 256, 300, 700][random.below(9)];
            let data = Data::random(&mut random, rows);
            let both = |data: &Data| data.with(|batch| (device.evaluate(batch), evaluate(&program, batch)));
            let (found, expected) = both(&data);
            assert!(found == expected, "round {round}, {rows} rows\n{found:?}\n{expected:?}\n{}", program.text());
            if expected.is_ok() {
                kept += 1;
                continue;
            }
            given_back += 1;
            // Without the rows with faults the others' values are told, and rows with a fault tell each its own.
            let faulty: Vec<bool> = (0..rows).map(|row| data.slice(row, 1).with(|batch| evaluate(&program, batch).is_err())).collect();
            let sound = data.filtered(&faulty.iter().map(|faulty| !faulty).collect::<Vec<_>>());
            let (found, expected) = both(&sound);
            assert!(found == expected, "round {round}, {} sound rows\n{found:?}\n{expected:?}\n{}", sound.rows, program.text());
            values += expected.unwrap().results.iter().map(|result| result.valid.iter().map(|byte| byte.count_ones()).sum::<u32>()).sum::<u32>();
            for row in (0..rows).filter(|&row| faulty[row]).take(5) {
                let (found, expected) = both(&data.slice(row, 1));
                assert_eq!(found, expected, "round {round}, row {row}\n{}", program.text());
            }
        }
    }
    println!("{kept} batches kept, {given_back} given back, {values} values in the sound rows of those");
    assert!(kept >= 5 && given_back >= 10 && values >= 10_000);
}

/// Expressions without columns, and what the reference gives for them: a value or faults.
#[derive(Default)]
struct Cases(RefCell<Vec<(Expr, Result<Value, Faults>)>>);

impl Cases {
    /// The reference's answer.
    fn value(&self, expr: Result<Expr, Misfit>) -> Result<Value, Faults> {
        let expr = expr.unwrap();
        let answer = answer(evaluate(&Program::new(None, vec![expr.clone()]).unwrap(), &Batch { rows: 1, columns: &[] }), 0, expr.data_type());
        self.0.borrow_mut().push((expr, answer));
        answer
    }

    /// Has the device give the same answers.
    fn are_the_devices(self) {
        let gpu = emulator::open(1);
        for cases in self.0.into_inner().chunks(100) {
            // All in one kernel, of which each launch computes one.
            let asked = |case: usize| Expr::compare(Comparison::Equal, Expr::column(0, Type::Int64), int(case as i64)).unwrap();
            let projections = cases.iter().enumerate().map(|(case, (expr, _))| Expr::case(vec![(asked(case), expr.clone())], None).unwrap());
            let program = DeviceProgram::new(&gpu, &Program::new(None, projections.collect()).unwrap()).unwrap();
            for (case, (expr, expected)) in cases.iter().enumerate() {
                let columns = [Column { values: Values::Int64(&[case as i64]), valid: None }];
                let found = answer(program.evaluate(&Batch { rows: 1, columns: &columns }), case, expr.data_type());
                assert_eq!(found, *expected, "{expr}");
            }
        }
    }
}

/// One result's value for the only row, or the faults.
fn answer(evaluated: Result<Evaluated, EvaluateError>, result: usize, of: Type) -> Result<Value, Faults> {
    match evaluated {
        Ok(Evaluated { results, .. }) if results[result].valid[0] & 1 == 0 => Ok(Value::Null(of)),
        Ok(Evaluated { results, .. }) => Ok(match &results[result].values {
            Buffer::Boolean(bits) => Value::Boolean(bits[0] & 1 == 1),
            Buffer::Int32(values) => Value::Int32(values[0]),
            Buffer::Int64(values) => Value::Int64(values[0]),
            Buffer::Float64(values) => Value::Float64(values[0]),
        }),
        Err(EvaluateError::GivenBack(faults)) => Err(faults),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn comparisons_as_they_are_defined() {
    let cases = Cases::default();
    let compare = |comparison, left: f64, right: f64| cases.value(Expr::compare(comparison, float(left), float(right))) == Ok(Value::Boolean(true));
    let nan = f64::from_bits(0x7ff8 << 48);
    let order = [-nan, f64::NEG_INFINITY, -1.0, 0.0, f64::MIN_POSITIVE, f64::INFINITY, nan, f64::from_bits(0x7ff8_0000_0000_0001)];
    for (at, &low) in order.iter().enumerate() {
        for (above, &high) in order.iter().enumerate() {
            assert_eq!(compare(Comparison::Less, low, high), at < above, "{low} {high}");
            assert_eq!(compare(Comparison::GreaterOrEqual, low, high), at >= above, "{low} {high}");
            assert_eq!(compare(Comparison::Equal, low, high), at == above, "{low} {high}");
            assert_eq!(compare(Comparison::Distinct, low, high), at != above, "{low} {high}");
        }
    }
    // Zeros are one, except to IN, which looks at bits.
    assert!(compare(Comparison::Equal, 0.0, -0.0) && !compare(Comparison::Less, -0.0, 0.0) && compare(Comparison::NotDistinct, -0.0, 0.0));
    assert_eq!(cases.value(Expr::in_list(float(0.0), vec![Value::Float64(-0.0)])), Ok(Value::Boolean(false)));
    let boolean = Value::Null(Type::Boolean);
    assert_eq!(cases.value(Expr::compare(Comparison::Equal, int(1), null(Type::Int64))), Ok(boolean));
    assert_eq!(cases.value(Expr::compare(Comparison::Distinct, int(0), null(Type::Int64))), Ok(Value::Boolean(true)));
    assert_eq!(cases.value(Expr::compare(Comparison::NotDistinct, null(Type::Int64), null(Type::Int64))), Ok(Value::Boolean(true)));
    let list = || vec![Value::Int64(1), Value::Null(Type::Int64)];
    assert_eq!(cases.value(Expr::in_list(int(1), list())), Ok(Value::Boolean(true)));
    assert_eq!(cases.value(Expr::in_list(int(2), list())), Ok(boolean));
    assert_eq!(cases.value(Expr::in_list(null(Type::Int64), vec![Value::Int64(1)])), Ok(boolean));
    assert_eq!(cases.value(Expr::not(Expr::in_list(int(2), vec![Value::Int64(1)]).unwrap())), Ok(Value::Boolean(true)));
    cases.are_the_devices();
}

#[test]
fn logic_with_three_values() {
    let cases = Cases::default();
    let cell = |value: Option<bool>| Expr::literal(value.map_or(Value::Null(Type::Boolean), Value::Boolean));
    let shown = |value: Result<Value, Faults>| if let Ok(Value::Boolean(value)) = value { Some(value) } else { None };
    for left in [None, Some(false), Some(true)] {
        for right in [None, Some(false), Some(true)] {
            // AND is the lesser one and OR the greater one, if NULL is between false and true.
            let rank = |value: Option<bool>| value.map_or(1, |value| if value { 2 } else { 0 });
            let of_rank = |rank| [Some(false), None, Some(true)][rank];
            assert_eq!(shown(cases.value(Expr::and(cell(left), cell(right)))), of_rank(rank(left).min(rank(right))), "{left:?} {right:?}");
            assert_eq!(shown(cases.value(Expr::or(cell(left), cell(right)))), of_rank(rank(left).max(rank(right))), "{left:?} {right:?}");
        }
        assert_eq!(shown(cases.value(Expr::not(cell(left)))), left.map(|value| !value));
        assert_eq!(cases.value(Expr::is_null(cell(left))), Ok(Value::Boolean(left.is_none())));
    }
    cases.are_the_devices();
}

#[test]
fn arithmetic_as_it_is_defined() {
    let cases = Cases::default();
    let compute = |arithmetic, left, right| cases.value(Expr::arithmetic(arithmetic, left, right));
    let (most, least) = (i64::MAX, i64::MIN);
    for (arithmetic, left, right, expected) in [
        (Arithmetic::AddWrapping, most, 1, Ok(least)),
        (Arithmetic::Add, most, 1, Err(Faults::OVERFLOW)),
        (Arithmetic::SubtractWrapping, least, 1, Ok(most)),
        (Arithmetic::Subtract, 0, least, Err(Faults::OVERFLOW)),
        (Arithmetic::MultiplyWrapping, most, 2, Ok(-2)),
        (Arithmetic::Multiply, least, -1, Err(Faults::OVERFLOW)),
        (Arithmetic::Divide, -7, 2, Ok(-3)),
        (Arithmetic::Divide, 1, 0, Err(Faults::DIVISION_BY_ZERO)),
        (Arithmetic::Divide, least, -1, Err(Faults::OVERFLOW)),
        (Arithmetic::Remainder, -7, 2, Ok(-1)),
        (Arithmetic::Remainder, least, -1, Ok(0)),
        (Arithmetic::Remainder, 1, 0, Err(Faults::DIVISION_BY_ZERO)),
    ] {
        assert_eq!(compute(arithmetic, int(left), int(right)), expected.map(Value::Int64), "{left} {arithmetic} {right}");
    }
    assert_eq!(compute(Arithmetic::Divide, null(Type::Int64), int(0)), Ok(Value::Null(Type::Int64)), "nothing is divided");
    assert_eq!(cases.value(Expr::negate(int(least))), Ok(Value::Int64(least)));
    let (nan, other) = (f64::from_bits(0x7ff0_0000_0000_0001), f64::from_bits(0xfff8 << 48));
    for (arithmetic, left, right, expected) in [
        (Arithmetic::Divide, 1.0, -0.0, Ok(f64::NEG_INFINITY)),
        (Arithmetic::Divide, 0.0, 0.0, Err(Faults::NAN)),
        (Arithmetic::Subtract, f64::INFINITY, f64::INFINITY, Err(Faults::NAN)),
        (Arithmetic::Remainder, -7.5, 2.0, Ok(-1.5)),
        (Arithmetic::Remainder, 1.0, 0.0, Err(Faults::NAN)),
        (Arithmetic::Add, nan, 1.0, Ok(f64::from_bits(0x7ff8_0000_0000_0001))),
        (Arithmetic::Multiply, 1.0, other, Ok(other)),
        (Arithmetic::Add, other, other, Ok(other)),
        (Arithmetic::Add, nan, other, Err(Faults::NAN)),
        (Arithmetic::Add, f64::MAX, f64::MAX, Ok(f64::INFINITY)),
    ] {
        assert_eq!(compute(arithmetic, float(left), float(right)), expected.map(Value::Float64), "{left} {arithmetic} {right}");
    }
    assert_eq!(cases.value(Expr::negate(float(nan))), Ok(Value::Float64(f64::from_bits(0xfff0_0000_0000_0001))));
    cases.are_the_devices();
}

#[test]
fn casts_as_they_are_defined() {
    let cases = Cases::default();
    let cast = |value, to| cases.value(Expr::cast(Expr::literal(value), to, OutOfRange::Fails));
    let attempt = |value, to| cases.value(Expr::cast(Expr::literal(value), to, OutOfRange::IsNull));
    for (value, to, expected) in [
        (Value::Int64(i64::from(i32::MIN)), Type::Int32, Some(Value::Int32(i32::MIN))),
        (Value::Int64(i64::from(i32::MIN) - 1), Type::Int32, None),
        (Value::Int64(i64::MAX), Type::Float64, Some(Value::Float64(9_223_372_036_854_775_808.0))),
        (Value::Float64(-2_147_483_648.9), Type::Int32, Some(Value::Int32(i32::MIN))),
        (Value::Float64(2_147_483_647.9), Type::Int32, Some(Value::Int32(i32::MAX))),
        (Value::Float64(2_147_483_648.0), Type::Int32, None),
        (Value::Float64(-9_223_372_036_854_775_808.0), Type::Int64, Some(Value::Int64(i64::MIN))),
        (Value::Float64(-9_223_372_036_854_777_856.0), Type::Int64, None),
        (Value::Float64(9_223_372_036_854_775_808.0), Type::Int64, None),
        (Value::Float64(-0.9), Type::Int64, Some(Value::Int64(0))),
        (Value::Float64(f64::NAN), Type::Int64, None),
        (Value::Float64(f64::NAN), Type::Boolean, Some(Value::Boolean(true))),
        (Value::Float64(-0.0), Type::Boolean, Some(Value::Boolean(false))),
        (Value::Boolean(true), Type::Float64, Some(Value::Float64(1.0))),
        (Value::Null(Type::Float64), Type::Int32, Some(Value::Null(Type::Int32))),
    ] {
        assert_eq!(cast(value, to), expected.ok_or(Faults::CAST), "{value} {to}");
        assert_eq!(attempt(value, to), Ok(expected.unwrap_or(Value::Null(to))), "{value} {to}");
    }
    cases.are_the_devices();
}

#[test]
fn what_is_not_taken_is_no_fault() {
    let by = |y: &Expr| Expr::arithmetic(Arithmetic::Divide, int(10), y.clone()).unwrap();
    let y = Expr::column(0, Type::Int64);
    let guarded = Expr::case(vec![(Expr::compare(Comparison::NotEqual, y.clone(), int(0)).unwrap(), by(&y))], None).unwrap();
    let whichever = Expr::coalesce(vec![guarded.clone(), y.clone(), by(&y)]).unwrap();
    let unguarded = Expr::and(Expr::literal(Value::Boolean(false)), Expr::is_null(by(&y)).unwrap()).unwrap();
    let filtered = Program::new(Some(Expr::compare(Comparison::Greater, y.clone(), int(0)).unwrap()), vec![by(&y)]).unwrap();
    let gpu = emulator::open(1);
    let columns = [Column { values: Values::Int64(&[5, 0, 3]), valid: None }];
    let batch = Batch { rows: 3, columns: &columns };
    for (program, expected) in [
        (Program::new(None, vec![guarded]).unwrap(), Ok(vec![2, 0, 3])),
        (Program::new(None, vec![whichever]).unwrap(), Ok(vec![2, 0, 3])),
        (filtered, Ok(vec![2, 0, 3])),
        (Program::new(None, vec![unguarded]).unwrap(), Err(Faults::DIVISION_BY_ZERO)),
    ] {
        let found = DeviceProgram::new(&gpu, &program).unwrap().evaluate(&batch);
        assert_eq!(found, evaluate(&program, &batch));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.results[0].values, Buffer::Int64(expected)),
            (found, expected) => assert_eq!(found.err(), expected.err().map(EvaluateError::GivenBack)),
        }
    }
}

#[test]
fn bins_of_time() {
    let cases = Cases::default();
    let bin = |time, unit, stride, origin| match cases.value(Expr::date_bin(int(time), unit, stride, origin)) {
        Ok(Value::Int64(begin)) => Some(begin),
        _ => None,
    };
    assert_eq!([-8, -7, 2, 3, 12, 13].map(|time| bin(time, Unit::Nanosecond, 10, 3)), [-17, -7, -7, 3, 3, 13].map(Some));
    assert_eq!(bin(90, Unit::Second, 60_000_000_000, 0), Some(60));
    assert_eq!(bin(-1, Unit::Millisecond, 60_000_000_000, 0), Some(-60_000));
    // The origin is no whole number of milliseconds: cut toward zero, as DataFusion does.
    assert_eq!(bin(-1, Unit::Millisecond, 10_000_000, 999_999), Some(-9));
    // Whatever doesn't fit in 64 bits of nanoseconds is NULL.
    assert_eq!(bin(i64::MAX / 1000, Unit::Second, 1, 0), None);
    assert_eq!(bin(i64::MIN, Unit::Nanosecond, 1, 1), None);
    assert_eq!(bin(i64::MIN, Unit::Nanosecond, 10, 0), None);
    assert_eq!(bin(i64::MIN, Unit::Nanosecond, 1, 0), Some(i64::MIN));
    cases.are_the_devices();
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let (number, text) = (int(1), |result: Result<Expr, Misfit>| result.unwrap_err().to_string());
    assert_eq!(text(Expr::and(number.clone(), number.clone())), "AND takes a Boolean, and here is Int64");
    assert_eq!(text(Expr::compare(Comparison::Less, number.clone(), float(1.0))), "a comparison takes values of one type, and here are Int64 and Float64");
    assert_eq!(text(Expr::negate(null(Type::Boolean))), "- takes numbers, and here is Boolean");
    assert!(text(Expr::arithmetic(Arithmetic::Add, null(Type::Boolean), null(Type::Boolean))).contains("arithmetic takes numbers"));
    assert!(text(Expr::case(vec![], None)).contains("needs a WHEN") && text(Expr::coalesce(vec![])).contains("needs a value"));
    assert!(text(Expr::case(vec![(null(Type::Boolean), int(1))], Some(float(1.0)))).contains("CASE takes values of one type"));
    assert!(text(Expr::in_list(int(1), vec![])).contains("at least one value"));
    assert!(text(Expr::in_list(int(1), vec![Value::Int32(1)])).contains("Int64 and Int32"));
    assert!(text(Expr::date_bin(float(1.0), Unit::Second, 1, 0)).contains("as Int64") && text(Expr::date_bin(int(1), Unit::Second, 0, 0)).contains("0 ns"));
    // Too deep, and too large by sharing.
    let mut deep = Ok(int(1));
    while let Ok(expr) = &deep {
        deep = Expr::negate(expr.clone());
    }
    assert!(text(deep).contains("101 levels"));
    let mut wide = Ok(int(1));
    while let Ok(expr) = &wide {
        wide = Expr::arithmetic(Arithmetic::Add, expr.clone(), expr.clone());
    }
    assert!(text(wide).contains("8191 parts"));

    let refused = |filter, projections| Program::new(filter, projections).unwrap_err().to_string();
    assert!(refused(Some(int(1)), vec![]).contains("a filter is a Boolean") && refused(None, vec![]).contains("neither"));
    assert!(refused(None, vec![Expr::column(3, Type::Int64), Expr::column(3, Type::Int32)]).contains("column 3 is Int64 in one place and Int32 in another"));
    assert!(refused(None, (0..101).map(|number| Expr::column(number, Type::Int64)).collect()).contains("200 columns at most"));

    let program = Program::new(None, vec![Expr::column(1, Type::Int64)]).unwrap();
    let column = Column { values: Values::Int64(&[1, 2]), valid: None };
    let wrong = |rows, columns: &[Column<'_>]| evaluate(&program, &Batch { rows, columns }).unwrap_err().to_string();
    assert_eq!(wrong(2, &[column]), "the batch is not the program's: column 1 is read, and the batch has 1");
    assert!(wrong(3, &[column, column]).contains("another length than the batch's 3 rows"));
    assert!(wrong(2, &[column, Column { valid: Some(&[]), ..column }]).contains("another length"));
    assert!(wrong(2, &[column, Column { values: Values::Boolean(&[0]), ..column }]).contains("is Boolean and should be Int64"));
    let error = EvaluateError::GivenBack(Faults::NAN);
    assert_eq!(error.to_string(), "the batch is given back to the CPU: in some row a NaN arises whose bits are up to the processor");
}

/// The generated part of a program's text.
fn generated(program: &Program) -> &str {
    &program.text()[program.text().find("extern \"C\"").unwrap()..]
}

#[test]
fn a_text_to_read() {
    let (price, size, side) = (Expr::column(7, Type::Float64), Expr::column(2, Type::Int64), Expr::column(4, Type::Boolean));
    let sizes = Expr::cast(size.clone(), Type::Float64, OutOfRange::Fails).unwrap();
    let value = Expr::arithmetic(Arithmetic::MultiplyWrapping, price.clone(), sizes).unwrap();
    let large = Expr::compare(Comparison::Greater, size, int(100)).unwrap();
    let signed = Expr::case(vec![(side, value.clone())], Some(Expr::negate(value.clone()).unwrap())).unwrap();
    let program = Program::new(Some(large), vec![value, signed]).unwrap();
    let expected = r#"extern "C" __global__ void __launch_bounds__(EXPR_BLOCK)
evaluate(u32 rows, u32 *__restrict__ faulty, u32 *__restrict__ selected, const i64 *__restrict__ c0, const u32 *__restrict__ c0_valid, const double *__restrict__ c1, const u32 *__restrict__ c1_valid, const u32 *__restrict__ c2, const u32 *__restrict__ c2_valid, double *__restrict__ r0, u32 *__restrict__ r0_valid, double *__restrict__ r1, u32 *__restrict__ r1_valid) {
  u32 faults = 0;
  for (u32 first = blockIdx.x * EXPR_BLOCK + (threadIdx.x & ~31u); first < rows; first += gridDim.x * EXPR_BLOCK) {
    u32 row = first + (threadIdx.x & 31);
    bool passes = false;
    Cell<double> p0 = {};
    Cell<double> p1 = {};
    if (row < rows) {
      const Cell<i64> v0 = load(c0, c0_valid, row);
      // (c0 > 100)
      const Cell<i64> t0 = some<i64>(100ll);
      const Cell<bool> t1 = greater(v0, t0);
      passes = is_true(t1);
      if (passes) {
        const Cell<double> v1 = load(c1, c1_valid, row);
        const Cell<bool> v2 = load_bit(c2, c2_valid, row);
        // (c1 * CAST(c0 AS Float64))
        const Cell<double> t2 = cast<double>(v0, faults);
        const Cell<double> t3 = multiply(v1, t2, faults);
        p0 = t3;
        // CASE WHEN c2 THEN (c1 * CAST(c0 AS Float64)) ELSE (- (c1 * CAST(c0 AS Float64))) END
        Cell<double> t4 = {};
        bool t4_open = true;
        if (is_true(v2)) {
          t4 = t3;
          t4_open = false;
        }
        if (t4_open) {
          const Cell<double> t5 = negate(t3);
          t4 = t5;
        }
        p1 = t4;
      }
    }
    store_bits(selected, row, passes);
    store(r0, r0_valid, row, rows, p0);
    store(r1, r1_valid, row, rows, p1);
  }
  if (faults) atomicOr(faulty, faults);
}
EXPORT_KERNEL(evaluate)
"#;
    assert_eq!(generated(&program), expected);
}

#[test]
fn equal_programs_have_equal_texts() {
    let build = |seed: u64| {
        let mut random = Random(seed);
        (0..6).map(|_| expressions::program(&mut random, 3)).collect::<Vec<_>>()
    };
    for (one, other) in build(1).iter().zip(build(1)) {
        assert_eq!((one.filter(), one.projections(), one.text()), (other.filter(), other.projections(), other.text()));
    }
    let texts: std::collections::HashSet<_> = (0..40).flat_map(build).map(|program| generated(&program).to_string()).collect();
    let programs: std::collections::HashSet<_> = (0..40).flat_map(build).map(|program| format!("{:?} {:?}", program.filter(), program.projections())).collect();
    assert!(texts.len() <= programs.len() && programs.len() > 200, "{} {}", texts.len(), programs.len());
    // The same over other columns is the same kernel; a NaN of other bits isn't.
    let over = |column| Program::new(None, vec![Expr::is_null(Expr::column(column, Type::Int32)).unwrap()]).unwrap();
    assert_eq!(over(3).text(), over(9).text());
    let nan = |bits| Program::new(None, vec![float(f64::from_bits(bits))]).unwrap();
    assert_ne!(nan(0x7ff8 << 48).text(), nan(0x7ff8_0000_0000_0001).text());
    assert_ne!(nan(0).text(), nan(1 << 63).text(), "nor is the other zero");
}

#[test]
fn a_result_of_no_column() {
    // Literals alone, over no columns, and rows that end within a word.
    let gpu = emulator::open(1);
    let least = [Value::Int64(i64::MIN), Value::Int32(i32::MIN), Value::Float64(f64::MIN_POSITIVE), Value::Boolean(true), Value::Null(Type::Int32)];
    let program = Program::new(None, least.map(Expr::literal).into()).unwrap();
    let found = DeviceProgram::new(&gpu, &program).unwrap().evaluate(&Batch { rows: 35, columns: &[] }).unwrap();
    let valid = vec![255, 255, 255, 255, 7, 0, 0, 0];
    let result = |values| Projected { values, valid: valid.clone() };
    assert_eq!(
        found.results,
        [
            result(Buffer::Int64(vec![i64::MIN; 35])),
            result(Buffer::Int32(vec![i32::MIN; 35])),
            result(Buffer::Float64(vec![f64::MIN_POSITIVE; 35])),
            result(Buffer::Boolean(valid.clone())),
            Projected { values: Buffer::Int32(vec![0; 35]), valid: vec![0; 8] },
        ]
    );
}

#[test]
fn more_rows_than_threads() {
    let gpu = emulator::open(1);
    let (rows, number, flag) = (5_000, Expr::column(0, Type::Int32), Expr::column(1, Type::Boolean));
    let doubled = Expr::arithmetic(Arithmetic::AddWrapping, number.clone(), number.clone()).unwrap();
    let half = Expr::arithmetic(Arithmetic::Remainder, number, Expr::literal(Value::Int32(2))).unwrap();
    let odd = Expr::cast(half, Type::Boolean, OutOfRange::Fails).unwrap();
    let program = Program::new(Some(flag), vec![doubled, odd]).unwrap();
    let numbers: Vec<i32> = (0..rows as i32).map(|row| row * 3).collect();
    let (flags, valid) = (Random(4).bitmap(rows), Random(5).bitmap(rows));
    let columns = [Column { values: Values::Int32(&numbers), valid: Some(&valid) }, Column { values: Values::Boolean(&flags), valid: None }];
    let batch = Batch { rows, columns: &columns };
    assert_eq!(DeviceProgram::new(&gpu, &program).unwrap().evaluate(&batch), evaluate(&program, &batch));
    assert!(rows > gpu.processors() as usize * 8 * 256);
}

#[test]
fn a_kernel_is_of_one_device() {
    let (one, other) = (emulator::open(1), emulator::open(1));
    let program = Program::new(None, vec![int(4)]).unwrap();
    let kernel = one.make("expr", program.text(), "evaluate").unwrap();
    let mut plan = tidegate_kernels::device::Plan::default();
    // SAFETY: it is never run.
    unsafe { plan.launch(kernel, 1, 256, 0, vec![]) };
    let error = other.slot(plan).unwrap().submit().unwrap_err();
    assert!(matches!(&error, DeviceError::Batch(reason) if reason.contains("made for another device")), "{error}");
}
