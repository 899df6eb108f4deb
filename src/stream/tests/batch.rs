//! What a view must hold: DataFusion's answer to its query over the rows read so far, less the late ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{AsArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    compute::filter_record_batch,
    datatypes::{SchemaRef, TimestampNanosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    catalog::MemoryCatalogProviderList,
    datasource::MemTable,
    execution::{SessionState, session_state::SessionStateBuilder},
    prelude::{SessionConfig, SessionContext},
};

use super::{
    case::Case,
    model::{Model, Row},
    views::{SECOND, View, Windows},
};
use crate::{
    catalog::{Emit, SourceDef, ViewDef},
    sql,
};

/// Rows as text, and how often each is there.
pub type Bag = BTreeMap<String, usize>;

/// DataFusion with the functions that views have.
static STATE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut context = SessionContext::new_with_config(config());
    tidegate_udfs::register(&mut context).unwrap();
    context.state()
});

fn config() -> SessionConfig {
    SessionConfig::new().with_target_partitions(1)
}

pub fn bag(batches: impl IntoIterator<Item = RecordBatch>) -> Bag {
    let options = FormatOptions::default().with_null("∅");
    let mut bag = Bag::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let text = columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|");
            *bag.entry(text).or_default() += 1;
        }
    }
    bag
}

/// Whether both hold the same rows: floats within 1e-9 relative, everything else exactly. If not, the rows that only one side has.
pub fn same(got: &Bag, want: &Bag, whose: [&str; 2]) -> Result<(), String> {
    let only = |a: &Bag, b: &Bag| -> Vec<String> {
        let more = |(row, n): (&String, &usize)| std::iter::repeat_n(row.clone(), n.saturating_sub(b.get(row).copied().unwrap_or_default()));
        a.iter().flat_map(more).collect()
    };
    let (got, want) = (only(got, want), only(want, got));
    if got.len() == want.len() && got.iter().zip(&want).all(|(a, b)| a.split('|').count() == b.split('|').count() && a.split('|').zip(b.split('|')).all(near)) {
        return Ok(());
    }
    Err(format!("only {} has\n  {}\nonly {} has\n  {}", whose[0], got.join("\n  "), whose[1], want.join("\n  ")))
}

/// Whether two cells are the same, or two floats that are near each other: text of a float has a point or an exponent.
fn near((a, b): (&str, &str)) -> bool {
    let float = |cell: &str| cell.contains(['.', 'e']).then(|| cell.parse::<f64>().ok()).flatten();
    match (float(a), float(b)) {
        (Some(x), Some(y)) => x == y || (x - y).abs() <= 1e-9 * x.abs().max(y.abs()),
        _ => a == b,
    }
}

/// A view's query as a batch.
pub struct Batch {
    case: Case,
    query: String,
    schema: SchemaRef,
    context: SessionContext,
}

impl Batch {
    pub fn new(case: &Case, source: &SourceDef, view: &ViewDef) -> Self {
        // The order that a view takes where the query gives none.
        let mut query = view.query.clone();
        for (text, ordered) in [
            ("array_agg(x)", "array_agg(x ORDER BY part, off)"),
            ("first_value(id)", "first_value(id ORDER BY part, off)"),
            ("last_value(id ORDER BY k)", "last_value(id ORDER BY k, part, off)"),
        ] {
            query = query.replace(text, ordered);
        }
        let tables = Arc::new(MemoryCatalogProviderList::new());
        let state = SessionStateBuilder::new_from_existing(STATE.clone()).with_config(config()).with_catalog_list(tables).build();
        Self { case: Case { epochs: vec![], ..case.clone() }, query, schema: source.schema(), context: SessionContext::new_with_state(state) }
    }

    /// What the view must hold.
    pub async fn answer(&self, model: &Model) -> Bag {
        let (view, rows) = (self.case.view, &model.rows);
        let want = match view.windows {
            Windows::None | Windows::Tumble(_) | Windows::Session(..) => self.over(rows.iter().filter(|r| !model.is_late(r)).collect()).await,
            // Late for one window and in time for another: windows that miss a row are asked for one by one.
            windows @ (Windows::Hop(..) | Windows::Cumulate(..)) => {
                let incomplete: BTreeSet<i64> = model.late.iter().map(|(_, _, end)| *end).collect();
                let mut want = only(self.over(rows.iter().collect()).await, view, |end| end.is_none_or(|end| !incomplete.contains(&end)));
                for end in incomplete {
                    let in_time = |r: &&Row| windows.ends(r.event.ts).contains(&end) && !model.late.contains(&(r.partition, r.offset, end));
                    let in_time: Vec<&Row> = rows.iter().filter(in_time).collect();
                    if !in_time.is_empty() {
                        want.extend(only(self.over(in_time).await, view, |e| e == Some(end)));
                    }
                }
                want
            }
        };
        match self.case.emit {
            Emit::OnWindowClose => bag(only(want, view, |end| end.is_some_and(|end| end <= model.passed))),
            Emit::Changes | Emit::Every(_) => bag(want),
        }
    }

    /// DataFusion's answer over rows.
    async fn over(&self, rows: Vec<&Row>) -> Vec<RecordBatch> {
        let finite = |g: Option<f64>| g.filter(|g| g.is_finite());
        let odd = |g: Option<f64>| g.filter(|g| !g.is_finite()).map(|g| g.to_string());
        let columns = RecordBatch::try_new(
            self.schema.clone(),
            vec![
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.event.id))),
                Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.event.ts))),
                Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.event.k))),
                Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.event.x))),
                Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.event.f))),
                Arc::new(Float64Array::from_iter(rows.iter().map(|r| finite(r.event.g)))),
                Arc::new(StringViewArray::from_iter(rows.iter().map(|r| odd(r.event.g)))),
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.partition))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.offset))),
            ],
        )
        .unwrap();
        self.context.deregister_table("events").unwrap();
        self.context.register_table("events", Arc::new(MemTable::try_new(self.schema.clone(), vec![vec![columns]]).unwrap())).unwrap();
        let plan = self.context.state().statement_to_plan(sql::query_statement(sql::parse_query(&self.query).unwrap())).await.unwrap();
        self.context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
    }
}

/// The rows whose window's end is to be kept. A row beyond the last window has no end.
fn only(batches: Vec<RecordBatch>, view: &View, keep: impl Fn(Option<i64>) -> bool) -> Vec<RecordBatch> {
    let to_end = match (view.windows, view.column) {
        (Windows::Tumble(size) | Windows::Hop(_, size), "window_start") => size * SECOND,
        _ => 0,
    };
    let kept = |batch: &RecordBatch| {
        let bounds = batch.column_by_name(view.column).unwrap().as_primitive::<TimestampNanosecondType>();
        bounds.iter().map(|bound| Some(keep(bound.map(|bound| bound + to_end)))).collect()
    };
    batches.iter().map(|batch| filter_record_batch(batch, &kept(batch)).unwrap()).collect()
}
