//! What is done with records before anything of them is decoded: those that the source's header filter leaves out are passed over, and envelopes
//! are opened. What is left are records in the same buffer.

use super::{BadRecord, Reason, debezium::Debezium};
use crate::{
    catalog::{Format, HeaderFilter, SourceDef},
    error::Result,
    source::{Picked, Records},
};

/// What a source asks for.
#[derive(Debug)]
pub(super) struct Prepare {
    filter: Option<HeaderFilter>,
    envelope: Option<Debezium>,
}

/// The records that are left.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) records: Records,
    /// For each of them its position among all.
    pub(super) of: Vec<u32>,
    /// Those that could not be opened, in order, by their positions among all.
    pub(super) errors: Vec<BadRecord>,
}

impl Prepare {
    /// What a source asks for, if it is anything.
    pub(super) fn of(source: &SourceDef) -> Result<Option<Self>> {
        let envelope = (source.format == Format::DebeziumJson).then(Debezium::new).transpose()?;
        let filter = source.header_filter.clone();
        Ok((envelope.is_some() || filter.is_some()).then_some(Self { filter, envelope }))
    }

    /// Does it.
    pub(super) fn apply(&mut self, records: &Records) -> Prepared {
        let (mut picked, mut of, mut errors) = (vec![], vec![], vec![]);
        for (at, record) in (0u32..).zip(records.iter()) {
            if !self.filter.as_ref().is_none_or(|filter| filter.passes(record.headers)) {
                continue;
            }
            let (mut key, mut value) = (record.key_at, record.value_at);
            if let Some(envelope) = &mut self.envelope {
                let within =
                    |whole: Option<(usize, usize)>, part: Option<(usize, usize)>| whole.zip(part).map(|((base, _), (start, end))| (base + start, base + end));
                match envelope.open(record.key, record.value) {
                    Ok(opened) => (key, value) = (within(key, opened.key), within(value, opened.value)),
                    Err(reason) => {
                        errors.push(Reason::from(reason).of(at));
                        continue;
                    }
                }
            }
            picked.push(Picked { index: at as usize, key, value });
            of.push(at);
        }
        Prepared { records: records.pick(&picked), of, errors }
    }
}
