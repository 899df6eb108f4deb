//! `EXPLAIN VIEW`: what a continuous view does once an epoch, and what bounds its state. `EXPLAIN ANALYZE VIEW`: what a running one's
//! operators do meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{Float64Array, Int64Array, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use datafusion::physical_plan::displayable;

use tidegate_kernels::device::Device;

use super::engine::{Engine, blocking};
use crate::{
    catalog::{Definition, Emit, ViewDef},
    decode::Decoder,
    device::Devices,
    error::{Error, Result},
    stream::{
        figures::{PHASES, Totals, Watched, nodes_of},
        plan::ViewPlan,
        view::PublishedView,
    },
};

/// The columns of `EXPLAIN VIEW`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("topic", DataType::Utf8, false), Field::new("text", DataType::Utf8, false)]))
}

/// A plan, told, with where it is worked at, and what `OR REPLACE` would do.
pub fn rows(plan: &ViewPlan, devices: Vec<String>, replaces: Option<String>) -> Result<RecordBatch> {
    let mut told: Vec<(&str, String)> = vec![];
    told.extend(replaces.map(|replaces| ("replaces", replaces)));
    let columns: Vec<String> = plan.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    told.push(("columns", columns.join(", ")));
    let key = plan.key.as_ref().map(|key| key.iter().map(|c| plan.schema.field(*c).name().clone()).collect::<Vec<_>>().join(", "));
    told.push(("key", key.unwrap_or_else(|| "none".into())));
    told.push((
        "emits",
        match plan.emit {
            Emit::Changes => "changes: each epoch the rows that changed".into(),
            Emit::OnWindowClose => "on window close: each row once, when the watermark has passed its window's end".into(),
            Emit::Every(interval) => format!("every {}: the rows that changed since the last time", humantime::format_duration(interval)),
        },
    ));
    for (input, columns) in &plan.inputs {
        told.push(("reads", format!("{input} ({})", columns.iter().cloned().collect::<Vec<_>>().join(", "))));
    }
    if plan.operators.is_empty() {
        told.push(("state", "none: each row is looked at once; the view keeps the rows it has".into()));
    }
    for operator in &plan.operators {
        told.push(("operator", format!("{}: {}", operator.id, operator.description)));
        told.push(("bounded by", operator.bound.clone()));
    }
    told.extend(devices.into_iter().map(|device| ("device", device)));
    told.push(("logical plan", plan.logical.display_indent().to_string()));
    told.push(("physical plan", displayable(plan.physical.as_ref()).indent(false).to_string().trim_end().to_string()));
    Ok(RecordBatch::try_new(
        schema(),
        vec![Arc::new(StringArray::from_iter_values(told.iter().map(|t| t.0))), Arc::new(StringArray::from_iter_values(told.iter().map(|t| &t.1)))],
    )?)
}

/// Where a view's work is done, and why: that on each source's records, then its operators.
pub async fn devices(engine: &Engine, def: &ViewDef, plan: &ViewPlan) -> Result<Vec<String>> {
    let wish = def.options.device.unwrap_or(engine.config().device);
    let gpu = match wish {
        Device::Cpu => Err("device = 'cpu'".to_string()),
        Device::Auto | Device::Gpu => blocking(|| Devices::get().looked_for()).await?,
    };
    let mut told = vec![];
    for source in plan.inputs.keys() {
        let Some(Definition::Source(source)) = engine.catalog().get(source).map(|object| object.definition) else { continue };
        let decoder = Decoder::new(&source, &[])?;
        let place = match (&gpu, decoder.not_on_device(), wish) {
            (_, Some(reason), _) => format!("cpu, since a GPU can't read it: {reason}"),
            (Err(reason), None, _) => format!("cpu: {reason}"),
            (Ok(gpu), None, Device::Gpu) => format!("{gpu}; records that it is not sure of on the CPU"),
            (Ok(gpu), None, _) => format!("cpu or {gpu}, whichever was faster lately for as many bytes"),
        };
        told.push(format!("decoding {}: {place}", source.name));
    }
    told.push("operators: cpu".into());
    Ok(told)
}

/// The columns of `EXPLAIN ANALYZE VIEW`.
pub fn analyze_schema() -> SchemaRef {
    let real = |name: &str| Field::new(name, DataType::Float64, true);
    let whole = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![
        Field::new("operator", DataType::Utf8, false),
        real("rows_in_per_second"),
        real("rows_out_per_second"),
        real("ms_per_epoch"),
        real("share"),
        whole("state_rows"),
        whole("state_bytes"),
    ]))
}

/// Looks at a running view for so long: the pipeline's epochs by phase, then the view's operators from the root on.
pub async fn analyze(engine: &Engine, name: &str, duration: Duration) -> Result<RecordBatch> {
    match engine.catalog().get(name).map(|object| object.definition) {
        Some(Definition::View(_)) => {}
        Some(_) => return Err(Error::Invalid(format!("{name} is not a continuous view: use EXPLAIN ANALYZE SELECT … for a query"))),
        None => return Err(Error::NotFound(format!("there is no view {name}"))),
    }
    let not_running = || Error::External(format!("view {name} is not running: SHOW VIEWS says why"));
    let (board, _) = engine.board_of(name).ok_or_else(not_running)?;
    let figures = board.current().views.get(name).map(|view| view.figures.clone()).ok_or_else(not_running)?;
    let (before, watch, started) = (board.figures().totals(), figures.watch(), Instant::now());
    tokio::time::sleep(duration).await;
    let (elapsed, mut seen, after) = (started.elapsed(), watch.seen(), board.figures().totals());
    let view = board.current().views.get(name).cloned().ok_or_else(|| Error::Cancelled(format!("view {name} was dropped or joined its pipeline meanwhile")))?;
    if seen.nodes.is_empty() {
        seen.nodes = nodes_of(&view.plan.physical);
    }
    let held = |id| watch.operator(id).map(|operator| (operator.state_rows, operator.state_bytes));
    analyzed(&Looked { name, elapsed, before: &before, after: &after, seen: &seen, view: &view }, &held)
}

/// What a look at a view saw.
struct Looked<'a> {
    name: &'a str,
    elapsed: Duration,
    before: &'a Totals,
    after: &'a Totals,
    seen: &'a Watched,
    view: &'a PublishedView,
}

struct Line {
    operator: String,
    rows_in: Option<u64>,
    rows_out: Option<u64>,
    seconds: Option<f64>,
    /// Over how many epochs the time is spread.
    epochs: u64,
    held: Option<(usize, usize)>,
}

fn analyzed(looked: &Looked, held: &dyn Fn(u32) -> Option<(usize, usize)>) -> Result<RecordBatch> {
    let Looked { name, elapsed, before, after, seen, view } = looked;
    let epochs = after.epochs - before.epochs;
    let whole = after.duration.sum - before.duration.sum;
    let mut lines = vec![Line {
        operator: format!("pipeline: {epochs} epochs in {:.1} s", elapsed.as_secs_f64()),
        rows_in: Some(after.records - before.records),
        rows_out: None,
        seconds: Some(whole),
        epochs,
        held: None,
    }];
    for (phase, (before, after)) in PHASES.iter().zip(before.phases.iter().zip(&after.phases)) {
        lines.push(Line { operator: format!("  {phase}"), rows_in: None, rows_out: None, seconds: Some(after.sum - before.sum), epochs, held: None });
    }
    lines.push(Line {
        operator: format!("view {name}: {} epochs", seen.epochs),
        rows_in: None,
        rows_out: seen.nodes.first().map(|root| root.rows_out),
        seconds: Some(seen.time.as_secs_f64()),
        epochs: seen.epochs,
        held: Some((view.state_rows, view.bytes)),
    });
    lines.extend(seen.nodes.iter().map(|node| Line {
        operator: format!("{}{}", "  ".repeat(node.depth + 1), node.name),
        rows_in: Some(node.rows_in),
        rows_out: Some(node.rows_out),
        seconds: node.time.map(|time| time.as_secs_f64()),
        epochs: seen.epochs,
        held: node.id.and_then(held),
    }));
    let rate = |rows: Option<u64>| rows.map(|rows| rows as f64 / elapsed.as_secs_f64());
    let share = |line: &Line| line.seconds.filter(|_| whole > 0.0).map(|seconds| seconds / whole);
    Ok(RecordBatch::try_new(
        analyze_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(lines.iter().map(|l| &l.operator))),
            Arc::new(Float64Array::from_iter(lines.iter().map(|l| rate(l.rows_in)))),
            Arc::new(Float64Array::from_iter(lines.iter().map(|l| rate(l.rows_out)))),
            Arc::new(Float64Array::from_iter(lines.iter().map(|l| l.seconds.filter(|_| l.epochs > 0).map(|s| s * 1000.0 / l.epochs as f64)))),
            Arc::new(Float64Array::from_iter(lines.iter().map(share))),
            Arc::new(Int64Array::from_iter(lines.iter().map(|l| l.held.map(|(rows, _)| rows as i64)))),
            Arc::new(Int64Array::from_iter(lines.iter().map(|l| l.held.map(|(_, bytes)| bytes as i64)))),
        ],
    )?)
}
