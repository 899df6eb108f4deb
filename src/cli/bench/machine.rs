//! What a benchmark ran on: figures of two machines are not to be compared.

use std::fs;

use serde::Serialize;

use crate::decode;

/// The machine and the build.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// The processor's name, as far as the system tells.
    cpu: String,
    /// Cores that this process may use.
    cores: usize,
    /// The instructions that the JSON decoder chose when it started.
    simd: &'static str,
    /// The instructions that the compiler could count on. Readers that don't choose at run time (sonic-rs) have these alone.
    compiled_for: &'static str,
    /// Main memory, if the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    os: String,
    /// `release`, or `debug`: figures of that are worth nothing.
    build: &'static str,
    version: &'static str,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        let compiled_for = match () {
            () if cfg!(target_feature = "avx512bw") => "avx512",
            () if cfg!(target_feature = "avx2") => "avx2",
            () => std::env::consts::ARCH,
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: value_of("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cores: cores(),
            simd: decode::instructions(),
            compiled_for,
            memory_bytes: bytes_of("/proc/meminfo", "MemTotal"),
            os: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().into(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, simd, compiled_for, memory_bytes, os, build, version } = self;
        write!(f, "{cpu}, {cores} cores, {simd}")?;
        if let Some(bytes) = memory_bytes {
            write!(f, ", {:.1} GiB", *bytes as f64 / f64::from(1 << 30))?;
        }
        write!(f, ", {os}; tidegate {version}, {build} build for {compiled_for}")
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// The amount behind a name in a file of `name: value kB` lines; `None`: the system does not tell.
pub(super) fn bytes_of(file: &str, name: &str) -> Option<u64> {
    Some(value_of(file, name)?.strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The value behind a name in a file of `name: value` lines.
fn value_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let values = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| key.trim() == name);
    values.map(|(_, value)| value.trim().to_string()).next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told() {
        let machine = serde_json::to_value(Machine::this()).unwrap();
        assert!(machine["cores"].as_u64() > Some(0) && machine["version"] == env!("CARGO_PKG_VERSION"), "{machine}");
        assert!(["avx512", "avx2", "neon", "portable"].contains(&machine["simd"].as_str().unwrap()), "{machine}");
        #[cfg(target_os = "linux")]
        assert!(machine["memory_bytes"].as_u64() > Some(1 << 20), "{machine}");
    }
}
