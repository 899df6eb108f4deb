//! Where in an object some values are, before anything is judged: for envelopes, of which only a part is the payload.

use super::{
    check_whole,
    fault::{Judged, malformed},
    path::{Paths, Rest, Slot},
    scan::Index,
    value::Payload,
};
use crate::error::Result;

/// Finds the values at some paths.
#[derive(Debug)]
pub(in crate::decode) struct Finder {
    paths: Paths,
    /// For each path its node.
    nodes: Vec<usize>,
    slots: Vec<Slot>,
    index: Index,
}

impl Finder {
    /// What finds the values at these paths, which are keys with dots between them.
    pub(in crate::decode) fn new(paths: &[&str]) -> Result<Self> {
        let paths: Vec<Vec<String>> = paths.iter().map(|path| path.split('.').map(String::from).collect()).collect();
        let (paths, nodes) = Paths::compile(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(Self { slots: vec![Slot::EMPTY; paths.len()], paths, nodes, index: Index::default() })
    }

    /// Looks at an object; `Err` is the reason why it is none, or has something behind it.
    pub(in crate::decode) fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.slots.fill(Slot::EMPTY);
        let mut index = std::mem::take(&mut self.index);
        index.mark(bytes);
        let payload = Payload { bytes, index: &index, base: 0 };
        let result = check_whole(&payload).and_then(|()| self.walk(&payload).map_err(|fault| fault.reason(bytes, None)));
        self.index = index;
        result
    }

    fn walk(&mut self, payload: &Payload<'_>) -> Judged {
        let open = payload.blank(0);
        if payload.at(open) != b'{' {
            return malformed(open, "an object is expected");
        }
        let end = self.paths.walk(payload, open, 1, Rest::Skipped, &mut self.slots)?;
        match payload.blank(end) {
            end if end == payload.bytes.len() => Ok(()),
            end => malformed(end, "an object has something after it"),
        }
    }

    /// Where the value at a path is; `None`: nowhere, or it is null.
    pub(in crate::decode) fn found(&self, path: usize, bytes: &[u8]) -> Option<(usize, usize)> {
        let slot = self.slots[self.nodes[path]];
        let extent = slot.is_set().then_some((slot.start as usize, slot.end as usize))?;
        (&bytes[extent.0..extent.1] != b"null").then_some(extent)
    }
}
