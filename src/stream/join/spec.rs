//! What a streaming join computes, its expressions compiled.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
    record_batch::RecordBatch,
};
use datafusion::{
    catalog::Session,
    common::{DFSchema, JoinType, Result},
    logical_expr::{Expr, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{PhysicalExpr, expressions::CastExpr},
    physical_planner::PhysicalPlanner,
};

use super::{bound::Clock, node::StreamJoin};
use crate::stream::{
    hidden::{ROW, WEIGHT, is_hidden},
    time::Timeline,
};

/// Matches of a row that the other side holds no longer: a column of the log.
pub const KEPT: &str = "__kept";

/// A join.
#[derive(Debug)]
pub struct JoinSpec {
    /// Which join.
    pub kind: JoinType,
    /// NULL equals NULL.
    pub null_equals_null: bool,
    /// `NOT IN`: a NULL on the right takes every row away, and one on the left stays only while the right has no row at all.
    pub null_aware: bool,
    /// All rows that match each other come in one epoch: nothing is kept.
    pub complete: bool,
    /// Left and right.
    pub sides: [SideSpec; 2],
    /// What a pair with equal keys must satisfy, too.
    pub filter: Option<FilterSpec>,
    /// What the operator gives.
    pub output: SchemaRef,
    /// Whether its last column is the weight.
    pub changing: bool,
    /// Nanoseconds for which rows are taken after the watermark has passed them.
    pub lateness: i64,
}

/// One side of a join.
#[derive(Debug)]
pub struct SideSpec {
    /// Positions of its columns that are not hidden.
    pub visible: Vec<usize>,
    /// Those columns.
    pub rows: SchemaRef,
    /// What its log holds.
    pub stored: SchemaRef,
    /// Position of the weight, if its rows go again.
    pub weight: Option<usize>,
    /// Position of the locator, if its rows are a source's.
    pub locator: Option<usize>,
    /// What is equal on both sides.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Whether a row is shown depending on how many rows of the other side it matches.
    pub preserved: bool,
    /// Whether its rows' matches may be gone while they are there: then the log holds how many.
    pub remembers: bool,
    /// When its rows are done with.
    pub expiry: Option<Instant>,
    /// Whether a row for which that is NULL can match.
    pub null_matches: bool,
    /// What tells that its rows are late.
    pub clock: Option<SideClock>,
}

/// What tells that rows of a side are late.
#[derive(Debug)]
pub struct SideClock {
    /// The rows' time.
    pub time: Instant,
    /// What moves it along.
    pub timeline: Timeline,
    /// Nanoseconds that the rows may trail it.
    pub lag: i64,
    /// Length of the window that the time is the last instant of, else 0.
    pub size: i64,
}

/// A condition over columns of both sides.
#[derive(Debug)]
pub struct FilterSpec {
    /// The condition.
    pub expr: Arc<dyn PhysicalExpr>,
    /// The columns of each side that it reads, in the order of its input.
    pub columns: [Vec<usize>; 2],
    /// Its input.
    pub schema: SchemaRef,
}

/// Nanoseconds since 1970 worked out from a row.
#[derive(Debug)]
pub struct Instant {
    /// An instant that is worked out from the row.
    pub expr: Arc<dyn PhysicalExpr>,
    /// Nanoseconds to add to it.
    pub offset: i64,
}

impl Instant {
    /// The instants of rows; `None` where the time is NULL, and the end of time for one that the type can't hold.
    pub fn of(&self, rows: &RecordBatch) -> Result<Vec<Option<i64>>> {
        let at = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let zone = match at.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let instants = cast_with_options(&at, &DataType::Timestamp(TimeUnit::Nanosecond, zone), &options)?;
        let instants = instants.as_primitive::<TimestampNanosecondType>();
        let of_row = |row: usize| match (at.is_valid(row), instants.is_valid(row)) {
            (false, _) => None,
            (true, false) => Some(i64::MAX),
            (true, true) => Some(instants.value(row).saturating_add(self.offset)),
        };
        Ok((0..rows.num_rows()).map(of_row).collect())
    }
}

impl JoinSpec {
    /// Lowers the node's expressions.
    pub fn plan(
        planner: &dyn PhysicalPlanner,
        node: &StreamJoin,
        inputs: [SchemaRef; 2],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Self> {
        let visible = [visible(node.inputs[0].schema())?, visible(node.inputs[1].schema())?];
        let lower = |expr: &Expr, side: usize| planner.create_physical_expr(expr, &visible[side], session, context);
        let mut keys = [vec![], vec![]];
        for (left, right) in &node.on {
            let (left, mut right) = (lower(left, 0)?, lower(right, 1)?);
            let (to, from) = (left.data_type(visible[0].as_arrow())?, right.data_type(visible[1].as_arrow())?);
            if to != from {
                right = Arc::new(CastExpr::new(right, to, None));
            }
            keys[0].push(left);
            keys[1].push(right);
        }
        let mut sides = vec![];
        for (side, keys) in keys.into_iter().enumerate() {
            let input = &inputs[side];
            let expiry = node.bounds.expiry[side].as_ref();
            let instant = |at: &Expr, offset: i64| Ok::<_, datafusion::common::DataFusionError>(Instant { expr: lower(at, side)?, offset });
            let clock = |clock: &Clock| {
                Ok::<_, datafusion::common::DataFusionError>(SideClock {
                    time: instant(&clock.at, clock.shift)?,
                    timeline: clock.timeline.clone(),
                    lag: clock.lag,
                    size: clock.window.as_ref().map_or(0, |(_, size)| *size),
                })
            };
            let columns: Vec<usize> = (0..input.fields().len()).filter(|c| !is_hidden(input.field(*c).name())).collect();
            let rows: Vec<FieldRef> = columns.iter().map(|c| input.fields()[*c].clone()).collect();
            let preserved = node.preserves(side);
            let remembers = preserved && !node.complete && node.bounds.expiry[1 - side].is_some();
            let mut stored = rows.clone();
            // Rows without columns are hard to keep.
            if remembers || rows.is_empty() {
                stored.push(Arc::new(Field::new(KEPT, DataType::Int64, false)));
            }
            sides.push(SideSpec {
                visible: columns,
                rows: Arc::new(Schema::new(rows)),
                stored: Arc::new(Schema::new(stored)),
                weight: input.index_of(WEIGHT).ok(),
                locator: input.index_of(ROW).ok(),
                keys,
                preserved,
                remembers,
                expiry: expiry.map(|expiry| instant(&expiry.at, expiry.offset)).transpose()?,
                null_matches: expiry.is_some_and(|expiry| expiry.null_matches),
                clock: node.bounds.clock[side].as_ref().map(clock).transpose()?,
            });
        }
        let Ok(sides) = <[SideSpec; 2]>::try_from(sides) else { return datafusion::common::internal_err!("a join has two sides") };
        let filter = node.filter.as_ref().map(|filter| FilterSpec::plan(filter, &visible, planner, session, context)).transpose()?;
        let output = node.schema.inner().clone();
        Ok(Self {
            kind: node.kind,
            null_equals_null: node.null_equals_null,
            null_aware: node.null_aware,
            complete: node.complete,
            sides,
            filter,
            changing: output.column_with_name(WEIGHT).is_some(),
            output,
            lateness: node.lateness,
        })
    }

    /// Whether rows are shown of one side alone, by whether they match anything.
    pub fn asks_whether(&self) -> bool {
        use JoinType::{LeftAnti, LeftMark, LeftSemi, RightAnti, RightMark, RightSemi};
        matches!(self.kind, LeftSemi | LeftAnti | LeftMark | RightSemi | RightAnti | RightMark)
    }

    /// Whether a row that matches something will never be looked at again: what it has matched stays, and its other matches say nothing new.
    pub fn settles(&self, side: usize) -> bool {
        let appended = |side: usize| self.sides[side].weight.is_none();
        self.asks_whether() && self.sides[side].preserved && !self.null_aware && appended(side) && appended(1 - side)
    }

    /// Whether one row a key is all that is asked of a side: any other says the same.
    pub fn one_a_key(&self, side: usize) -> bool {
        self.asks_whether() && !self.sides[side].preserved && self.filter.is_none() && self.sides[side].weight.is_none()
    }
}

impl FilterSpec {
    fn plan(filter: &Expr, visible: &[DFSchema; 2], planner: &dyn PhysicalPlanner, session: &dyn Session, context: &PhysicalPlanningContext) -> Result<Self> {
        let mut columns = [vec![], vec![]];
        for column in filter.column_refs() {
            for (side, schema) in visible.iter().enumerate() {
                columns[side].extend(schema.index_of_column(column));
            }
        }
        let mut fields = vec![];
        for (side, schema) in visible.iter().enumerate() {
            columns[side].sort_unstable();
            columns[side].dedup();
            fields.extend(columns[side].iter().map(|c| {
                let (qualifier, field) = schema.qualified_field(*c);
                // Either side may be what a row of the other is joined with.
                (qualifier.cloned(), field.clone())
            }));
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        let expr = planner.create_physical_expr(filter, &schema, session, context)?;
        Ok(Self { expr, columns, schema: schema.inner().clone() })
    }
}

/// The columns of a schema that are not hidden.
fn visible(schema: &DFSchema) -> Result<DFSchema> {
    let fields = schema.iter().filter(|(_, field)| !is_hidden(field.name())).map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
    DFSchema::new_with_metadata(fields, Default::default())
}

/// The columns of expressions over rows.
pub fn evaluate(exprs: &[Arc<dyn PhysicalExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows())).collect()
}
