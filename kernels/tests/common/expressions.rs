//! Random expressions, and columns to compute them over.

use tidegate_kernels::expr::{Arithmetic, Batch, Column, Comparison, Expr, OutOfRange, Program, Type, Unit, Value, Values};

use super::random::Random;

/// The columns that expressions read, by number: two of each type.
pub const COLUMNS: [Type; 8] = [Type::Int64, Type::Float64, Type::Boolean, Type::Int32, Type::Int64, Type::Float64, Type::Boolean, Type::Int32];

/// A literal; extremes and what is special are frequent, and so are small numbers, which meet each other.
pub fn value(random: &mut Random, of: Type) -> Value {
    if random.once_in(8) {
        return Value::Null(of);
    }
    match of {
        Type::Boolean => Value::Boolean(random.once_in(2)),
        Type::Int32 => Value::Int32(match random.below(12) {
            0 => [i32::MIN, i32::MAX, i32::MIN + 1, -1][random.below(4)],
            1 => random.next() as i32,
            _ => random.below(7) as i32 - 2,
        }),
        Type::Int64 => Value::Int64(match random.below(12) {
            0 => [i64::MIN, i64::MAX, i64::MIN + 1, -1][random.below(4)],
            1 => random.next() as i64,
            2 => (random.next() as i64) >> 24,
            _ => random.below(7) as i64 - 2,
        }),
        Type::Float64 => Value::Float64(match random.below(12) {
            0 => [f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, f64::MIN_POSITIVE, f64::MAX][random.below(6)],
            1 => random.float(),
            // Quiet ones and one that signals, of both signs.
            2 if random.once_in(3) => f64::from_bits([0x7ff8 << 48, 0xfff8 << 48, 0x7ff0_0000_0000_0001, 0xfff8_0000_0000_0001][random.below(4)]),
            // Around the ends of integers.
            3 => [2_147_483_647.5, -2_147_483_648.5, 9_223_372_036_854_775_807.0, -9_223_372_036_854_775_808.0][random.below(4)],
            _ => (random.below(13) as f64 - 4.0) / 2.0,
        }),
    }
}

/// An expression of a type, up to so many levels above its leaves.
pub fn expr(random: &mut Random, of: Type, levels: usize) -> Expr {
    if levels == 0 || random.once_in(10) {
        if random.once_in(4) {
            return Expr::literal(value(random, of));
        }
        let fitting: Vec<usize> = (0..COLUMNS.len()).filter(|&number| COLUMNS[number] == of).collect();
        return Expr::column(fitting[random.below(fitting.len())], of);
    }
    let below = levels - 1;
    let any = |random: &mut Random| Type::ALL[random.below(4)];
    match random.below(if of == Type::Boolean { 12 } else { 9 }) {
        0 => {
            let whens = (0..1 + random.below(3)).map(|_| (expr(random, Type::Boolean, below), expr(random, of, below))).collect();
            let otherwise = (!random.once_in(3)).then(|| expr(random, of, below));
            Expr::case(whens, otherwise).unwrap()
        }
        1 => Expr::coalesce((0..1 + random.below(3)).map(|_| expr(random, of, below)).collect()).unwrap(),
        2 => {
            let from = any(random);
            let out_of_range = if random.once_in(3) { OutOfRange::Fails } else { OutOfRange::IsNull };
            Expr::cast(expr(random, from, below), of, out_of_range).unwrap()
        }
        3 if of == Type::Int64 => {
            let stride = [1, 7, 1_000, 60_000_000_000, i64::MAX][random.below(5)];
            let origin = [0, 3, -5_000_000_001, i64::MIN, random.next() as i64][random.below(5)];
            let unit = [Unit::Second, Unit::Millisecond, Unit::Microsecond, Unit::Nanosecond][random.below(4)];
            Expr::date_bin(expr(random, Type::Int64, below), unit, stride, origin).unwrap()
        }
        3 if of.is_number() => Expr::negate(expr(random, of, below)).unwrap(),
        _ if of.is_number() => {
            // Mostly those that can't fail.
            let arithmetic = Arithmetic::ALL[if random.once_in(2) { random.below(3) } else { random.below(8) }];
            Expr::arithmetic(arithmetic, expr(random, of, below), expr(random, of, below)).unwrap()
        }
        3 => Expr::not(expr(random, Type::Boolean, below)).unwrap(),
        4 => Expr::and(expr(random, Type::Boolean, below), expr(random, Type::Boolean, below)).unwrap(),
        5 => Expr::or(expr(random, Type::Boolean, below), expr(random, Type::Boolean, below)).unwrap(),
        6 => {
            let of = any(random);
            Expr::is_null(expr(random, of, below)).unwrap()
        }
        7 => {
            let of = any(random);
            let list = (0..1 + random.below(5)).map(|_| value(random, of)).collect();
            Expr::in_list(expr(random, of, below), list).unwrap()
        }
        8 => {
            let of = any(random);
            Expr::between(expr(random, of, below), expr(random, of, 0), expr(random, of, 0)).unwrap()
        }
        _ => {
            let of = any(random);
            Expr::compare(Comparison::ALL[random.below(8)], expr(random, of, below), expr(random, of, below)).unwrap()
        }
    }
}

/// A program with so many projections, which share some of their parts, and sometimes a filter.
pub fn program(random: &mut Random, projections: usize) -> Program {
    let filter = random.once_in(2).then(|| expr(random, Type::Boolean, 3));
    let mut all = Vec::new();
    for _ in 0..projections {
        let of = Type::ALL[random.below(4)];
        let levels = 1 + random.below(4);
        all.push(match all.last().filter(|_| random.once_in(3)) {
            Some(last) => Expr::case(vec![(expr(random, Type::Boolean, 2), Expr::clone(last))], Some(expr(random, last.data_type(), levels))).unwrap(),
            None => expr(random, of, levels),
        });
    }
    Program::new(filter, all).unwrap()
}

/// Values of all columns, as they are kept.
pub struct Data {
    pub rows: usize,
    arrays: Vec<(Array, Option<Vec<u8>>)>,
}

enum Array {
    Boolean(Vec<u8>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
}

impl Array {
    fn values(&self) -> Values<'_> {
        match self {
            Array::Boolean(bits) => Values::Boolean(bits),
            Array::Int32(values) => Values::Int32(values),
            Array::Int64(values) => Values::Int64(values),
            Array::Float64(values) => Values::Float64(values),
        }
    }
}

impl Data {
    pub fn random(random: &mut Random, rows: usize) -> Self {
        let arrays = COLUMNS.map(|of| {
            // What lies under a NULL is anything.
            let values: Vec<Value> = (0..rows).map(|_| value(random, of)).collect();
            let array = match of {
                Type::Boolean => Array::Boolean((0..rows.div_ceil(8)).map(|_| random.next() as u8).collect()),
                Type::Int32 => Array::Int32(values.iter().map(|value| if let Value::Int32(value) = value { *value } else { i32::MIN }).collect()),
                Type::Int64 => Array::Int64(values.iter().map(|value| if let Value::Int64(value) = value { *value } else { -1 }).collect()),
                Type::Float64 => Array::Float64(values.iter().map(|value| if let Value::Float64(value) = value { *value } else { f64::NAN }).collect()),
            };
            (array, (!random.once_in(3)).then(|| random.bitmap(rows)))
        });
        Self { rows, arrays: arrays.into() }
    }

    /// The rows of which `keep` says so.
    pub fn filtered(&self, keep: &[bool]) -> Self {
        let kept = || (0..self.rows).filter(|&row| keep[row]);
        let bits = |bits: &[u8]| {
            let mut result = vec![0; kept().count().div_ceil(8)];
            kept().enumerate().for_each(|(to, row)| result[to / 8] |= (bits[row / 8] >> (row % 8) & 1) << (to % 8));
            result
        };
        let arrays = self.arrays.iter().map(|(array, valid)| {
            let array = match array {
                Array::Boolean(values) => Array::Boolean(bits(values)),
                Array::Int32(values) => Array::Int32(kept().map(|row| values[row]).collect()),
                Array::Int64(values) => Array::Int64(kept().map(|row| values[row]).collect()),
                Array::Float64(values) => Array::Float64(kept().map(|row| values[row]).collect()),
            };
            (array, valid.as_deref().map(bits))
        });
        Self { rows: kept().count(), arrays: arrays.collect() }
    }

    pub fn columns(&self) -> Vec<Column<'_>> {
        self.arrays.iter().map(|(array, valid)| Column { values: array.values(), valid: valid.as_deref() }).collect()
    }

    /// So many rows from one on, or as many as are left.
    pub fn slice(&self, start: usize, rows: usize) -> Self {
        let keep: Vec<bool> = (0..self.rows).map(|row| row >= start && row < start + rows).collect();
        self.filtered(&keep)
    }

    pub fn with<T>(&self, f: impl FnOnce(&Batch<'_>) -> T) -> T {
        f(&Batch { rows: self.rows, columns: &self.columns() })
    }
}
