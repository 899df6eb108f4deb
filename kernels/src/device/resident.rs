//! What stays on a device between batches: a model's nodes, a schema, a table of constants.

use std::sync::{Arc, mpsc::Sender};

use super::worker::Request;

/// Bytes on a device. They are given up with the last copy of this handle.
#[derive(Debug, Clone)]
pub struct Resident(Arc<Held>);

#[derive(Debug)]
struct Held {
    address: u64,
    len: usize,
    /// Which opening of a device it is on.
    opening: u64,
    requests: Sender<Request>,
    usage: Arc<super::gpu::Usage>,
}

impl Resident {
    pub(super) fn new(address: u64, len: usize, opening: u64, requests: Sender<Request>, usage: Arc<super::gpu::Usage>) -> Self {
        Self(Arc::new(Held { address, len, opening, requests, usage }))
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Its address, if it is on the device that was opened as `opening`.
    pub(super) fn address(&self, opening: u64) -> Option<u64> {
        (self.0.opening == opening).then_some(self.0.address)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.usage.give_back_device(self.len);
        // The thread is there as long as this sender is; if it ended all the same, so did the memory.
        let _ = self.requests.send(Request::Forget(self.address));
    }
}
