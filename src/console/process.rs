//! What the operating system says of this process, under the names that Prometheus' own libraries use.

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// The process's resources; what can't be found out is left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    /// CPU time used, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory that is really there, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open files and connections.
    pub open_fds: Option<u64>,
    /// When this was first asked for, in seconds since 1970.
    pub started: f64,
}

static STARTED: LazyLock<f64> = LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));

impl Process {
    /// This process now.
    pub fn now() -> Self {
        Self { cpu_seconds: cpu_seconds(), resident_bytes: resident_bytes(), open_fds: open_fds(), started: *STARTED }
    }
}

fn cpu_seconds() -> Option<f64> {
    // Fields 14 and 15, in ticks of 10 ms (Linux tells every program so); the name before them may hold spaces but ends with a parenthesis.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / 100.0)
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn open_fds() -> Option<u64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}
