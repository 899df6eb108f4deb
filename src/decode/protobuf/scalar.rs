//! The kinds of fields that are no messages, and what their values mean.

use prost_reflect::{EnumDescriptor, Kind};

use super::{
    column::Payload,
    fault::{Judged, malformed, misfit},
    wire::{Raw, WireType},
};

/// A kind of field that is no message.
#[derive(Debug, Clone)]
pub(super) enum Scalar {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    Float,
    Double,
    String,
    Bytes,
    Enum(EnumDescriptor),
}

impl Scalar {
    /// What a field's kind is, unless it is a message.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::Int32 => Scalar::Int32,
            Kind::Int64 => Scalar::Int64,
            Kind::Uint32 => Scalar::Uint32,
            Kind::Uint64 => Scalar::Uint64,
            Kind::Sint32 => Scalar::Sint32,
            Kind::Sint64 => Scalar::Sint64,
            Kind::Fixed32 => Scalar::Fixed32,
            Kind::Fixed64 => Scalar::Fixed64,
            Kind::Sfixed32 => Scalar::Sfixed32,
            Kind::Sfixed64 => Scalar::Sfixed64,
            Kind::Bool => Scalar::Bool,
            Kind::Float => Scalar::Float,
            Kind::Double => Scalar::Double,
            Kind::String => Scalar::String,
            Kind::Bytes => Scalar::Bytes,
            Kind::Enum(kind) => Scalar::Enum(kind.clone()),
            Kind::Message(_) => return None,
        })
    }

    /// Whether it is a whole number; enums are.
    pub(super) fn is_integer(&self) -> bool {
        !matches!(self, Scalar::Bool | Scalar::Float | Scalar::Double | Scalar::String | Scalar::Bytes)
    }

    /// An integer's value; what doesn't fit 32 bits is cut to them, as the format says.
    #[inline]
    pub(super) fn integer(&self, raw: Raw) -> Option<i128> {
        Some(match (self, raw) {
            (Scalar::Int32 | Scalar::Enum(_), Raw::Varint(value)) => (value as i32).into(),
            (Scalar::Int64, Raw::Varint(value)) => (value as i64).into(),
            (Scalar::Uint32, Raw::Varint(value)) => (value as u32).into(),
            (Scalar::Uint64, Raw::Varint(value)) => value.into(),
            (Scalar::Sint32, Raw::Varint(value)) => {
                let value = value as u32;
                ((value >> 1) as i32 ^ -((value & 1) as i32)).into()
            }
            (Scalar::Sint64, Raw::Varint(value)) => ((value >> 1) as i64 ^ -((value & 1) as i64)).into(),
            (Scalar::Bool, Raw::Varint(value)) => (value != 0).into(),
            (Scalar::Fixed32, Raw::Fixed32(value)) => value.into(),
            (Scalar::Sfixed32, Raw::Fixed32(value)) => (value as i32).into(),
            (Scalar::Fixed64, Raw::Fixed64(value)) => value.into(),
            (Scalar::Sfixed64, Raw::Fixed64(value)) => (value as i64).into(),
            _ => return None,
        })
    }

    /// A number as a double: exactly, or the nearest one to an integer.
    #[inline]
    pub(super) fn double(&self, raw: Raw) -> Option<f64> {
        match (self, raw) {
            (Scalar::Double, Raw::Fixed64(bits)) => Some(f64::from_bits(bits)),
            (Scalar::Float, Raw::Fixed32(bits)) => Some(f32::from_bits(bits).into()),
            _ => self.integer(raw).map(|value| value as f64),
        }
    }

    /// A number as a float: the nearest one; none if it is beyond all floats.
    #[inline]
    pub(super) fn float(&self, raw: Raw) -> Option<f32> {
        match (self, raw) {
            (Scalar::Float, Raw::Fixed32(bits)) => Some(f32::from_bits(bits)),
            (Scalar::Double, Raw::Fixed64(bits)) => {
                let value = f64::from_bits(bits);
                let nearest = value as f32;
                (nearest.is_finite() || !value.is_finite()).then_some(nearest)
            }
            _ => self.integer(raw).map(|value| value as f32),
        }
    }

    /// How such values are written.
    pub(super) fn wire_type(&self) -> WireType {
        match self {
            Scalar::Double | Scalar::Fixed64 | Scalar::Sfixed64 => WireType::Fixed64,
            Scalar::Float | Scalar::Fixed32 | Scalar::Sfixed32 => WireType::Fixed32,
            Scalar::String | Scalar::Bytes => WireType::Bytes,
            _ => WireType::Varint,
        }
    }

    /// A value as it can stand in a sentence.
    #[cold]
    pub(super) fn shown(&self, payload: &Payload<'_>, raw: Raw) -> String {
        match self {
            Scalar::String => raw.extent().map_or_else(String::new, |(start, end)| format!("{:?}", String::from_utf8_lossy(&payload.bytes[start..end]))),
            Scalar::Bytes => "bytes".into(),
            Scalar::Bool => self.integer(raw).map_or_else(String::new, |value| (value != 0).to_string()),
            Scalar::Float => self.float(raw).map_or_else(String::new, |value| written(value.into(), serde_json::to_string(&value))),
            Scalar::Double => self.double(raw).map_or_else(String::new, |value| written(value, serde_json::to_string(&value))),
            _ => self.integer(raw).map_or_else(String::new, |value| value.to_string()),
        }
    }
}

/// The text of a field, held to UTF-8.
#[inline]
pub(super) fn utf8<'a>(payload: &Payload<'a>, raw: Raw) -> Judged<&'a str> {
    let Some((start, end)) = raw.extent() else { return misfit("a number", "text".into()) };
    match simdutf8::compat::from_utf8(&payload.bytes[start..end]) {
        Ok(text) => Ok(text),
        Err(error) => malformed(start + error.valid_up_to(), "text is not valid UTF-8"),
    }
}

/// A floating number as the engine writes one.
fn written(value: f64, finite: serde_json::Result<String>) -> String {
    match finite {
        Ok(text) if value.is_finite() => text,
        _ => value.to_string(),
    }
}
