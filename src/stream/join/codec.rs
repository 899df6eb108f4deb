//! A streaming join as a descriptor.

use std::{str::FromStr, sync::Arc};

use arrow::datatypes::Schema;
use datafusion::{
    common::{JoinType, Result, plan_err},
    physical_plan::ExecutionPlan,
};
use serde::{Deserialize, Serialize};

use super::{
    exec::StreamJoinExec,
    spec::{FilterSpec, Instant, JoinSpec, SideClock, SideSpec},
};
use crate::stream::{
    codec::{Described, Reader, Writer},
    epoch::{Operator, OperatorId},
    time::Timeline,
};

/// What a [`StreamJoinExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    description: String,
    kind: String,
    null_equals_null: bool,
    null_aware: bool,
    complete: bool,
    sides: [Side; 2],
    filter: Option<Filter>,
    output: usize,
    changing: bool,
    lateness: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Side {
    visible: Vec<usize>,
    rows: usize,
    stored: usize,
    weight: Option<usize>,
    locator: Option<usize>,
    keys: Vec<usize>,
    preserved: bool,
    remembers: bool,
    expiry: Option<At>,
    null_matches: bool,
    clock: Option<Clock>,
}

/// An [`Instant`].
#[derive(Debug, Serialize, Deserialize)]
struct At {
    expression: usize,
    offset: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Clock {
    time: At,
    timeline: Timeline,
    lag: i64,
    size: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Filter {
    condition: usize,
    columns: [Vec<usize>; 2],
    schema: usize,
}

impl At {
    fn write(instant: &Instant, parts: &mut Writer) -> Result<Self> {
        let Instant { expr, offset } = instant;
        Ok(Self { expression: parts.expression(expr)?, offset: *offset })
    }

    fn read(self, rows: &Schema, parts: &Reader) -> Result<Instant> {
        Ok(Instant { expr: parts.expression(self.expression, rows)?, offset: self.offset })
    }
}

impl Side {
    fn write(side: &SideSpec, parts: &mut Writer) -> Result<Self> {
        let SideSpec { visible, rows, stored, weight, locator, keys, preserved, remembers, expiry, null_matches, clock } = side;
        let clock = clock.as_ref().map(|SideClock { time, timeline, lag, size }| {
            Ok::<_, datafusion::common::DataFusionError>(Clock { time: At::write(time, parts)?, timeline: timeline.clone(), lag: *lag, size: *size })
        });
        Ok(Self {
            clock: clock.transpose()?,
            visible: visible.clone(),
            rows: parts.schema(rows)?,
            stored: parts.schema(stored)?,
            weight: *weight,
            locator: *locator,
            keys: parts.expressions(keys)?,
            preserved: *preserved,
            remembers: *remembers,
            expiry: expiry.as_ref().map(|expiry| At::write(expiry, parts)).transpose()?,
            null_matches: *null_matches,
        })
    }

    fn read(self, parts: &Reader) -> Result<SideSpec> {
        let Self { visible, rows, stored, weight, locator, keys, preserved, remembers, expiry, null_matches, clock } = self;
        let rows = parts.schema(rows)?;
        let clock = clock.map(|Clock { time, timeline, lag, size }| {
            Ok::<_, datafusion::common::DataFusionError>(SideClock { time: time.read(&rows, parts)?, timeline, lag, size })
        });
        Ok(SideSpec {
            clock: clock.transpose()?,
            visible,
            stored: parts.schema(stored)?,
            weight,
            locator,
            keys: parts.expressions(&keys, &rows)?,
            preserved,
            remembers,
            expiry: expiry.map(|expiry| expiry.read(&rows, parts)).transpose()?,
            null_matches,
            rows,
        })
    }
}

impl Described for StreamJoinExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        let JoinSpec { kind, null_equals_null, null_aware, complete, sides: [left, right], filter, output, changing, lateness } = self.spec.as_ref();
        let filter = filter.as_ref().map(|FilterSpec { expr, columns, schema }| {
            Ok::<_, datafusion::common::DataFusionError>(Filter { condition: parts.expression(expr)?, columns: columns.clone(), schema: parts.schema(schema)? })
        });
        Ok(Descriptor {
            filter: filter.transpose()?,
            id: self.id(),
            description: self.description.clone(),
            kind: kind.to_string(),
            null_equals_null: *null_equals_null,
            null_aware: *null_aware,
            complete: *complete,
            sides: [Side::write(left, parts)?, Side::write(right, parts)?],
            output: parts.schema(output)?,
            changing: *changing,
            lateness: *lateness,
        })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, description, kind, null_equals_null, null_aware, complete, sides: [left, right], filter, output, changing, lateness } = descriptor;
        let Ok(inputs) = inputs.try_into() else { return plan_err!("the bytes of a plan give a join another number of inputs than two") };
        let filter = filter.map(|Filter { condition, columns, schema }| {
            let schema = parts.schema(schema)?;
            Ok::<_, datafusion::common::DataFusionError>(FilterSpec { expr: parts.expression(condition, &schema)?, columns, schema })
        });
        let spec = JoinSpec {
            kind: JoinType::from_str(&kind)?,
            null_equals_null,
            null_aware,
            complete,
            sides: [left.read(parts)?, right.read(parts)?],
            filter: filter.transpose()?,
            output: parts.schema(output)?,
            changing,
            lateness,
        };
        Ok(Arc::new(Self::new(id, inputs, Arc::new(spec), description)))
    }
}
