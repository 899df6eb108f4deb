//! Avro, by the schema that a record was written with and the source's own, the reader's.
//!
//! A payload is one record. Where the source names a schema registry it stands behind a header with the id of the writer's schema; else it was
//! written with the reader's. The two are resolved once (`resolve`) to a plan of what is read into which column and what is stepped over, as
//! Avro's specification has it: fields by name or alias, defaults, promotions, unions, symbols. `read` follows the plan over the bytes. A payload
//! must hold just what its schema says; each array and map is bounded by the payload's length, and nesting by a constant.
//!
//! Schemas come from the registry's cache ([`Registry::known`]): nothing here waits. Whoever takes records from a topic has asked for them before.

mod constant;
mod drift;
mod infer;
mod read;
mod resolve;

use std::{collections::HashMap, sync::Arc};

pub(super) use self::infer::columns;
use self::{drift::SchemaDrift, read::Bad, resolve::Plan};
use super::{
    Reason,
    drift::{Drift, FieldPath, Retyped},
    payload::{BatchReader, PayloadColumn, ReadBatch},
    values::RowColumns,
};
use crate::{
    catalog::{AvroDef, Link},
    error::{Error, Result},
    source::{
        AvroSchema, Records, framing,
        registry::{Found, Registry},
    },
};

/// Reads payloads in Avro.
#[derive(Debug)]
pub(super) struct AvroReader {
    /// The source's schema.
    schema: Arc<AvroSchema>,
    declared: Vec<PayloadColumn>,
    registry: Option<Arc<Registry>>,
    /// By the id of the writer's schema; where there is no registry, of the one schema under 0.
    plans: HashMap<u32, Written>,
    rows: RowColumns,
}

/// What is known of a writer's schema.
#[derive(Debug)]
struct Written {
    /// How its records are read, or why they can't be.
    plan: Result<Plan, String>,
    /// How it differs from the source's; nothing is known of one that is no schema.
    drift: Option<SchemaDrift>,
}

impl AvroReader {
    /// What reads these columns.
    pub(super) fn new(def: &AvroDef, link: &Link, declared: &[PayloadColumn]) -> Result<Self> {
        let schema = Arc::new(schema_of(def)?);
        // What the source's own schema can't give is wrong in the declaration, whatever comes.
        let own = Plan::new(&schema, &schema, declared).map_err(|why| Error::Invalid(format!("the Avro schema and the declared columns don't fit: {why}")))?;
        let registry = def.registry.as_ref().map(|subject| subject.registry(link).map(|def| Registry::of(&def))).transpose()?;
        let plans = if registry.is_none() { HashMap::from([(0, Written { plan: Ok(own), drift: None })]) } else { HashMap::new() };
        Ok(Self { schema, declared: declared.to_vec(), registry, plans, rows: RowColumns::new("Avro", declared)? })
    }

    /// Reads one payload as a row; the error is the reason why it is bad.
    fn read_payload(&mut self, record: u32, payload: &[u8]) -> Result<Result<(), Reason>> {
        let (id, body) = match &self.registry {
            None => (0, payload),
            Some(_) => match framing::split(payload) {
                Ok(parts) => parts,
                Err(reason) => return Ok(Err(reason.into())),
            },
        };
        if !self.plans.contains_key(&id)
            && let Some(registry) = &self.registry
        {
            let known = match registry.known(id) {
                Some(Found::Schema(written)) => {
                    let parsed = if written.kind == "AVRO" {
                        AvroSchema::parse(&written.text, written.references.iter().map(|reference| reference.text.as_str()))
                    } else {
                        Err(format!("it is of type {}", written.kind))
                    };
                    let writer = parsed.map(Arc::new);
                    let drift = writer.as_ref().ok().map(|writer| SchemaDrift::of(writer, &self.schema, &self.declared));
                    let plan = writer.and_then(|writer| Plan::new(&writer, &self.schema, &self.declared));
                    let plan =
                        plan.map_err(|why| format!("schema {id} of the registry, which the record was written with, can't be read as the source's: {why}"));
                    Written { plan, drift }
                }
                // Not kept: the registry may come to know it.
                Some(Found::Nothing) => {
                    return Ok(Err(format!("the schema registry knows no schema {id}, which the record says that it was written with").into()));
                }
                None => return Err(Error::Internal(format!("schema {id} of {} was not asked for before its records were read", registry.url()))),
            };
            self.plans.insert(id, known);
        }
        let Some(Written { plan, drift }) = self.plans.get_mut(&id) else { return Err(Error::Internal("a source in Avro has no plan".into())) };
        let read = match plan {
            Ok(plan) => plan.read(body, &mut self.rows).map(|()| self.rows.end_row(record)),
            Err(reason) => Err(Bad::Unread(reason.clone())),
        };
        if let (Some(drift), false) = (drift.as_mut(), matches!(read, Err(Bad::Malformed(_)))) {
            drift.count();
            if let (Ok(plan), Ok(()), true) = (&plan, &read, drift.wants_values()) {
                let values = plan.show(body, &drift.new);
                drift.show(values);
            }
        }
        let of_schema = || drift.as_ref().and_then(|drift| drift.retyped.clone()).map(Box::new);
        Ok(read.map_err(|bad| match bad {
            Bad::Malformed(text) => text.into(),
            Bad::Unread(text) => Reason { text, retyped: if plan.is_err() { of_schema() } else { None } },
            Bad::Retyped(text, column, example) => {
                Reason { text, retyped: Some(Box::new(Retyped { path: FieldPath::of(&self.declared[column].path), example })) }
            }
        }))
    }
}

impl AvroReader {
    /// How the records of a run differ from the source's schema.
    fn take_drift(&mut self) -> Drift {
        let mut drift = Drift::default();
        let mut differing: Vec<(&u32, &mut SchemaDrift)> = self.plans.iter_mut().filter_map(|(id, known)| Some((id, known.drift.as_mut()?))).collect();
        differing.sort_unstable_by_key(|(id, _)| **id);
        differing.into_iter().for_each(|(_, of_schema)| of_schema.add_to(&mut drift));
        drift
    }
}

impl BatchReader for AvroReader {
    fn read(&mut self, records: &Records, wanted: &dyn Fn(usize) -> bool) -> Result<ReadBatch> {
        for (index, record) in records.iter().enumerate().filter(|(index, _)| wanted(*index)) {
            match self.read_payload(index as u32, record.value.unwrap_or_default()) {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => self.rows.fail(index as u32, reason),
                Err(error) => {
                    // All is emptied, so that the next call begins afresh.
                    self.take_drift();
                    self.rows.finish()?;
                    return Err(error);
                }
            }
        }
        let drift = self.take_drift();
        Ok(ReadBatch { drift, ..self.rows.finish()? })
    }
}

/// The source's schema, parsed.
fn schema_of(def: &AvroDef) -> Result<AvroSchema> {
    AvroSchema::parse(&def.schema, []).map_err(|why| Error::Invalid(format!("the source's Avro schema can't be used: {why}")))
}
