//! One body, chosen by TIDEGATE_FUZZ_BODY: `TIDEGATE_FUZZ_BODY=sql cargo fuzz run all`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[path = "../bodies.rs"]
mod bodies;

static BODY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let names = || bodies::BODIES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    let wanted = std::env::var("TIDEGATE_FUZZ_BODY").unwrap_or_default();
    let found = bodies::BODIES.iter().find(|(name, ..)| *name == wanted);
    found.unwrap_or_else(|| panic!("TIDEGATE_FUZZ_BODY names none of {}", names())).1
});

fuzz_target!(|bytes: &[u8]| BODY(bytes));
