//! Protobuf: the bytes of a message to Arrow columns, by a descriptor of its type.
//!
//! `tree` walks the fields on declared paths, held to the `wire` format, and remembers what each was given; columns (`column`) judge that and
//! take it. What no column reads is held to the structure of the format alone. A payload is one message, and one row.
//!
//! Which message type is read, and how, is fixed by the source's declaration. A producer with an older or newer one is read all the same, as
//! the format means it: fields are known by their numbers, unknown ones are passed over, and what is absent is so in the declared type's way.

mod column;
mod drift;
mod fault;
mod fixed;
mod frame;
mod infer;
mod json;
mod nested;
mod scalar;
mod texts;
mod tree;
mod well_known;
mod wire;

#[cfg(test)]
mod tests;

pub(super) use self::infer::columns;
use self::{
    column::{Field, Payload},
    drift::Notes,
    fault::{Fault, Judged},
    frame::Frame,
    tree::{Leaf, Slots, Tree},
};
use super::{
    Reason,
    drift::{FieldPath, Retyped},
    payload::{BatchReader, PayloadColumn, ReadBatch},
};
use crate::{catalog::ProtobufDef, error::Result, source::Records};

/// Reads messages of one type.
#[derive(Debug)]
pub(super) struct ProtobufReader {
    names: Vec<String>,
    paths: Vec<Vec<String>>,
    frame: Frame,
    tree: Tree,
    leaves: Vec<Leaf>,
    slots: Slots,
    columns: Vec<Field>,
    notes: Notes,
}

impl ProtobufReader {
    /// What reads these columns of a message type.
    pub(super) fn new(def: &ProtobufDef, columns: &[PayloadColumn]) -> Result<Self> {
        let paths: Vec<&[String]> = columns.iter().map(|column| column.path.as_slice()).collect();
        let (mut tree, leaves) = Tree::compile(def.message(), &paths)?;
        tree.watch(def.message());
        let field = |(column, leaf): (&PayloadColumn, &Leaf)| Field::new(&column.name, &leaf.field, &column.data_type, &column.time);
        Ok(Self {
            names: columns.iter().map(|column| column.name.clone()).collect(),
            paths: columns.iter().map(|column| column.path.clone()).collect(),
            frame: Frame::of(def),
            columns: columns.iter().zip(&leaves).map(field).collect::<Result<_>>()?,
            slots: Slots::of(&tree),
            tree,
            leaves,
            notes: Notes::default(),
        })
    }

    /// Appends a message to the columns. `judged` is the column at hand when a fault comes up.
    fn read_message(&mut self, payload: &Payload<'_>, start: usize, judged: &mut Option<usize>) -> Judged {
        self.slots.clear();
        self.tree.walk(payload.bytes, start, payload.bytes.len(), &mut self.slots)?;
        for (position, (column, leaf)) in self.columns.iter_mut().zip(&self.leaves).enumerate() {
            *judged = Some(position);
            match leaf.parent {
                Some(parent) if self.slots.get(parent).is_empty() => column.column().put_null(),
                _ => column.append(payload, self.slots.get(leaf.node))?,
            }
        }
        Ok(())
    }

    /// Notes how a message differs from what is declared, which was read as far as it can be.
    fn note(&mut self, payload: &[u8], read: &Judged, judged: Option<usize>) {
        match read.as_ref().map_err(Box::as_ref) {
            // A message that ends in the middle tells nothing.
            Err(Fault::Malformed { .. } | Fault::Rewritten { .. }) => return,
            Err(Fault::Absent) => judged.iter().for_each(|&column| self.notes.absent(&self.paths[column])),
            Ok(()) | Err(Fault::Misfit { .. }) => {}
        }
        self.notes.unknown(payload, self.slots.unknown());
    }

    fn reason(&self, fault: &Fault, judged: Option<usize>) -> Reason {
        let column = judged.map(|column| self.paths[column].as_slice());
        let retyped = match fault {
            Fault::Malformed { .. } | Fault::Absent => None,
            Fault::Rewritten { path, .. } => Some((column.unwrap_or(path), None)),
            Fault::Misfit { value, .. } => column.map(|path| (path, Some(value.clone()))),
        };
        let retyped = retyped.map(|(path, example)| Box::new(Retyped { path: FieldPath::of(path), example }));
        Reason { text: fault.reason(judged.map(|column| self.names[column].as_str())), retyped }
    }
}

impl BatchReader for ProtobufReader {
    fn read(&mut self, records: &Records, wanted: &dyn Fn(usize) -> bool) -> Result<ReadBatch> {
        let (mut record_of, mut errors) = (vec![], vec![]);
        for (at, record) in records.iter().enumerate() {
            let (Some(bytes), Some((base, _)), true) = (record.value, record.value_at, wanted(at)) else { continue };
            let payload = Payload { bytes, base: Some(base) };
            let mut judged = None;
            let read = match self.frame.open(bytes) {
                Ok(start) => {
                    let read = self.read_message(&payload, start, &mut judged);
                    self.note(bytes, &read, judged);
                    read.map_err(|fault| self.reason(&fault, judged))
                }
                Err(reason) => Err(reason.into()),
            };
            match read {
                Ok(()) => record_of.push(at as u32),
                Err(reason) => {
                    self.columns.iter_mut().for_each(|column| column.column().truncate(record_of.len()));
                    errors.push(reason.of(at as u32));
                }
            }
        }
        self.slots.shrink();
        let drift = self.notes.take();
        // All columns are emptied, also if one fails, so that the next call begins afresh.
        let columns: Vec<Result<_>> = self.columns.iter_mut().map(|column| column.column().finish(records.bytes())).collect();
        Ok(ReadBatch { columns: columns.into_iter().collect::<Result<_>>()?, record_of, errors, drift })
    }
}
