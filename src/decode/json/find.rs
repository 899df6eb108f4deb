//! Where in an object some values are, before anything is judged: for envelopes, of which only a part is the payload.

use super::{
    check_whole,
    fault::Judged,
    path::{Paths, Rest, Slot},
    scan::{END, Tokens},
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
    tokens: Tokens,
}

impl Finder {
    /// What finds the values at these paths, which are keys with dots between them.
    pub(in crate::decode) fn new(paths: &[&str]) -> Result<Self> {
        let paths: Vec<Vec<String>> = paths.iter().map(|path| path.split('.').map(String::from).collect()).collect();
        let (paths, nodes) = Paths::compile(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(Self { slots: vec![Slot::EMPTY; paths.len()], paths, nodes, tokens: Tokens::default() })
    }

    /// Looks at an object; `Err` is the reason why it is none, or has something behind it.
    pub(in crate::decode) fn look(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.slots.fill(Slot::EMPTY);
        let mut tokens = std::mem::take(&mut self.tokens);
        tokens.list(bytes);
        let payload = Payload::new(bytes, &tokens, 0);
        let result = check_whole(bytes, &tokens).and_then(|()| self.walk(&payload).map_err(|fault| fault.reason(bytes, None)));
        self.tokens = tokens;
        result
    }

    fn walk(&mut self, payload: &Payload<'_>) -> Judged {
        if payload.kind(0) != b'{' {
            return payload.malformed(0, "an object is expected");
        }
        let past = self.paths.walk(payload, 0, 1, Rest::Skipped, &mut self.slots)?;
        match payload.kind(past) {
            END => Ok(()),
            _ => payload.malformed(past, "an object has something after it"),
        }
    }

    /// Where the value at a path is in the object looked at; `None`: nowhere, or it is null.
    pub(in crate::decode) fn found(&self, path: usize, bytes: &[u8]) -> Option<(usize, usize)> {
        let slot = self.slots[self.nodes[path]];
        let payload = Payload::new(bytes, &self.tokens, 0);
        let extent = slot.is_set().then(|| (payload.place(slot.first as usize), payload.end_before(slot.past as usize)))?;
        (&bytes[extent.0..extent.1] != b"null").then_some(extent)
    }
}
