//! Processes beside the benchmark's own, so that what it measures of itself is the server's alone.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use super::machine::bytes_of;

/// This program once more, which ends with this value.
pub(super) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts it with these arguments, to say nothing.
    pub(super) fn silent(arguments: &[&str]) -> anyhow::Result<Self> {
        Ok(Self(Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }

    /// Starts it with these arguments; and the lines that it prints.
    pub(super) fn heard(arguments: &[&str]) -> anyhow::Result<(Self, std::io::Lines<BufReader<ChildStdout>>)> {
        let mut child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take();
        let process = Self(child);
        Ok((process, BufReader::new(out.ok_or_else(|| anyhow::anyhow!("{arguments:?} has no output"))?).lines()))
    }

    /// The embedded broker with these topics, given as names and numbers of partitions; and where it listens.
    pub(super) fn broker(topics: &[(String, i32)]) -> anyhow::Result<(Self, String)> {
        let topics: Vec<String> = topics.iter().map(|(name, partitions)| format!("{name}:{partitions}")).collect();
        let arguments: Vec<&str> = std::iter::once("broker").chain(topics.iter().flat_map(|topic| ["--topic", topic])).collect();
        let (process, mut lines) = Self::heard(&arguments)?;
        let line = lines.next().ok_or_else(|| anyhow::anyhow!("the broker said nothing"))??;
        Ok((process, line.trim_start_matches("bootstrap.servers=").into()))
    }

    /// Simulated match events at a steady rate for some seconds. Each is sent as soon as it is made: the producer does not wait for others to go with it.
    pub(super) fn events(brokers: &str, topic: &str, rate: u32, seconds: u64) -> anyhow::Result<Self> {
        let (rate, time) = (rate.to_string(), format!("{seconds}s"));
        let to = ["simulate", "--brokers", brokers, "--topic", topic, "--rate", &rate, "--for", &time, "-X", "linger.ms=0"];
        Self::silent(&[&to[..], &["--matches", "100000", "--concurrent", "60"]].concat())
    }
}

/// The most memory that this process had resident since the last [`forget_peak`], where the system tells.
pub(super) fn peak_bytes() -> Option<u64> {
    bytes_of("/proc/self/status", "VmHWM")
}

pub(super) fn forget_peak() {
    // Where it can't be forgotten, the figure is that of the whole process, and too large.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// CPU time that this process has used.
pub(super) fn cpu_time() -> Duration {
    // Fields 14 and 15 of /proc/self/stat, in ticks of 10 ms; the name before them may hold spaces but ends with a parenthesis.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    Duration::from_millis(fields.iter().sum::<u64>() * 10)
}
