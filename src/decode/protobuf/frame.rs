//! What stands before a message in its payload: nothing, or what a schema registry's serialisers write (a zero byte, the schema's id in four,
//! then which message of the schema it is: a count and so many indexes from the outermost to the innermost, or a zero alone for the first).

use super::wire::Wire;
use crate::{
    catalog::{Framing, ProtobufDef},
    source::framing,
};

/// How deep messages are declared in one another at most.
const DEEPEST: u64 = 100;

/// What is before each message.
#[derive(Debug)]
pub(super) enum Frame {
    None,
    /// A registry's frame, and which message its indexes must name.
    Registry {
        /// From the outermost to the innermost.
        indexes: Vec<u64>,
        /// For sentences.
        message: String,
    },
}

impl Frame {
    /// What a source declares.
    pub(super) fn of(def: &ProtobufDef) -> Self {
        match def.framing() {
            Framing::None => Frame::None,
            Framing::Confluent => Frame::Registry { indexes: def.indexes(), message: def.message().full_name().into() },
        }
    }

    /// Where the message begins, or why the frame can't be read.
    pub(super) fn open(&self, payload: &[u8]) -> Result<usize, String> {
        let Frame::Registry { indexes, message } = self else { return Ok(0) };
        framing::split(payload)?;
        let mut wire = Wire::new(payload, framing::LENGTH, payload.len());
        let mut number = || {
            let value = wire.varint().map_err(|_| "the payload's frame has indexes of a message that are cut off".to_string())?;
            Ok::<u64, String>(value >> 1 ^ (value & 1).wrapping_neg())
        };
        let count = number()?;
        if count > DEEPEST {
            return Err(format!("the payload's frame has {} indexes of a message; more than {DEEPEST} make no sense", count as i64));
        }
        let mut found = vec![];
        for _ in 0..count {
            found.push(number()?);
        }
        if found.is_empty() {
            found.push(0);
        }
        if found != *indexes {
            return Err(format!("the payload is a message with the indexes {found:?} of its schema, and {message} has {indexes:?}"));
        }
        Ok(wire.at())
    }
}
