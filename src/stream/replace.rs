//! What of a view outlives its definition.
//!
//! A new definition is compared with the plan that runs. An operator goes on with its state where everything that it is made of and everything
//! below it is the same: its fingerprint, a text over the physical plan in which columns are positions and names that the planner makes up
//! count for nothing. What stands above the operators that go on is computed once, from what these answer now. Where one can't tell that any
//! more, since rows that it would need were thrown away long ago, the sources are read again.

use std::{fmt::Write, sync::Arc};

use arrow::{
    array::{ArrayRef, Int64Array, new_null_array},
    datatypes::{FieldRef, Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use datafusion::{
    common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    datasource::memory::MemorySourceConfig,
    physical_expr::{PhysicalExpr, expressions::Column, utils::collect_columns},
    physical_plan::{
        ExecutionPlan, ReplaceChildrenOptions, displayable, execution_plan::ChildrenPropertiesMode, filter::FilterExec, projection::ProjectionExec,
    },
};

use super::{
    changes::consolidate,
    epoch::OperatorId,
    hidden::{WEIGHT, weight_field},
    plan::{OperatorInfo, ViewPlan, operator},
    slice::SliceExec,
    view::ViewRuntime,
};
use crate::error::{Error, Result};

type Plan = Arc<dyn ExecutionPlan>;

/// How much of a view's state a new definition goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// All of it, contents included.
    Whole,
    /// Operators, or what the view holds; what is above them is computed from their answers.
    Part,
    /// Nothing, and why: a part of a sentence behind "since".
    Nothing(String),
}

/// Everything that decides what a plan gives, as text; two plans that have the same give the same.
pub fn fingerprint(plan: &Plan) -> Result<String> {
    let mut text = String::new();
    describe(plan, &mut text)?;
    Ok(without_made_up_names(&text))
}

fn describe(plan: &Plan, text: &mut String) -> Result<()> {
    text.push_str(plan.name());
    if let Some(slice) = plan.downcast_ref::<SliceExec>() {
        let _ = write!(text, " {:?} {:?}", slice.input(), slice.columns().collect::<Vec<_>>());
        // A file may hold other rows by now, and only its name is known here. Constants are named by their values.
        if let Some(table) = slice.table().filter(|_| !slice.input().starts_with("__constants")) {
            let _ = write!(text, " table at {:p}", Arc::as_ptr(table));
        }
    } else if let Some(operator) = operator(plan) {
        let _ = write!(text, " {}", operator.spec()?);
    } else {
        if !plan.is::<ProjectionExec>() {
            let _ = write!(text, " {}", displayable(plan.as_ref()).one_line());
        }
        plan.apply_expressions(&mut |expr| {
            let expr = by_position(expr)?;
            let _ = write!(text, " {expr:?} {expr}");
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    // Arrow leaves out the middle of long lists when it prints them: two that look alike may differ.
    if text.contains("elements...") {
        let _ = write!(text, " at {:p}", Arc::as_ptr(plan));
    }
    for field in plan.schema().fields() {
        let hidden = if field.name() == WEIGHT { WEIGHT } else { "" };
        let _ = write!(text, ", {:?} {} {hidden}", field.data_type(), field.is_nullable());
    }
    text.push_str(" (");
    for child in plan.children() {
        describe(child, text)?;
        text.push(';');
    }
    text.push(')');
    Ok(())
}

/// An expression whose columns are positions alone.
fn by_position(expr: &Arc<dyn PhysicalExpr>) -> datafusion::common::Result<Arc<dyn PhysicalExpr>> {
    let nameless = |expr: Arc<dyn PhysicalExpr>| {
        Ok(match expr.downcast_ref::<Column>() {
            Some(column) => Transformed::yes(Arc::new(Column::new("", column.index())) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(expr),
        })
    };
    expr.clone().transform(nameless).data()
}

/// The planner numbers what it names (`__common_expr_3`), and goes on counting from one statement to the next.
fn without_made_up_names(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for (at, part) in text.split("__").enumerate() {
        if at > 0 {
            plain.push_str("__");
        }
        let word = part.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(part.len());
        let digits = part[word..].find(|c: char| !c.is_ascii_digit()).map_or(part.len(), |digits| word + digits);
        plain.push_str(&part[..word]);
        plain.push_str(if at > 0 && part[..word].ends_with('_') { &part[digits..] } else { &part[word..] });
    }
    plain
}

/// A place of a new plan whose answer is known without reading anything.
#[derive(Debug, Clone)]
enum Answer {
    /// What the old view holds; for each column of the place which of the view's, none for the weight and for what nobody looks at.
    Contents(Vec<Option<usize>>),
    /// An operator of the old plan has it.
    Operator(OperatorId),
}

/// The plan that runs, as a new one is compared with it.
struct Old {
    /// What the view's contents tell of: its top, and what is below each projection there, with the columns that are known.
    held: Vec<(String, Vec<Option<usize>>)>,
    operators: Vec<(String, OperatorId, bool)>,
}

impl Old {
    fn of(plan: &ViewPlan) -> Result<Self> {
        let mut operators = vec![];
        gather(&plan.physical, &mut operators)?;
        Ok(Self { held: held(plan)?, operators })
    }

    /// The answer of a place of which these columns are looked at.
    fn answer(&self, place: &Plan, needed: &[bool]) -> Result<Option<Answer>> {
        let (text, schema) = (fingerprint(place)?, place.schema());
        let complete = |columns: &[Option<usize>]| {
            columns.iter().zip(needed).zip(schema.fields()).all(|((column, needed), field)| column.is_some() || !needed || field.name() == WEIGHT)
        };
        if let Some((_, columns)) = self.held.iter().find(|(held, columns)| *held == text && complete(columns)) {
            return Ok(Some(Answer::Contents(columns.clone())));
        }
        let known = self.operators.iter().find(|(known, _, holds)| *holds && *known == text);
        Ok(known.map(|(_, id, _)| Answer::Operator(*id)))
    }
}

/// For each child of a node which of its columns it looks at, where these of its own are.
fn needed_below(plan: &Plan, needed: &[bool]) -> Vec<Vec<bool>> {
    let all = |child: &Plan| vec![true; child.schema().fields().len()];
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let mut below = vec![false; projection.input().schema().fields().len()];
        projection.expr().iter().flat_map(|expr| collect_columns(&expr.expr)).for_each(|column| below[column.index()] = true);
        return vec![below];
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let mut below = vec![false; filter.input().schema().fields().len()];
        collect_columns(filter.predicate()).iter().for_each(|column| below[column.index()] = true);
        for (at, needed) in needed.iter().enumerate().filter(|(_, needed)| **needed) {
            below[filter.projection().as_ref().map_or(at, |projection| projection[at])] = *needed;
        }
        return vec![below];
    }
    plan.children().into_iter().map(all).collect()
}

fn gather(plan: &Plan, operators: &mut Vec<(String, OperatorId, bool)>) -> Result<()> {
    if let Some(operator) = operator(plan) {
        operators.push((fingerprint(plan)?, operator.id(), operator.holds_its_answer()));
    }
    plan.children().into_iter().try_for_each(|child| gather(child, operators))
}

/// The nodes whose rows a view's contents tell of, with the column of the view that holds each of theirs, if one does.
fn held(plan: &ViewPlan) -> Result<Vec<(String, Vec<Option<usize>>)>> {
    let mut node = &plan.physical;
    let visible = plan.schema.fields().len();
    let mut columns: Vec<Option<usize>> = (0..node.schema().fields().len()).map(|column| (column < visible).then_some(column)).collect();
    let mut held = vec![(fingerprint(node)?, columns.clone())];
    while let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let mut below = vec![None; projection.input().schema().fields().len()];
        for (expr, output) in projection.expr().iter().zip(&columns) {
            if let Some(column) = expr.expr.downcast_ref::<Column>() {
                below[column.index()] = below[column.index()].or(*output);
            }
        }
        (node, columns) = (projection.input(), below);
        held.push((fingerprint(node)?, columns.clone()));
    }
    Ok(held)
}

/// What looks for the places of a new plan whose answers are known.
struct Cut<'a> {
    old: Old,
    /// The new plan's.
    operators: &'a [OperatorInfo],
    /// Makes what is put in a place.
    give: &'a mut dyn FnMut(&Answer, &Plan) -> Result<Plan>,
}

impl Cut<'_> {
    /// The plan with what is known in the places of what would be read. What stands between those and the top is new, and must not ask for time.
    /// `Err` within: why the sources have to be read, if they have. `needed`: the columns that are looked at; `above`: the operator that stands above.
    fn node(&mut self, plan: &Plan, needed: &[bool], above: Option<OperatorId>) -> Result<std::result::Result<Plan, String>> {
        if let Some(answer) = self.old.answer(plan, needed)? {
            return Ok(Ok((self.give)(&answer, plan)?));
        }
        let told = |id: OperatorId| self.operators.iter().find(|info| info.id == id).map_or("an operator", |info| info.description.as_str());
        if let Some(slice) = plan.downcast_ref::<SliceExec>() {
            return Ok(Err(match above {
                Some(id) => format!("it holds nothing for this operator: {}", told(id)),
                None => format!("it does not hold these rows of {}", slice.input()),
            }));
        }
        let mut above = above;
        if let Some(operator) = operator(plan) {
            if !operator.is_timeless() {
                let text = fingerprint(plan)?;
                let told = told(operator.id());
                return Ok(Err(match self.old.operators.iter().any(|(known, ..)| *known == text) {
                    true => format!("rows for times that are over are gone from this operator: {told}"),
                    false => format!("it holds nothing for this operator: {told}"),
                }));
            }
            above = Some(operator.id());
        }
        let mut children = vec![];
        for (child, needed) in plan.children().into_iter().zip(needed_below(plan, needed)) {
            match self.node(child, &needed, above)? {
                Ok(child) => children.push(child),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Ok(plan.clone().replace_children(children, options)?))
    }
}

/// Pairs the operators of two plans that have the same fingerprint.
fn pairs(old: &Plan, new: &Plan, paired: &mut Vec<(OperatorId, OperatorId)>) {
    paired.extend(operator(old).zip(operator(new)).map(|(old, new)| (old.id(), new.id())));
    old.children().into_iter().zip(new.children()).for_each(|(old, new)| pairs(old, new, paired));
}

fn node_with(plan: &Plan, text: &str) -> Result<Option<Plan>> {
    if fingerprint(plan)? == text {
        return Ok(Some(plan.clone()));
    }
    for child in plan.children() {
        if let Some(found) = node_with(child, text)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A new plan in which what is known stands for what would be read, and which operators go on under which numbers.
pub(super) struct Primed {
    pub(super) plan: Plan,
    pub(super) moved: Vec<(OperatorId, OperatorId)>,
}

/// A new plan over what the old one knows; `give` makes the rows of a place.
fn over(old: &ViewPlan, new: &ViewPlan, give: &mut dyn FnMut(&Answer, &Plan) -> Result<Plan>) -> Result<std::result::Result<Primed, String>> {
    let mut moved = vec![];
    let mut give = |answer: &Answer, place: &Plan| {
        let before = node_with(&old.physical, &fingerprint(place)?)?;
        pairs(&before.ok_or_else(|| Error::Internal("a part of the old plan was not found again".into()))?, place, &mut moved);
        give(answer, place)
    };
    let mut cut = Cut { old: Old::of(old)?, operators: &new.operators, give: &mut give };
    let plan = match cut.node(&new.physical, &vec![true; new.physical.schema().fields().len()], None)? {
        Ok(plan) => plan,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut taken: Vec<OperatorId> = moved.iter().map(|(from, _)| *from).collect();
    taken.sort_unstable();
    taken.dedup();
    // One state can't go on twice.
    if taken.len() < moved.len() {
        return Ok(Err("an operator that is there once would be needed twice".into()));
    }
    Ok(Ok(Primed { plan, moved }))
}

/// How much of what runs under the old plan a new one can go on with. Both are of a view that runs.
pub fn compare(old: &ViewPlan, new: &ViewPlan) -> Result<Kept> {
    if fingerprint(&old.physical)? == fingerprint(&new.physical)? {
        return Ok(Kept::Whole);
    }
    Ok(match over(old, new, &mut |_, place| Ok(place.clone()))? {
        Ok(_) => Kept::Part,
        Err(reason) => Kept::Nothing(reason),
    })
}

/// The operators that go on where nothing but what a plan's columns are called has changed.
pub(super) fn moved(old: &ViewPlan, new: &ViewPlan) -> Vec<(OperatorId, OperatorId)> {
    let mut moved = vec![];
    pairs(&old.physical, &new.physical, &mut moved);
    moved
}

/// The new plan over what the old view's operators answer, and what it holds.
pub(super) fn prime(old: &ViewRuntime, new: &ViewPlan) -> Result<std::result::Result<Primed, String>> {
    let mut give = |answer: &Answer, place: &Plan| {
        let mut schema = place.schema();
        if let Answer::Contents(columns) = answer {
            schema = with_unknown(&schema, columns);
        }
        let batches = match answer {
            Answer::Contents(columns) => old.rows().batches().map(|rows| picked(&rows?, columns, &schema)).collect::<Result<Vec<_>>>()?,
            Answer::Operator(id) => {
                let answer = old.states.get(*id)?.lock().answer()?;
                let lost = || Error::Internal("an operator was to tell its answer and can't".into());
                answer.ok_or_else(lost)?.iter().map(|batch| renamed(batch, &schema)).collect::<Result<Vec<_>>>()?
            }
        };
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)? as Plan)
    };
    over(&old.plan, new, &mut give)
}

fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}

/// A schema in which columns that nobody looks at may be NULL.
fn with_unknown(schema: &SchemaRef, columns: &[Option<usize>]) -> SchemaRef {
    let fields = schema.fields().iter().zip(columns).map(|(field, column)| match column {
        None if field.name() != WEIGHT => Arc::new(field.as_ref().clone().with_nullable(true)),
        _ => field.clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn picked(rows: &RecordBatch, columns: &[Option<usize>], schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |(column, field): (&Option<usize>, &FieldRef)| match column {
        Some(column) => rows.column(*column).clone(),
        None if field.name() == WEIGHT => Arc::new(Int64Array::from_value(1, rows.num_rows())) as ArrayRef,
        None => new_null_array(field.data_type(), rows.num_rows()),
    };
    let columns = columns.iter().zip(schema.fields()).map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Whether those who read a view through one schema can go on with another: names and types are the same, and nothing may be NULL that could not.
pub fn same_columns(old: &Schema, new: &Schema) -> bool {
    old.fields().len() == new.fields().len()
        && old
            .fields()
            .iter()
            .zip(new.fields())
            .all(|(old, new)| old.name() == new.name() && old.data_type() == new.data_type() && (old.is_nullable() || !new.is_nullable()))
}

/// The view that another one is about to take the place of, with the next epoch.
#[derive(Debug)]
pub struct Replaced {
    /// It is what readers see, and what a checkpoint holds, until then.
    pub old: ViewRuntime,
    /// Whoever follows it goes on with the new one.
    pub same_columns: bool,
    /// The new one holds what it held.
    pub same_rows: bool,
}

/// What the epoch in which a view takes another one's place brings to those who go on with it.
#[derive(Debug, Default)]
pub struct Swap {
    /// To views that read it; `None` if there are none.
    pub given: Option<Vec<RecordBatch>>,
    /// To those who follow it; `None` if there are none.
    pub shown: Option<Vec<RecordBatch>>,
}

impl Replaced {
    /// From the old rows to those of `new`, which holds what it begins with and whose first epoch gives `output`.
    pub(super) fn swap(&self, new: &ViewRuntime, output: &[RecordBatch], is_read: bool) -> Result<Swap> {
        if !self.same_columns {
            return Ok(Swap::default());
        }
        let mut fields: Vec<_> = new.plan.schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        fields.push(weight_field());
        let schema = Arc::new(Schema::new(fields));
        let difference = |from: Vec<RecordBatch>| -> Result<Vec<RecordBatch>> {
            let mut all = from.iter().map(|rows| weighted(&schema, rows, -1)).collect::<Result<Vec<_>>>()?;
            for rows in new.rows().batches() {
                all.push(weighted(&schema, &rows?, 1)?);
            }
            for rows in output {
                all.push(weighted(&schema, rows, 1)?);
            }
            consolidate(all, true, new.plan.key.as_deref())
        };
        let given = match (is_read, self.same_rows) {
            (false, _) => None,
            (true, true) => Some(output.to_vec()),
            (true, false) => Some(difference(self.old.rows().batches().collect::<Result<_>>()?)?),
        };
        let shown = match (new.changes.is_followed(), self.same_rows) {
            (false, _) => None,
            // What `EMIT EVERY` has not told yet comes now.
            (true, true) => Some(consolidate([self.old.pending(), output].concat(), new.plan.changing, new.plan.key.as_deref())?),
            (true, false) => Some(difference(self.old.shown_rows().batches().collect::<Result<_>>()?)?),
        };
        Ok(Swap { given, shown })
    }
}

/// Rows of a view with their weight, times `sign`.
fn weighted(schema: &SchemaRef, rows: &RecordBatch, sign: i64) -> Result<RecordBatch> {
    let width = schema.fields().len() - 1;
    let mut columns = rows.columns()[..width].to_vec();
    columns.push(match rows.columns().get(width) {
        Some(weights) => weights.clone(),
        None => Arc::new(Int64Array::from_value(sign, rows.num_rows())),
    });
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
