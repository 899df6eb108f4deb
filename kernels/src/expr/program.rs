//! One filter and any number of projections, which one kernel computes.

use std::collections::HashMap;

use super::{
    generate,
    tree::{Expr, Kind, Misfit},
    value::Type,
};

/// A kernel takes two addresses for each column that it reads or writes, and 4 KiB of arguments.
const MOST_COLUMNS: usize = 200;

/// What one kernel computes: which rows pass a filter, and values of expressions for the rows that pass.
#[derive(Debug, Clone)]
pub struct Program {
    filter: Option<Expr>,
    projections: Vec<Expr>,
    /// The columns that are read, in the order in which the kernel takes them: number in the batch and type.
    columns: Vec<(usize, Type)>,
    /// How many of them the filter reads; those are the first.
    filtered_by: usize,
    text: String,
}

impl Program {
    /// Puts a filter and projections together. Without a filter all rows pass.
    pub fn new(filter: Option<Expr>, projections: Vec<Expr>) -> Result<Self, Misfit> {
        if let Some(filter) = filter.as_ref().filter(|filter| filter.data_type() != Type::Boolean) {
            return Err(Misfit(format!("a filter is a Boolean, and here is {}", filter.data_type())));
        }
        if filter.is_none() && projections.is_empty() {
            return Err(Misfit("there is neither a filter nor a projection".into()));
        }
        let (mut columns, mut seen) = (Vec::new(), HashMap::new());
        filter.iter().try_for_each(|filter| find_columns(filter, &mut columns, &mut seen))?;
        let filtered_by = columns.len();
        projections.iter().try_for_each(|projection| find_columns(projection, &mut columns, &mut seen))?;
        if columns.len() + projections.len() > MOST_COLUMNS {
            let (read, written) = (columns.len(), projections.len());
            return Err(Misfit(format!("a kernel reads and writes {MOST_COLUMNS} columns at most, and here are {read} and {written}")));
        }
        let mut program = Self { filter, projections, columns, filtered_by, text: String::new() };
        program.text = generate::text(&program);
        Ok(program)
    }

    /// The filter.
    pub fn filter(&self) -> Option<&Expr> {
        self.filter.as_ref()
    }

    /// The projections.
    pub fn projections(&self) -> &[Expr] {
        &self.projections
    }

    /// The columns that are read: number in the batch and type.
    pub fn columns(&self) -> &[(usize, Type)] {
        &self.columns
    }

    /// How many of them the filter reads; those are the first.
    pub(super) fn filtered_by(&self) -> usize {
        self.filtered_by
    }

    /// The kernel's text. It is the same for programs that are built alike but for the numbers of the columns.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn find_columns(expr: &Expr, columns: &mut Vec<(usize, Type)>, seen: &mut HashMap<usize, Type>) -> Result<(), Misfit> {
    if let Kind::Column(number) = expr.kind() {
        let of = expr.data_type();
        match seen.insert(*number, of) {
            None => columns.push((*number, of)),
            Some(other) if other != of => return Err(Misfit(format!("column {number} is {other} in one place and {of} in another"))),
            Some(_) => {}
        }
    }
    let mut result = Ok(());
    expr.kind().children(&mut |child| {
        if result.is_ok() {
            result = find_columns(child, columns, seen);
        }
    });
    result
}
