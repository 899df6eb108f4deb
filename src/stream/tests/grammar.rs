//! Random queries over the relations of a [`World`](super::relations): each is a nest of one operator in another, up to a depth.
//!
//! Where windows close, a query says which rows of its batch answer are to be seen: see [`Query::batch`].

use std::collections::BTreeSet;

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// A column's type, as far as a query has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Int,
    Float,
    Text,
    /// An instant.
    Time,
    /// The end of a window.
    End,
}

impl Type {
    fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Float)
    }
}

/// A relation that queries read.
#[derive(Debug, Clone)]
pub struct Relation {
    /// What stands in FROM.
    pub name: String,
    pub columns: Vec<(String, Type)>,
    /// The windows that it is of, if it is.
    pub windows: Option<Kind>,
    /// The source whose rows it has, if it is no view's.
    pub source: Option<&'static str>,
    /// All sources that are below it.
    pub below: BTreeSet<&'static str>,
    /// Seconds for which rows of its windows may change after the watermark has passed their end.
    pub lag: i64,
}

/// What a query consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Aggregate,
    GroupingSets,
    Distinct,
    DistinctOn,
    Over,
    TopN,
    Limit,
    Union,
    SetOperation,
    Join,
    Subquery,
    // What is read.
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    /// What is made of others.
    pub const ALL: [Kind; 11] = [
        Kind::Aggregate,
        Kind::GroupingSets,
        Kind::Distinct,
        Kind::DistinctOn,
        Kind::Over,
        Kind::TopN,
        Kind::Limit,
        Kind::Union,
        Kind::SetOperation,
        Kind::Join,
        Kind::Subquery,
    ];

    /// What is made of two others.
    pub fn reads_two(self) -> bool {
        matches!(self, Kind::Union | Kind::SetOperation | Kind::Join | Kind::Subquery)
    }

    /// What has windows.
    pub const WINDOWS: [Kind; 4] = [Kind::Tumble, Kind::Hop, Kind::Cumulate, Kind::Session];
}

/// A query whose columns are `c0`, `c1`, ….
#[derive(Debug, Clone)]
pub struct Query {
    pub sql: String,
    pub types: Vec<Type>,
    pub kinds: Vec<Kind>,
    /// The sources that it reads itself.
    pub reads: BTreeSet<&'static str>,
    /// The sources below, its own and those of views.
    pub below: BTreeSet<&'static str>,
    /// Seconds for which rows of windows below change after the watermark has passed their end.
    pub lag: i64,
}

/// Begins and ends what stands in a query of where windows close.
const MARK: [char; 2] = ['⟦', '⟧'];

impl Query {
    /// A query of all rows, as the view's is.
    pub fn unmarked(text: &str) -> String {
        marked(text, |_, _, _| String::new())
    }

    /// The query whose answer over the rows that are not late is what the view has to hold. Where a view gives windows when they close,
    /// `passed` tells from sources and seconds the end of the last window that is to be seen, as SQL.
    pub fn batch(text: &str, passed: impl Fn(&[&str], i64) -> String) -> String {
        marked(text, |column, sources, lag| format!(" WHERE {column} <= {}", passed(sources, lag)))
    }

    /// Of the rows of this query those of windows that have closed are seen at first.
    fn closing(sql: String, column: usize, below: &BTreeSet<&'static str>, lag: i64) -> String {
        let sources = below.iter().copied().collect::<Vec<_>>().join("+");
        format!("SELECT * FROM ({sql}){}", closing(&format!("c{column}"), &sources, lag))
    }

    fn of(&self, wanted: Type) -> Vec<usize> {
        (0..self.types.len()).filter(|at| self.types[*at] == wanted).collect()
    }

    fn all(&self) -> String {
        self.list("")
    }

    fn list(&self, prefix: &str) -> String {
        (0..self.types.len()).map(|at| format!("{prefix}c{at}")).collect::<Vec<_>>().join(", ")
    }
}

/// Stands behind rows of windows that are seen when these sources close them.
pub fn closing(column: &str, sources: &str, lag: i64) -> String {
    format!("{}{column}:{sources}:{lag}{}", MARK[0], MARK[1])
}

/// A query with something in the place of its marks.
fn marked(text: &str, write: impl Fn(&str, &[&str], i64) -> String) -> String {
    let mut parts = text.split(MARK);
    let mut whole = parts.next().unwrap_or_default().to_string();
    while let (Some(mark), Some(rest)) = (parts.next(), parts.next()) {
        let [column, sources, lag] = mark.split(':').collect::<Vec<_>>()[..] else { panic!("no mark: {mark}") };
        whole.push_str(&write(column, &sources.split('+').collect::<Vec<_>>(), lag.parse().unwrap()));
        whole.push_str(rest);
    }
    whole
}

/// Makes queries.
pub struct Grammar<'a> {
    pub rng: &'a mut ChaCha8Rng,
    pub relations: &'a [Relation],
    /// How queries look at windows.
    pub style: Style,
    /// Views give windows when they close: most of what is read is aggregated by them first.
    pub closes: bool,
}

/// How queries look at windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As at any other columns, and sources may be read several times.
    Free,
    /// A source is read once in a query, so that a late row is missing everywhere.
    Once,
    /// Sources are read once, and operators look at one window.
    PerWindow,
}

impl Grammar<'_> {
    /// A query of this kind over others that are up to `depth` deep.
    pub fn query(&mut self, kind: Kind, depth: usize) -> Query {
        let input = self.input(depth, &BTreeSet::new()).expect("there are relations");
        self.apply(kind, input, depth)
    }

    /// `None`: all relations have been read.
    fn input(&mut self, depth: usize, read: &BTreeSet<&'static str>) -> Option<Query> {
        if depth == 0 || self.rng.random_bool(0.3) {
            return self.base(read);
        }
        let kind = *Kind::ALL.choose(self.rng).unwrap();
        let input = self.input(depth - 1, read)?;
        // The first rows of all are those of no window.
        let kind = if self.closes && kind == Kind::Limit { Kind::TopN } else { kind };
        // What it reads beside its input has to leave something to others.
        let kind = if self.style != Style::Free && kind.reads_two() { Kind::Aggregate } else { kind };
        Some(self.apply(kind, input, depth - 1))
    }

    /// What is read beside another query.
    fn other(&mut self, input: &Query, depth: usize) -> Option<Query> {
        let read = if self.style == Style::Free { BTreeSet::new() } else { input.reads.clone() };
        self.input(depth.saturating_sub(1), &read)
    }

    fn base(&mut self, read: &BTreeSet<&'static str>) -> Option<Query> {
        let free: Vec<&Relation> = self.relations.iter().filter(|relation| relation.source.is_none_or(|source| !read.contains(source))).collect();
        let relation = (*free.choose(self.rng)?).clone();
        let columns = relation.columns.iter().enumerate().map(|(at, (name, _))| format!("{name} AS c{at}")).collect::<Vec<_>>().join(", ");
        let query = Query {
            sql: format!("SELECT {columns} FROM {}", relation.name),
            types: relation.columns.iter().map(|(_, t)| *t).collect(),
            kinds: relation.windows.into_iter().collect(),
            reads: relation.source.into_iter().collect(),
            below: relation.below,
            lag: relation.lag,
        };
        if self.closes && relation.windows.is_some_and(|of| of != Kind::Session) && self.rng.random_bool(0.85) {
            return Some(self.apply(Kind::Aggregate, query, 0));
        }
        if self.rng.random_bool(if relation.windows == Some(Kind::Session) { 0.1 } else { 0.3 }) {
            let condition = self.condition(&query, "");
            return Some(Query { sql: format!("SELECT {} FROM ({}) WHERE {condition}", query.all(), query.sql), ..query });
        }
        Some(query)
    }

    /// The end of a window, where operators have to look at one.
    fn end(&mut self, query: &Query) -> Option<usize> {
        (self.style == Style::PerWindow).then(|| query.of(Type::End).choose(self.rng).copied()).flatten()
    }

    /// Columns with the end of a window among them, where operators have to look at one.
    fn with_end(&mut self, query: &Query, mut columns: Vec<usize>) -> Vec<usize> {
        if let Some(end) = self.end(query)
            && !columns.iter().any(|column| query.types[*column] == Type::End)
        {
            columns.insert(0, end);
        }
        columns
    }

    fn column(&mut self, query: &Query) -> usize {
        self.rng.random_range(0..query.types.len())
    }

    fn literal(&mut self, of: Type) -> String {
        match of {
            Type::Int => self.rng.random_range(-2..9i64).to_string(),
            Type::Float => format!("{:.2}", self.rng.random_range(-4..20i64) as f64 / 4.0),
            Type::Text => format!("'{}'", ["a", "b", "c", "d"].choose(self.rng).unwrap()),
            Type::Time | Type::End => format!("TIMESTAMP '2024-01-01T00:00:{:02}'", self.rng.random_range(0..60)),
        }
    }

    fn condition(&mut self, query: &Query, prefix: &str) -> String {
        let at = self.column(query);
        let column = format!("{prefix}c{at}");
        match self.rng.random_range(0..5) {
            0 => format!("{column} IS NOT NULL"),
            1 => format!("({column} IS NULL OR {column} <> {})", self.literal(query.types[at])),
            2 => format!("{column} >= {}", self.literal(query.types[at])),
            _ => format!("{column} <= {}", self.literal(query.types[at])),
        }
    }

    /// Some of the columns, each once.
    fn some(&mut self, query: &Query, most: usize) -> Vec<usize> {
        let mut columns: Vec<usize> = vec![];
        for _ in 0..self.rng.random_range(0..=most) {
            let at = self.column(query);
            if !columns.contains(&at) {
                columns.push(at);
            }
        }
        columns
    }

    fn aggregate_call(&mut self, query: &Query) -> (String, Type) {
        let at = self.column(query);
        let of = query.types[at];
        let filter = if self.rng.random_bool(0.25) { format!(" FILTER (WHERE {})", self.condition(query, "")) } else { String::new() };
        let (call, result) = match self.rng.random_range(0..9) {
            0 => ("count(*)".to_string(), Type::Int),
            1 => (format!("count(c{at})"), Type::Int),
            2 => (format!("min(c{at})"), of),
            3 => (format!("max(c{at})"), of),
            4 => (format!("count(DISTINCT c{at})"), Type::Int),
            5 if of.is_number() => (format!("avg(c{at})"), Type::Float),
            6 => (format!("first_value(c{at} ORDER BY {})", query.all()), of),
            7 if of == Type::Text => (format!("string_agg(c{at}, '-' ORDER BY {})", query.all()), of),
            _ if of.is_number() => (format!("sum(c{at})"), of),
            _ => ("count(*)".to_string(), Type::Int),
        };
        (format!("{call}{filter}"), result)
    }

    fn apply(&mut self, kind: Kind, input: Query, depth: usize) -> Query {
        let other = if kind.reads_two() { self.other(&input, depth) } else { None };
        // Where nothing is left to read, it is another query.
        let kind = if kind.reads_two() && other.is_none() { Kind::Aggregate } else { kind };
        // DataFusion takes grouping sets over sorted rows for sorted by their key, and an aggregate over them then has a group twice.
        let is_sorted = self.style != Style::Free && input.kinds.iter().any(|kind| matches!(kind, Kind::Over | Kind::TopN));
        let kind = if kind == Kind::GroupingSets && is_sorted { Kind::Aggregate } else { kind };
        let mut kinds = input.kinds.clone();
        kinds.push(kind);
        let (mut reads, mut below, mut lag) = (input.reads.clone(), input.below.clone(), input.lag);
        if let Some(other) = &other {
            kinds.extend(&other.kinds);
            reads.extend(&other.reads);
            below.extend(&other.below);
            lag = lag.max(other.lag);
        }
        let style = self.style;
        let closes = |sql: String, types: &[Type]| match types.iter().position(|of| *of == Type::End) {
            Some(end) if style == Style::PerWindow => Query::closing(sql, end, &below, lag),
            _ => sql,
        };
        let (sql, types) = match kind {
            Kind::Aggregate => {
                let keys = self.some(&input, 2);
                let keys = self.with_end(&input, keys);
                let mut parts: Vec<(String, Type)> = keys.iter().map(|at| (format!("c{at}"), input.types[*at])).collect();
                for _ in 0..self.rng.random_range(1..4) {
                    parts.push(self.aggregate_call(&input));
                }
                let columns = parts.iter().enumerate().map(|(at, (sql, _))| format!("{sql} AS c{at}")).collect::<Vec<_>>().join(", ");
                // Columns of the input go by a name of their own: an output column may shadow them.
                let group = if keys.is_empty() {
                    String::new()
                } else {
                    format!(" GROUP BY {}", keys.iter().map(|at| format!("i.c{at}")).collect::<Vec<_>>().join(", "))
                };
                let having = if self.rng.random_bool(0.2) { " HAVING count(*) > 1" } else { "" };
                let types: Vec<Type> = parts.into_iter().map(|(_, of)| of).collect();
                (closes(format!("SELECT {columns} FROM ({}) AS i{group}{having}", input.sql), &types), types)
            }
            Kind::GroupingSets => {
                let end = self.end(&input);
                let one = end.unwrap_or_else(|| self.column(&input));
                let other = (one + 1) % input.types.len();
                let sets = match self.rng.random_range(0..3) {
                    // A row that is late for one set is so for all.
                    _ if one == other && self.style != Style::Free => format!("GROUPING SETS ((i.c{one}))"),
                    _ if end.is_some() || self.style == Style::Once => format!("GROUPING SETS ((i.c{one}, i.c{other}), (i.c{one}))"),
                    _ if one == other => format!("GROUPING SETS ((i.c{one}), ())"),
                    0 => format!("ROLLUP (i.c{one}, i.c{other})"),
                    1 => format!("CUBE (i.c{one}, i.c{other})"),
                    _ => format!("GROUPING SETS ((i.c{one}, i.c{other}), (i.c{other}), (i.c{one}))"),
                };
                let (call, of) = self.aggregate_call(&input);
                // What is NULL in some rows is the end of no window.
                let second = if input.types[other] == Type::End { Type::Time } else { input.types[other] };
                let first = if input.types[one] == Type::End && end.is_none() { Type::Time } else { input.types[one] };
                let types = vec![first, second, of, Type::Int];
                let sql = format!(
                    "SELECT i.c{one} AS c0, i.c{other} AS c1, {call} AS c2, CAST(grouping(i.c{one}) AS BIGINT) AS c3 FROM ({}) AS i GROUP BY {sets}",
                    input.sql
                );
                (closes(sql, &types), types)
            }
            Kind::Distinct => {
                let mut columns = self.some(&input, 3);
                if columns.is_empty() {
                    columns.push(0);
                }
                let columns = self.with_end(&input, columns);
                let list = columns.iter().enumerate().map(|(at, column)| format!("c{column} AS d{at}")).collect::<Vec<_>>().join(", ");
                let out = (0..columns.len()).map(|at| format!("d{at} AS c{at}")).collect::<Vec<_>>().join(", ");
                let types: Vec<Type> = columns.iter().map(|at| input.types[*at]).collect();
                (closes(format!("SELECT {out} FROM (SELECT DISTINCT {list} FROM ({}))", input.sql), &types), types)
            }
            Kind::DistinctOn => {
                let at = self.column(&input);
                let keys = self.with_end(&input, vec![at]);
                let by = keys.iter().map(|key| format!("c{key}")).collect::<Vec<_>>().join(", ");
                let rest: Vec<String> = (0..input.types.len()).filter(|other| !keys.contains(other)).map(|other| format!(", c{other}")).collect();
                let sql = format!("SELECT * FROM (SELECT DISTINCT ON ({by}) {} FROM ({}) ORDER BY {by}{})", input.all(), input.sql, rest.concat());
                (closes(sql, &input.types), input.types.clone())
            }
            Kind::Over => {
                let at = self.column(&input);
                let keys = if self.rng.random_bool(0.8) { vec![self.column(&input)] } else { vec![] };
                let partition = partition(&self.with_end(&input, keys));
                let all = input.all();
                let rows = format!("ROWS BETWEEN {} PRECEDING AND {} FOLLOWING", self.rng.random_range(0..3), self.rng.random_range(0..2));
                let number = input.of(Type::Int);
                let (call, of) = match self.rng.random_range(0..8) {
                    0 => (format!("row_number() OVER ({partition} ORDER BY {all})"), Type::Int),
                    1 => (format!("rank() OVER ({partition} ORDER BY c{at})"), Type::Int),
                    2 => (format!("dense_rank() OVER ({partition} ORDER BY c{at} DESC)"), Type::Int),
                    3 => (format!("lag(c{at}) OVER ({partition} ORDER BY {all})"), input.types[at]),
                    4 => (format!("count(*) OVER ({partition} ORDER BY {all} {rows})"), Type::Int),
                    5 => (format!("max(c{at}) OVER ({partition})"), input.types[at]),
                    // DataFusion takes the count over a sliding frame for sorted, and then gives wrong answers over it.
                    6 if !number.is_empty() && !input.kinds.contains(&Kind::Over) => {
                        let by = number.choose(self.rng).unwrap();
                        (format!("count(c{at}) OVER ({partition} ORDER BY c{by} RANGE BETWEEN 2 PRECEDING AND CURRENT ROW)"), Type::Int)
                    }
                    _ => (format!("first_value(c{at}) OVER ({partition} ORDER BY {all})"), input.types[at]),
                };
                let width = input.types.len();
                let mut types = input.types.clone();
                types.push(of);
                (format!("SELECT {all}, CAST({call} AS {}) AS c{width} FROM ({})", sql_type(of), input.sql), types)
            }
            Kind::TopN => {
                let by = self.column(&input);
                let order = if self.rng.random_bool(0.5) { "DESC" } else { "ASC" };
                let at = self.column(&input);
                let most = self.rng.random_range(1..4);
                let all = input.all();
                let partition = partition(&self.with_end(&input, vec![by]));
                let call = if self.rng.random_bool(0.7) {
                    format!("row_number() OVER ({partition} ORDER BY c{at} {order}, {all})")
                } else {
                    format!("rank() OVER ({partition} ORDER BY c{at} {order})")
                };
                let op = ["<=", "=", "<"].choose(self.rng).unwrap();
                (format!("SELECT {all} FROM (SELECT {all}, {call} AS r FROM ({})) WHERE r {op} {most}", input.sql), input.types.clone())
            }
            Kind::Limit => {
                let at = self.column(&input);
                let offset = if self.rng.random_bool(0.3) { " OFFSET 1" } else { "" };
                let most = self.rng.random_range(1..6);
                (
                    format!("SELECT * FROM (SELECT {} FROM ({}) ORDER BY c{at} DESC NULLS LAST, {} LIMIT {most}{offset})", input.all(), input.sql, input.all()),
                    input.types.clone(),
                )
            }
            Kind::Union | Kind::SetOperation => {
                let other = other.expect("it was read");
                let shape: Vec<Type> =
                    [Type::Int, Type::Text, Type::End].into_iter().filter(|t| !input.of(*t).is_empty() && !other.of(*t).is_empty()).collect();
                let shape = if shape.is_empty() { vec![Type::Int] } else { shape };
                let word = match kind {
                    Kind::Union => *["UNION ALL", "UNION"].choose(self.rng).unwrap(),
                    _ => *["INTERSECT", "EXCEPT"].choose(self.rng).unwrap(),
                };
                let [one, two] = [&input, &other].map(|side| {
                    let list = shape.iter().enumerate().map(|(at, of)| match side.of(*of).choose(self.rng) {
                        Some(column) => format!("c{column} AS d{at}"),
                        None => format!("CAST(NULL AS {}) AS d{at}", sql_type(*of)),
                    });
                    let list = list.collect::<Vec<_>>().join(", ");
                    (format!("SELECT {list} FROM ({})", side.sql), &side.below)
                });
                // What the second one has is looked up for distinct rows of the first.
                let end = shape.iter().position(|of| *of == Type::End).filter(|_| style == Style::PerWindow && kind == Kind::SetOperation);
                let one = match end {
                    Some(end) => format!("SELECT * FROM ({}){}", one.0, closing(&format!("d{end}"), &one.1.iter().copied().collect::<Vec<_>>().join("+"), lag)),
                    None => one.0,
                };
                let two = two.0;
                let out = (0..shape.len()).map(|at| format!("d{at} AS c{at}")).collect::<Vec<_>>().join(", ");
                let sql = format!("SELECT {out} FROM ({one} {word} {two})");
                (if word == "UNION" { closes(sql, &shape) } else { sql }, shape)
            }
            Kind::Join => {
                let other = other.expect("it was read");
                let pairs: Vec<(usize, usize)> = (0..input.types.len())
                    .flat_map(|l| (0..other.types.len()).map(move |r| (l, r)))
                    .filter(|(l, r)| input.types[*l] == other.types[*r])
                    .collect();
                let ends = self.end(&input).zip(self.end(&other));
                let join = *["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"].choose(self.rng).unwrap();
                let on = match pairs.choose(self.rng) {
                    Some((l, r)) => format!("l.c{l} = r.c{r}"),
                    None => "l.c0 IS NOT NULL AND r.c0 IS NOT NULL".to_string(),
                };
                let on = match ends {
                    Some((l, r)) => format!("l.c{l} = r.c{r} AND {on}"),
                    None => on,
                };
                let residual = match pairs.choose(self.rng) {
                    Some((l, r)) if self.rng.random_bool(0.3) => format!(" AND l.c{l} <= r.c{r}"),
                    _ => String::new(),
                };
                let mut columns: Vec<String> = (0..input.types.len()).map(|at| format!("l.c{at} AS c{at}")).collect();
                columns.extend((0..other.types.len()).map(|at| format!("r.c{at} AS c{}", input.types.len() + at)));
                let types = input.types.iter().chain(&other.types).copied().collect();
                (format!("SELECT {} FROM ({}) AS l {join} ({}) AS r ON {on}{residual}", columns.join(", "), input.sql, other.sql), types)
            }
            Kind::Subquery => {
                let other = other.expect("it was read");
                let pairs: Vec<(usize, usize)> = (0..input.types.len())
                    .flat_map(|l| (0..other.types.len()).map(move |r| (l, r)))
                    .filter(|(l, r)| input.types[*l] == other.types[*r])
                    .collect();
                let ends = self.end(&input).zip(self.end(&other));
                let at_once = match ends {
                    Some((l, r)) => format!(" AND r.c{r} = l.c{l}"),
                    None => String::new(),
                };
                let choice = if ends.is_some() { self.rng.random_range(1..3) } else { self.rng.random_range(0..4) };
                let condition = match (pairs.choose(self.rng), choice) {
                    (Some((l, r)), 0) => format!("l.c{l} IN (SELECT c{r} FROM ({}))", other.sql),
                    (Some((l, r)), 1) => format!("NOT EXISTS (SELECT 1 FROM ({}) AS r WHERE r.c{r} = l.c{l}{at_once})", other.sql),
                    (Some((l, r)), 2) => format!("EXISTS (SELECT 1 FROM ({}) AS r WHERE r.c{r} = l.c{l}{at_once})", other.sql),
                    (Some((l, r)), _) => format!("l.c{l} <= (SELECT max(c{r}) FROM ({}))", other.sql),
                    (None, _) => format!("l.c0 IS NOT NULL AND (SELECT count(*) FROM ({})) > 2", other.sql),
                };
                (format!("SELECT {} FROM ({}) AS l WHERE {condition}", input.list("l."), input.sql), input.types.clone())
            }
            Kind::Tumble | Kind::Hop | Kind::Cumulate | Kind::Session => panic!("{kind:?} is read, and made of nothing"),
        };
        Query { sql, types, kinds, reads, below, lag }
    }
}

fn partition(columns: &[usize]) -> String {
    match columns {
        [] => String::new(),
        columns => format!("PARTITION BY {}", columns.iter().map(|column| format!("c{column}")).collect::<Vec<_>>().join(", ")),
    }
}

fn sql_type(of: Type) -> &'static str {
    match of {
        Type::Int => "BIGINT",
        Type::Float => "DOUBLE",
        Type::Text => "TEXT",
        Type::Time | Type::End => "TIMESTAMP",
    }
}
