//! Protobuf's wire format: a run of fields, each a number, a wire type and a value. What a field means is not known here.
//!
//! Everything is held to the structure: varints end within ten bytes, lengths stay within what is around them, groups are closed by
//! their own number, and nest no deeper than [`MAX_DEPTH`]. Nothing is copied: a value is a number, or a place in the payload.

use super::fault::{Judged, malformed};

/// How deep messages and groups may nest, as other readers bound it.
pub(super) const MAX_DEPTH: usize = 100;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireType {
    Varint,
    Fixed64,
    Bytes,
    Group,
    Fixed32,
}

/// A field's value as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Between these places of the payload.
    Bytes(u32, u32),
    /// The fields between these places of the payload.
    Group(u32, u32),
}

impl Raw {
    /// How it is written.
    #[inline]
    pub(super) fn wire_type(self) -> WireType {
        match self {
            Raw::Varint(_) => WireType::Varint,
            Raw::Fixed64(_) => WireType::Fixed64,
            Raw::Fixed32(_) => WireType::Fixed32,
            Raw::Bytes(..) => WireType::Bytes,
            Raw::Group(..) => WireType::Group,
        }
    }

    /// Its extent, where it is a run of bytes.
    #[inline]
    pub(super) fn extent(self) -> Option<(usize, usize)> {
        match self {
            Raw::Bytes(start, end) | Raw::Group(start, end) => Some((start as usize, end as usize)),
            _ => None,
        }
    }
}

/// Reads what lies between two places of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<'a> {
    bytes: &'a [u8],
    /// Where reading goes on.
    at: usize,
    /// Where it ends.
    end: usize,
}

impl<'a> Wire<'a> {
    /// A reader of `bytes[start..end]`; the places that it gives are those in `bytes`.
    pub(super) fn new(bytes: &'a [u8], start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= bytes.len());
        Self { bytes, at: start, end }
    }

    /// Whether everything has been read.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.end
    }

    /// Where reading goes on.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next field: its number and value.
    #[inline]
    pub(super) fn field(&mut self) -> Judged<Option<(u32, Raw)>> {
        if self.is_done() {
            return Ok(None);
        }
        let at = self.at;
        let (number, wire_type) = self.tag()?;
        if wire_type == 4 {
            return malformed(at, "a group ends that has not begun");
        }
        Ok(Some((number, self.value(number, wire_type)?)))
    }

    /// The next value of a packed field.
    #[inline]
    pub(super) fn packed(&mut self, wire_type: WireType) -> Judged<Option<Raw>> {
        if self.is_done() {
            return Ok(None);
        }
        let at = self.at;
        Ok(Some(match wire_type {
            WireType::Varint => Raw::Varint(self.varint()?),
            WireType::Fixed64 => Raw::Fixed64(self.fixed64()?),
            WireType::Fixed32 => Raw::Fixed32(self.fixed32()?),
            WireType::Bytes | WireType::Group => return malformed(at, "such values can't be packed"),
        }))
    }

    fn tag(&mut self) -> Judged<(u32, u8)> {
        let at = self.at;
        let tag = self.varint()?;
        // Field numbers have 29 bits.
        let Ok(tag) = u32::try_from(tag) else {
            return malformed(at, "a field's number is beyond all numbers");
        };
        if tag >> 3 == 0 {
            return malformed(at, "a field has the number 0");
        }
        Ok((tag >> 3, (tag & 7) as u8))
    }

    #[inline]
    fn value(&mut self, number: u32, wire_type: u8) -> Judged<Raw> {
        let at = self.at;
        Ok(match wire_type {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(self.fixed64()?),
            2 => {
                let (start, end) = self.bytes()?;
                Raw::Bytes(start as u32, end as u32)
            }
            3 => {
                let end = self.skip_group(number)?;
                Raw::Group(at as u32, end as u32)
            }
            5 => Raw::Fixed32(self.fixed32()?),
            _ => return malformed(at, "a field has a wire type that there is none of"),
        })
    }

    /// Moves behind the end of the group that has begun; where its fields end.
    fn skip_group(&mut self, number: u32) -> Judged<usize> {
        let begun = self.at;
        let mut open = vec![number];
        loop {
            let at = self.at;
            if self.is_done() {
                return malformed(begun, "a group is not closed");
            }
            let (number, wire_type) = self.tag()?;
            match wire_type {
                3 => {
                    if open.len() >= MAX_DEPTH {
                        return malformed(at, "messages nest more than 100 deep");
                    }
                    open.push(number);
                }
                4 => {
                    if open.pop() != Some(number) {
                        return malformed(at, "a group is closed by another's number");
                    }
                    if open.is_empty() {
                        return Ok(at);
                    }
                }
                _ => {
                    self.value(number, wire_type)?;
                }
            }
        }
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow. At most ten bytes.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Judged<u64> {
        match self.bytes[..self.end].get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Judged<u64> {
        let rest = &self.bytes[self.at..self.end];
        let mut value = 0u64;
        for (position, &byte) in rest.iter().take(10).enumerate() {
            // The tenth byte has room for one bit alone; others lose what is above, as other readers do.
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * position as u32);
            if byte < 0x80 {
                if position == 9 && byte > 1 {
                    break;
                }
                self.at += position + 1;
                return Ok(value);
            }
        }
        malformed(self.at, if rest.len() < 10 { "a number is cut off" } else { "a number is longer than 64 bits" })
    }

    fn fixed64(&mut self) -> Judged<u64> {
        match self.bytes[self.at..self.end].first_chunk() {
            Some(bytes) => {
                self.at += 8;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => malformed(self.at, "a number of 8 bytes is cut off"),
        }
    }

    fn fixed32(&mut self) -> Judged<u32> {
        match self.bytes[self.at..self.end].first_chunk() {
            Some(bytes) => {
                self.at += 4;
                Ok(u32::from_le_bytes(*bytes))
            }
            None => malformed(self.at, "a number of 4 bytes is cut off"),
        }
    }

    /// A length, and so many bytes: where they lie.
    #[inline]
    fn bytes(&mut self) -> Judged<(usize, usize)> {
        let at = self.at;
        let length = self.varint()?;
        let start = self.at;
        if length > (self.end - start) as u64 {
            return malformed(at, "a length reaches beyond the end of what it is in");
        }
        self.at = start + length as usize;
        Ok((start, self.at))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> Result<Vec<(u32, Raw)>, String> {
        let mut wire = Wire::new(bytes, 0, bytes.len());
        let mut fields = vec![];
        loop {
            match wire.field() {
                Ok(Some(field)) => fields.push(field),
                Ok(None) => return Ok(fields),
                Err(fault) => return Err(fault.reason(None)),
            }
        }
    }

    #[test]
    fn fields_of_each_wire_type() {
        let bytes = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, b'h', b'i', 0x23, 0x28, 7, 0x24, 0x35, 2, 0, 0, 0];
        let expected = [(1, Raw::Varint(150)), (2, Raw::Fixed64(1)), (3, Raw::Bytes(14, 16)), (4, Raw::Group(17, 19)), (6, Raw::Fixed32(2))];
        assert_eq!(fields(&bytes).unwrap(), expected);
        assert_eq!(fields(&[]).unwrap(), []);
        let longest = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(fields(&longest).unwrap(), [(1, Raw::Varint(u64::MAX))]);
    }

    #[test]
    fn what_is_broken_says_where() {
        let nested = [0x0b; 101];
        let cases: [(&[u8], &str); 14] = [
            (&[0x08], "byte 1: a number is cut off"),
            (&[0x08, 0x80], "byte 1: a number is cut off"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "byte 1: a number is longer than 64 bits"),
            (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "byte 1: a number is longer than 64 bits"),
            (&[0x09, 1, 2], "byte 1: a number of 8 bytes is cut off"),
            (&[0x0d, 1, 2], "byte 1: a number of 4 bytes is cut off"),
            (&[0x08, 1, 0x0a, 5, b'x'], "byte 3: a length reaches beyond the end"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "byte 1: a length reaches beyond the end"),
            (&[0x00, 1], "byte 0: a field has the number 0"),
            (&[0x0e, 1], "byte 1: a field has a wire type that there is none of"),
            (&[0x0c], "byte 0: a group ends that has not begun"),
            (&[0x0b, 0x08, 1], "byte 1: a group is not closed"),
            (&[0x0b, 0x14], "byte 1: a group is closed by another's number"),
            (&nested, "byte 100: messages nest more than 100 deep"),
        ];
        for (bytes, expected) in cases {
            let reason = fields(bytes).unwrap_err();
            assert!(reason.contains(expected), "{bytes:x?}: {reason}");
        }
    }

    #[test]
    fn packed_values() {
        let bytes = [1, 0x96, 0x01, 3];
        let mut wire = Wire::new(&bytes, 0, 4);
        let mut all = vec![];
        while let Some(raw) = wire.packed(WireType::Varint).unwrap() {
            all.push(raw);
        }
        assert_eq!(all, [Raw::Varint(1), Raw::Varint(150), Raw::Varint(3)]);
        assert!(Wire::new(&bytes, 0, 4).packed(WireType::Fixed64).is_err());
    }
}
