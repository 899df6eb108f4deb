//! Random queries over the relations of a [`World`](super::relations): each is a nest of one operator in another, up to a depth.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// A column's type, as far as a query has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Int,
    Float,
    Text,
}

/// A relation that queries read.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: String,
    pub columns: Vec<(String, Type)>,
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
}

impl Kind {
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
}

/// A query whose columns are `c0`, `c1`, ….
#[derive(Debug, Clone)]
pub struct Query {
    pub sql: String,
    pub types: Vec<Type>,
    pub kinds: Vec<Kind>,
}

impl Query {
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

/// Makes queries.
pub struct Grammar<'a> {
    pub rng: &'a mut ChaCha8Rng,
    pub relations: &'a [Relation],
}

impl Grammar<'_> {
    /// A query of this kind over others that are up to `depth` deep.
    pub fn query(&mut self, kind: Kind, depth: usize) -> Query {
        let input = self.input(depth);
        self.apply(kind, input, depth)
    }

    fn input(&mut self, depth: usize) -> Query {
        if depth == 0 || self.rng.random_bool(0.3) {
            return self.base();
        }
        let kind = *Kind::ALL.choose(self.rng).unwrap();
        let input = self.input(depth - 1);
        self.apply(kind, input, depth - 1)
    }

    fn base(&mut self) -> Query {
        let relation = self.relations.choose(self.rng).unwrap().clone();
        let columns = relation.columns.iter().enumerate().map(|(at, (name, _))| format!("{name} AS c{at}")).collect::<Vec<_>>().join(", ");
        let query = Query { sql: format!("SELECT {columns} FROM {}", relation.name), types: relation.columns.iter().map(|(_, t)| *t).collect(), kinds: vec![] };
        if self.rng.random_bool(0.3) {
            let condition = self.condition(&query, "");
            return Query { sql: format!("SELECT {} FROM ({}) WHERE {condition}", query.all(), query.sql), ..query };
        }
        query
    }

    fn column(&mut self, query: &Query) -> usize {
        self.rng.random_range(0..query.types.len())
    }

    fn literal(&mut self, of: Type) -> String {
        match of {
            Type::Int => self.rng.random_range(-2..9i64).to_string(),
            Type::Float => format!("{:.2}", self.rng.random_range(-4..20i64) as f64 / 4.0),
            Type::Text => format!("'{}'", ["a", "b", "c", "d"].choose(self.rng).unwrap()),
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
            5 if of != Type::Text => (format!("avg(c{at})"), Type::Float),
            6 => (format!("first_value(c{at} ORDER BY {})", query.all()), of),
            7 if of == Type::Text => (format!("string_agg(c{at}, '-' ORDER BY {})", query.all()), of),
            _ if of != Type::Text => (format!("sum(c{at})"), of),
            _ => ("count(*)".to_string(), Type::Int),
        };
        (format!("{call}{filter}"), result)
    }

    fn apply(&mut self, kind: Kind, input: Query, depth: usize) -> Query {
        let mut kinds = input.kinds.clone();
        kinds.push(kind);
        let (sql, types) = match kind {
            Kind::Aggregate => {
                let keys = self.some(&input, 2);
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
                (format!("SELECT {columns} FROM ({}) AS i{group}{having}", input.sql), parts.into_iter().map(|(_, t)| t).collect())
            }
            Kind::GroupingSets => {
                let one = self.column(&input);
                let other = (one + 1) % input.types.len();
                let sets = match self.rng.random_range(0..3) {
                    _ if one == other => format!("GROUPING SETS ((i.c{one}), ())"),
                    0 => format!("ROLLUP (i.c{one}, i.c{other})"),
                    1 => format!("CUBE (i.c{one}, i.c{other})"),
                    _ => format!("GROUPING SETS ((i.c{one}, i.c{other}), (i.c{other}), (i.c{one}))"),
                };
                let (call, of) = self.aggregate_call(&input);
                (
                    format!(
                        "SELECT i.c{one} AS c0, i.c{other} AS c1, {call} AS c2, CAST(grouping(i.c{one}) AS BIGINT) AS c3 FROM ({}) AS i GROUP BY {sets}",
                        input.sql
                    ),
                    vec![input.types[one], input.types[other], of, Type::Int],
                )
            }
            Kind::Distinct => {
                let mut columns = self.some(&input, 3);
                if columns.is_empty() {
                    columns.push(0);
                }
                let list = columns.iter().enumerate().map(|(at, column)| format!("c{column} AS d{at}")).collect::<Vec<_>>().join(", ");
                let out = (0..columns.len()).map(|at| format!("d{at} AS c{at}")).collect::<Vec<_>>().join(", ");
                (format!("SELECT {out} FROM (SELECT DISTINCT {list} FROM ({}))", input.sql), columns.iter().map(|at| input.types[*at]).collect())
            }
            Kind::DistinctOn => {
                let at = self.column(&input);
                let rest: Vec<String> = (0..input.types.len()).filter(|other| *other != at).map(|other| format!(", c{other}")).collect();
                (
                    format!("SELECT * FROM (SELECT DISTINCT ON (c{at}) {} FROM ({}) ORDER BY c{at}{})", input.all(), input.sql, rest.concat()),
                    input.types.clone(),
                )
            }
            Kind::Over => {
                let at = self.column(&input);
                let partition = if self.rng.random_bool(0.8) { format!("PARTITION BY c{}", self.column(&input)) } else { String::new() };
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
                let call = if self.rng.random_bool(0.7) {
                    format!("row_number() OVER (PARTITION BY c{by} ORDER BY c{at} {order}, {all})")
                } else {
                    format!("rank() OVER (PARTITION BY c{by} ORDER BY c{at} {order})")
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
                let other = self.input(depth.saturating_sub(1));
                kinds.extend(&other.kinds);
                let shape: Vec<Type> = [Type::Int, Type::Text].into_iter().filter(|t| !input.of(*t).is_empty() && !other.of(*t).is_empty()).collect();
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
                    format!("SELECT {} FROM ({})", list.collect::<Vec<_>>().join(", "), side.sql)
                });
                let out = (0..shape.len()).map(|at| format!("d{at} AS c{at}")).collect::<Vec<_>>().join(", ");
                (format!("SELECT {out} FROM ({one} {word} {two})"), shape)
            }
            Kind::Join => {
                let other = self.input(depth.saturating_sub(1));
                kinds.extend(&other.kinds);
                let pairs: Vec<(usize, usize)> = (0..input.types.len())
                    .flat_map(|l| (0..other.types.len()).map(move |r| (l, r)))
                    .filter(|(l, r)| input.types[*l] == other.types[*r])
                    .collect();
                let join = *["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"].choose(self.rng).unwrap();
                let on = match pairs.choose(self.rng) {
                    Some((l, r)) => format!("l.c{l} = r.c{r}"),
                    None => "l.c0 IS NOT NULL AND r.c0 IS NOT NULL".to_string(),
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
                let other = self.input(depth.saturating_sub(1));
                kinds.extend(&other.kinds);
                let pairs: Vec<(usize, usize)> = (0..input.types.len())
                    .flat_map(|l| (0..other.types.len()).map(move |r| (l, r)))
                    .filter(|(l, r)| input.types[*l] == other.types[*r])
                    .collect();
                let condition = match (pairs.choose(self.rng), self.rng.random_range(0..4)) {
                    (Some((l, r)), 0) => format!("l.c{l} IN (SELECT c{r} FROM ({}))", other.sql),
                    (Some((l, r)), 1) => format!("NOT EXISTS (SELECT 1 FROM ({}) AS r WHERE r.c{r} = l.c{l})", other.sql),
                    (Some((l, r)), 2) => format!("EXISTS (SELECT 1 FROM ({}) AS r WHERE r.c{r} = l.c{l})", other.sql),
                    (Some((l, r)), _) => format!("l.c{l} <= (SELECT max(c{r}) FROM ({}))", other.sql),
                    (None, _) => format!("l.c0 IS NOT NULL AND (SELECT count(*) FROM ({})) > 2", other.sql),
                };
                (format!("SELECT {} FROM ({}) AS l WHERE {condition}", input.list("l."), input.sql), input.types.clone())
            }
        };
        Query { sql, types, kinds }
    }
}

fn sql_type(of: Type) -> &'static str {
    match of {
        Type::Int => "BIGINT",
        Type::Float => "DOUBLE",
        Type::Text => "TEXT",
    }
}
