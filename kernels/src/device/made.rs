//! Kernels that are made at run time: compiled for the device where they are asked for, loaded once, and a bounded number of them kept.

use std::{
    ffi::CString,
    sync::{Arc, mpsc::Sender},
};

use super::{
    DeviceError,
    image::{Images, MakeError, Text},
    worker::Request,
};

/// A kernel that was made at run time and is loaded. Copies are handles of the same one; while there is one, it stays loaded.
#[derive(Debug, Clone)]
pub struct MadeKernel(Arc<Loaded>);

#[derive(Debug)]
struct Loaded {
    /// What the device's thread knows it by.
    number: u64,
    /// Which opening of a device it is on.
    opening: u64,
}

impl MadeKernel {
    /// What the device's thread knows it by, if it is on the device that was opened as `opening`.
    pub(super) fn number(&self, opening: u64) -> Option<u64> {
        (self.0.opening == opening).then_some(self.0.number)
    }
}

/// The kernels that an open device has, and how often one was asked for.
#[derive(Debug, Default)]
pub(super) struct MadeKernels {
    kept: Vec<Kept>,
    asked: u64,
}

#[derive(Debug)]
struct Kept {
    text: String,
    name: CString,
    kernel: MadeKernel,
    /// The number of the last time that it was asked for.
    asked: u64,
}

/// The device that kernels are made for.
pub(super) struct Maker<'a> {
    pub(super) ordinal: usize,
    pub(super) opening: u64,
    pub(super) requests: &'a Sender<Request>,
    pub(super) most: usize,
}

impl MadeKernels {
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// A kernel that is loaded already.
    pub(super) fn find(&mut self, text: &str, name: &CString) -> Option<MadeKernel> {
        self.asked += 1;
        let kept = self.kept.iter_mut().find(|kept| kept.text == text && kept.name == *name)?;
        kept.asked = self.asked;
        Some(kept.kernel.clone())
    }

    /// Compiles and loads a kernel.
    pub(super) fn make(&mut self, maker: &Maker<'_>, images: &Images<'_>, text: &Text<'_>, name: CString) -> Result<MadeKernel, DeviceError> {
        let ordinal = maker.ordinal;
        let fault = |error: MakeError| match error {
            MakeError::NoCompiler(reason) => DeviceError::NoCompiler { ordinal, reason },
            MakeError::Refused(reason) => DeviceError::Kernels { ordinal, reason },
        };
        self.make_room(maker)?;
        let mut image = images.make(text).map_err(fault)?;
        let number = loop {
            let bytes = std::mem::take(&mut image.bytes);
            match maker.ask(|reply| Request::Load { image: bytes, name: name.clone(), reply }) {
                Err(DeviceError::Kernels { reason, .. }) => image = images.make_instead(text, image, reason).map_err(fault)?,
                loaded => break loaded?,
            }
        };
        let kernel = MadeKernel(Arc::new(Loaded { number, opening: maker.opening }));
        self.kept.push(Kept { text: text.text.into(), name, kernel: kernel.clone(), asked: self.asked });
        Ok(kernel)
    }

    /// Gives up, if as many are kept as may be, the one of those that nobody has which was asked for longest ago. (Who has one has it in
    /// a plan, too, as long as that is under way.)
    fn make_room(&mut self, maker: &Maker<'_>) -> Result<(), DeviceError> {
        while self.kept.len() >= maker.most.max(1) {
            let unused = self.kept.iter().enumerate().filter(|(_, kept)| Arc::strong_count(&kept.kernel.0) == 1);
            let oldest = unused.min_by_key(|(_, kept)| kept.asked).map(|(at, _)| at);
            let oldest = oldest.ok_or(DeviceError::TooManyKernels { ordinal: maker.ordinal, most: maker.most })?;
            let number = self.kept.swap_remove(oldest).kernel.0.number;
            maker.requests.send(Request::Unload(number)).map_err(|_| DeviceError::Ended(maker.ordinal))?;
        }
        Ok(())
    }
}

impl Maker<'_> {
    fn ask<T>(&self, request: impl FnOnce(Sender<Result<T, DeviceError>>) -> Request) -> Result<T, DeviceError> {
        let (reply, receiver) = std::sync::mpsc::channel();
        self.requests.send(request(reply)).map_err(|_| DeviceError::Ended(self.ordinal))?;
        receiver.recv().map_err(|_| DeviceError::Ended(self.ordinal))?
    }
}
