//! The language: a typed tree that can't be built wrong.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::value::{Type, Value};
pub use crate::json::Unit;

/// A tree of more levels is refused: it would be nested as deeply in the kernel's text, and in the walks over it.
const MOST_LEVELS: u32 = 100;
/// A tree of more nodes is refused: a compiler takes its time with each.
const MOST_NODES: u32 = 5_000;

/// Why expressions don't go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(pub(super) String);

/// How two values are compared. Floats are ordered as by IEEE 754's totalOrder (-NaN, -infinity, …, infinity, NaN; NaNs of the same bits
/// are equal), but for zeros, which are equal whatever their signs. False comes before true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `IS DISTINCT FROM`: never NULL; two NULLs are the same.
    Distinct,
    /// `IS NOT DISTINCT FROM`: never NULL; two NULLs are the same.
    NotDistinct,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Comparison; 8] = {
        use Comparison::{Distinct, Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotDistinct, NotEqual};
        [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, Distinct, NotDistinct]
    };
}

/// What is computed of two numbers of one type. A NULL on either side gives NULL, and no fault.
///
/// Floats follow IEEE 754, `%` keeps the sign of its left side (C's `fmod`), and nothing of them is out of range. Where exactly one side is
/// NaN, the result is that NaN, made quiet. Where a NaN arises of numbers, or two different ones meet, IEEE 754 leaves the bits to the
/// processor, and they show in comparisons: [`super::Faults::NAN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// `+`; of integers modulo 2^32 or 2^64, as DataFusion's `+` on integers by default.
    AddWrapping,
    /// `-` like [`Self::AddWrapping`].
    SubtractWrapping,
    /// `*` like [`Self::AddWrapping`].
    MultiplyWrapping,
    /// `+`; an integer that is out of range is a fault, as with DataFusion's timestamps and durations.
    Add,
    /// `-` like [`Self::Add`].
    Subtract,
    /// `*` like [`Self::Add`].
    Multiply,
    /// `/`; of integers toward zero. An integer divided by zero is a fault, and so is the least integer divided by -1.
    Divide,
    /// `%`, with the left side's sign. An integer divided by zero is a fault; the least integer `% -1` is 0.
    Remainder,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Arithmetic; 8] = {
        use Arithmetic::{Add, AddWrapping, Divide, Multiply, MultiplyWrapping, Remainder, Subtract, SubtractWrapping};
        [AddWrapping, SubtractWrapping, MultiplyWrapping, Add, Subtract, Multiply, Divide, Remainder]
    };
}

/// What a cast does with a number that the other type doesn't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutOfRange {
    /// `CAST`: a fault.
    Fails,
    /// `TRY_CAST`: NULL.
    IsNull,
}

/// An expression. Copies are cheap, and two are equal if they are built alike.
#[derive(Clone)]
pub struct Expr(Arc<Node>);

struct Node {
    kind: Kind,
    data_type: Type,
    levels: u32,
    /// Of the tree, what is shared counted each time.
    nodes: u32,
    /// Of the kind, so that a lookup doesn't walk the tree.
    hash: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Column(usize),
    Literal(Value),
    Compare(Comparison, Expr, Expr),
    And(Expr, Expr),
    Or(Expr, Expr),
    Not(Expr),
    IsNull(Expr),
    Arithmetic(Arithmetic, Expr, Expr),
    Negate(Expr),
    Cast(Expr, OutOfRange),
    Case(Vec<(Expr, Expr)>, Option<Expr>),
    InList(Expr, Vec<Value>),
    DateBin { of: Expr, stride: i64, origin: i64, unit: Unit },
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.hash == other.0.hash && self.0.data_type == other.0.data_type && self.0.kind == other.0.kind)
    }
}

impl Eq for Expr {}

impl Hash for Expr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

impl Expr {
    fn new(kind: Kind, data_type: Type) -> Result<Self, Misfit> {
        let (mut levels, mut nodes) = (0, 1u32);
        kind.children(&mut |child| {
            levels = levels.max(child.0.levels);
            nodes = nodes.saturating_add(child.0.nodes);
        });
        if let Kind::InList(_, list) = &kind {
            nodes = nodes.saturating_add(u32::try_from(list.len()).unwrap_or(u32::MAX));
        }
        levels += 1;
        if levels > MOST_LEVELS || nodes > MOST_NODES {
            return Err(Misfit(format!(
                "the expression is too large for a kernel: it has {levels} levels and {nodes} parts; {MOST_LEVELS} and {MOST_NODES} are the most"
            )));
        }
        Ok(Self::leaf(kind, data_type, levels, nodes))
    }

    fn leaf(kind: Kind, data_type: Type, levels: u32, nodes: u32) -> Self {
        // The same in every process, though nothing outside this one sees it.
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        Self(Arc::new(Node { hash: hasher.finish(), kind, data_type, levels, nodes }))
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// The type of what it gives.
    pub fn data_type(&self) -> Type {
        self.0.data_type
    }

    /// A column of the batch, by its number from 0.
    pub fn column(number: usize, data_type: Type) -> Self {
        Self::leaf(Kind::Column(number), data_type, 1, 1)
    }

    /// A literal.
    pub fn literal(value: Value) -> Self {
        Self::leaf(Kind::Literal(value), value.data_type(), 1, 1)
    }

    /// Compares two values of one type. NULL if either is, but for [`Comparison::Distinct`] and its contrary.
    pub fn compare(comparison: Comparison, left: Expr, right: Expr) -> Result<Self, Misfit> {
        same_type("a comparison", &left, &right)?;
        Self::new(Kind::Compare(comparison, left, right), Type::Boolean)
    }

    /// `left AND right`: false if either is false, else NULL if either is NULL.
    pub fn and(left: Expr, right: Expr) -> Result<Self, Misfit> {
        [&left, &right].into_iter().try_for_each(|side| boolean("AND", side))?;
        Self::new(Kind::And(left, right), Type::Boolean)
    }

    /// `left OR right`: true if either is true, else NULL if either is NULL.
    pub fn or(left: Expr, right: Expr) -> Result<Self, Misfit> {
        [&left, &right].into_iter().try_for_each(|side| boolean("OR", side))?;
        Self::new(Kind::Or(left, right), Type::Boolean)
    }

    /// `NOT of`: NULL stays NULL.
    #[allow(clippy::should_implement_trait)]
    pub fn not(of: Expr) -> Result<Self, Misfit> {
        boolean("NOT", &of)?;
        Self::new(Kind::Not(of), Type::Boolean)
    }

    /// `of IS NULL`.
    pub fn is_null(of: Expr) -> Result<Self, Misfit> {
        Self::new(Kind::IsNull(of), Type::Boolean)
    }

    /// `of IS NOT NULL`.
    pub fn is_not_null(of: Expr) -> Result<Self, Misfit> {
        Self::not(Self::is_null(of)?)
    }

    /// Computes with two numbers of one type.
    pub fn arithmetic(arithmetic: Arithmetic, left: Expr, right: Expr) -> Result<Self, Misfit> {
        same_type("arithmetic", &left, &right)?;
        number("arithmetic", &left)?;
        let data_type = left.data_type();
        Self::new(Kind::Arithmetic(arithmetic, left, right), data_type)
    }

    /// `-of`: of integers modulo 2^32 or 2^64 (the least one is its own negative), of floats the sign alone is changed, also that of a NaN.
    pub fn negate(of: Expr) -> Result<Self, Misfit> {
        number("-", &of)?;
        let data_type = of.data_type();
        Self::new(Kind::Negate(of), data_type)
    }

    /// A value as another type. An integer becomes the nearest float (the even one of two), a float is cut toward zero; a number is true
    /// unless it is zero (so NaN is true), and true is 1. A value of the type already stays as it is.
    pub fn cast(of: Expr, to: Type, out_of_range: OutOfRange) -> Result<Self, Misfit> {
        if of.data_type() == to {
            return Ok(of);
        }
        Self::new(Kind::Cast(of, out_of_range), to)
    }

    /// `CASE WHEN … THEN … [WHEN …] [ELSE …] END`: the value beside the first condition that is true; without an ELSE, NULL. What isn't
    /// asked for is not computed, and is no fault.
    pub fn case(whens: Vec<(Expr, Expr)>, otherwise: Option<Expr>) -> Result<Self, Misfit> {
        let Some((_, first)) = whens.first() else {
            return Err(Misfit("CASE needs a WHEN".into()));
        };
        let data_type = first.data_type();
        for (when, then) in &whens {
            boolean("WHEN", when)?;
            same_type("CASE", first, then)?;
        }
        otherwise.iter().try_for_each(|otherwise| same_type("CASE", first, otherwise))?;
        Self::new(Kind::Case(whens, otherwise), data_type)
    }

    /// The first value that isn't NULL; like a CASE, it computes no further than it must.
    pub fn coalesce(values: Vec<Expr>) -> Result<Self, Misfit> {
        let mut values = values;
        let Some(last) = values.pop() else {
            return Err(Misfit("COALESCE needs a value".into()));
        };
        if values.is_empty() {
            return Ok(last);
        }
        let whens = values.into_iter().map(|value| Ok((Self::is_not_null(value.clone())?, value))).collect::<Result<_, Misfit>>()?;
        Self::case(whens, Some(last))
    }

    /// `of IN (list)` over literals: true if one has the value's very bits (so 0.0 is not in a list of -0.0), else NULL if the value or
    /// one of the list is NULL. `NOT IN` is [`Self::not`] of it.
    pub fn in_list(of: Expr, list: Vec<Value>) -> Result<Self, Misfit> {
        if list.is_empty() {
            return Err(Misfit("IN needs a list of at least one value".into()));
        }
        if let Some(other) = list.iter().find(|value| value.data_type() != of.data_type()) {
            return Err(Misfit(format!("IN compares values of one type, and here are {} and {}", of.data_type(), other.data_type())));
        }
        Self::new(Kind::InList(of, list), Type::Boolean)
    }

    /// `of BETWEEN low AND high`: `of >= low AND of <= high`.
    pub fn between(of: Expr, low: Expr, high: Expr) -> Result<Self, Misfit> {
        let above = Self::compare(Comparison::GreaterOrEqual, of.clone(), low)?;
        Self::and(above, Self::compare(Comparison::LessOrEqual, of, high)?)
    }

    /// `date_bin` of a timestamp in a unit, with a stride and an origin in nanoseconds: the greatest `origin + k * stride` that is not
    /// after the timestamp, in the timestamp's unit, cut toward zero where the origin is no whole number of it. It is computed in
    /// nanoseconds; a timestamp for which that doesn't fit in 64 bits gives NULL.
    pub fn date_bin(of: Expr, unit: Unit, stride: i64, origin: i64) -> Result<Self, Misfit> {
        if of.data_type() != Type::Int64 {
            return Err(Misfit(format!("date_bin takes a timestamp as Int64, and here is {}", of.data_type())));
        }
        if stride <= 0 {
            return Err(Misfit(format!("date_bin's stride must be more than nothing, and here it is {stride} ns")));
        }
        Self::new(Kind::DateBin { of, stride, origin, unit }, Type::Int64)
    }
}

impl Kind {
    pub(super) fn children<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr)) {
        match self {
            Kind::Column(_) | Kind::Literal(_) => {}
            Kind::Compare(_, left, right) | Kind::And(left, right) | Kind::Or(left, right) | Kind::Arithmetic(_, left, right) => {
                visit(left);
                visit(right);
            }
            Kind::Not(of) | Kind::IsNull(of) | Kind::Negate(of) | Kind::Cast(of, _) | Kind::InList(of, _) | Kind::DateBin { of, .. } => visit(of),
            Kind::Case(whens, otherwise) => {
                for (when, then) in whens {
                    visit(when);
                    visit(then);
                }
                otherwise.iter().for_each(visit);
            }
        }
    }
}

fn boolean(what: &str, side: &Expr) -> Result<(), Misfit> {
    if side.data_type() == Type::Boolean { Ok(()) } else { Err(Misfit(format!("{what} takes a Boolean, and here is {}", side.data_type()))) }
}

fn number(what: &str, side: &Expr) -> Result<(), Misfit> {
    if side.data_type().is_number() { Ok(()) } else { Err(Misfit(format!("{what} takes numbers, and here is {}", side.data_type()))) }
}

fn same_type(what: &str, left: &Expr, right: &Expr) -> Result<(), Misfit> {
    let (left, right) = (left.data_type(), right.data_type());
    if left == right { Ok(()) } else { Err(Misfit(format!("{what} takes values of one type, and here are {left} and {right}"))) }
}

impl Expr {
    /// As SQL would say it, with columns numbered by `number` from their numbers in the batch.
    pub(super) fn shown<'a>(&'a self, number: &'a dyn Fn(usize) -> usize) -> impl fmt::Display + 'a {
        Shown(self, number)
    }
}

struct Shown<'a>(&'a Expr, &'a dyn Fn(usize) -> usize);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(expr, number) = *self;
        let shown = |expr| Shown(expr, number);
        let binary = |f: &mut fmt::Formatter<'_>, left, operator: &dyn fmt::Display, right| write!(f, "({} {operator} {})", shown(left), shown(right));
        match expr.kind() {
            Kind::Column(column) => write!(f, "c{}", number(*column)),
            Kind::Literal(value) => write!(f, "{value}"),
            Kind::Compare(comparison, left, right) => binary(f, left, comparison, right),
            Kind::And(left, right) => binary(f, left, &"AND", right),
            Kind::Or(left, right) => binary(f, left, &"OR", right),
            Kind::Not(of) => write!(f, "(NOT {})", shown(of)),
            Kind::IsNull(of) => write!(f, "({} IS NULL)", shown(of)),
            Kind::Arithmetic(arithmetic, left, right) => binary(f, left, arithmetic, right),
            Kind::Negate(of) => write!(f, "(- {})", shown(of)),
            Kind::Cast(of, OutOfRange::Fails) => write!(f, "CAST({} AS {})", shown(of), expr.data_type()),
            Kind::Cast(of, OutOfRange::IsNull) => write!(f, "TRY_CAST({} AS {})", shown(of), expr.data_type()),
            Kind::Case(whens, otherwise) => {
                write!(f, "CASE")?;
                whens.iter().try_for_each(|(when, then)| write!(f, " WHEN {} THEN {}", shown(when), shown(then)))?;
                otherwise.iter().try_for_each(|otherwise| write!(f, " ELSE {}", shown(otherwise)))?;
                write!(f, " END")
            }
            Kind::InList(of, list) => {
                write!(f, "({} IN (", shown(of))?;
                list.iter().enumerate().try_for_each(|(at, value)| write!(f, "{}{value}", if at > 0 { ", " } else { "" }))?;
                write!(f, "))")
            }
            Kind::DateBin { of, stride, origin, unit } => write!(f, "date_bin({stride} ns, {} as {unit:?}, {origin} ns)", shown(of)),
        }
    }
}

/// As SQL would say it, but that columns are numbers.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown(&|number| number).fmt(f)
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "<>",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Distinct => "IS DISTINCT FROM",
            Comparison::NotDistinct => "IS NOT DISTINCT FROM",
        })
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arithmetic::AddWrapping => "+",
            Arithmetic::SubtractWrapping => "-",
            Arithmetic::MultiplyWrapping => "*",
            // The checked ones are told apart where it shows: in generated texts.
            Arithmetic::Add => "+!",
            Arithmetic::Subtract => "-!",
            Arithmetic::Multiply => "*!",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        })
    }
}
