//! JSON objects into columns, for the rows that are of the plain kind; the others are named, with why, and left to the caller's decoder.
//!
//! A row is decoded only if
//!
//! * it is one object with nothing but white space around it, in valid UTF-8;
//! * on declared paths keys come without escapes and none twice, and each declared value is `null` or of its column's type:
//!   [`Type::Boolean`] `true` and `false`; [`Type::Int64`] and the smaller integers without point or exponent and in range; [`Type::Float64`]
//!   numbers, rounded to the nearest; [`Type::Text`] strings without escapes, and numbers and booleans as they are written;
//!   [`Type::Timestamp`] RFC 3339 text that needs no rounding to the unit; [`Type::Raw`] anything that has the structure of a value;
//! * of all else the structure is right: strings are closed, brackets balance and match and nest at most 64 deep, and no backslash stands
//!   outside strings.
//!
//! Beside columns it can be told which keys a row has, those declared and others that are noted, and rows with other keys, or with something
//! else than objects on a declared path, can be left ([`Notes`]).
//!
//! This is a part of what Tidegate's decoder accepts, with the same values. What isn't decoded may be good or bad: the caller's decoder
//! judges it, so that a row's fate doesn't depend on the device.
//!
//! [`decode`] is the reference; [`DeviceDecoder`] does the same on a device.

mod columns;
mod decimal;
mod device;
mod reference;
mod schema;
mod time;

pub use self::{
    columns::{Cells, Column, Decoded, Status},
    device::{CellsInPlace, Decoding, DeviceDecoder, InPlace, Rows},
    reference::decode,
    schema::{Declared, Notes, Schema, SchemaFault, SeenBit, Type, Unit},
};
