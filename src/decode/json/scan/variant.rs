//! Which instructions tokens are listed with.

use std::sync::LazyLock;

#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{State, Tokens, list_portable};

/// Lists tokens with certain instructions. Outside this module there are only variants that the processor can run.
#[derive(Debug)]
pub(super) struct Variant {
    /// What the instructions are called.
    pub(super) name: &'static str,
    /// Whether the processor has them.
    available: fn() -> bool,
    /// Needs them.
    list: unsafe fn(&mut Tokens, &[u8]) -> State,
}

/// The best come first.
static FASTER: &[Variant] = &[
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", available: x86::has_avx512, list: x86::list_avx512 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", available: x86::has_avx2, list: x86::list_avx2 },
    #[cfg(target_arch = "aarch64")]
    Variant { name: "neon", available: neon::has_neon, list: neon::list_neon },
];

/// A byte at a time, on any processor.
static PORTABLE: Variant = Variant { name: "portable", available: || true, list: list_portable };

static BEST: LazyLock<&Variant> = LazyLock::new(|| Variant::available().next().unwrap_or(&PORTABLE));

impl Variant {
    /// Those that the processor can run, the best first.
    pub(super) fn available() -> impl Iterator<Item = &'static Self> {
        FASTER.iter().chain([&PORTABLE]).filter(|variant| (variant.available)())
    }

    /// The best that the processor can run.
    #[inline]
    pub(super) fn best() -> &'static Self {
        *BEST
    }

    /// Appends a payload's tokens to the list.
    #[inline]
    pub(super) fn list(&self, tokens: &mut Tokens, payload: &[u8]) -> State {
        // SAFETY: the processor has the instructions: others asked for it before they got the variant.
        unsafe { (self.list)(tokens, payload) }
    }
}
