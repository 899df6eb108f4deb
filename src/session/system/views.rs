//! `system.operators`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::{Schema, SchemaRef},
};

use super::{milliseconds, real, text, whole};
use crate::{
    access::Who,
    session::engine::Engine,
    stream::{figures::OperatorTotals, plan::OperatorInfo},
};

/// Columns of `system.operators`.
pub fn operators_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("view"),
        whole("operator"),
        text("description"),
        whole("rows_in"),
        whole("rows_out"),
        real("ms"),
        whole("state_rows"),
        whole("state_bytes"),
        text("device"),
        text("bounded_by"),
    ]))
}

/// Rows of `system.operators`.
pub fn operators(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let mut rows: Vec<(String, OperatorInfo, OperatorTotals)> = vec![];
    for object in engine.all_seen(who) {
        let name = object.definition.name();
        let Some((board, _)) = engine.board_of(name) else { continue };
        if let Some(view) = board.current().views.get(name) {
            rows.extend(view.plan.operators.iter().map(|operator| {
                let figures = view.figures.operator(operator.id).map(|figures| figures.totals()).unwrap_or_default();
                (name.to_string(), operator.clone(), figures)
            }));
        }
    }
    let number = |of: fn(&OperatorTotals) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, f)| of(f) as i64))) };
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(view, _, _)| view))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, o, _)| i64::from(o.id)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, o, _)| &o.description))),
        number(|f| f.rows_in),
        number(|f| f.rows_out),
        milliseconds(rows.iter().map(|(_, _, f)| f.time)),
        number(|f| f.state_rows as u64),
        number(|f| f.state_bytes as u64),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "cpu"))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, o, _)| &o.bound))),
    ]
}
