//! The settings of one session: `SET tidegate.name = value`, `SHOW tidegate.name`, Flight's session options.

use std::time::Duration;

use tidegate_kernels::device::Device;

use super::{engine_options::EngineOptions, system::Setting};
use crate::{
    device::Devices,
    error::{Error, Result},
    sql,
};

/// The setting that chooses where operators run.
pub(super) const DEVICE: &str = "tidegate.device";
const STREAM_MAX_ROWS: &str = "tidegate.stream_max_rows";
const ENDPOINTS: &str = "tidegate.endpoints";
const COMPRESSION: &str = "tidegate.compression";
const STATEMENT_TIMEOUT: &str = "tidegate.statement_timeout";
const STREAM_TIMEOUT: &str = "tidegate.stream_timeout";

/// What a setting is unset with, besides its default.
const NONE: &str = "none";

/// What a setting is set to that is to be as the server's configuration says.
const SERVER: &str = "server";

/// More streams than this for one result are no help to anybody.
const MAX_ENDPOINTS: u16 = 64;

/// How results travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// How many streams a result that can be divided comes in.
    pub endpoints: u16,
    /// What the columns are compressed with.
    pub compression: Compression,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { endpoints: 1, compression: Compression::None }
    }
}

/// What Arrow's clients know of compression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are: the quickest on one machine or a fast network.
    #[default]
    None,
    /// Quick.
    Lz4,
    /// Small.
    Zstd,
}

impl Compression {
    const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    fn name(self) -> &'static str {
        match self {
            Self::None => NONE,
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// One session's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where operators run.
    pub device: Device,
    /// How results travel.
    pub delivery: Delivery,
    /// Queries end with an error after so long, or never; `None`: as the server's configuration says.
    pub statement_timeout: Option<Option<Duration>>,
    /// Subscriptions end after so many rows, unless they say otherwise.
    pub stream_max_rows: Option<usize>,
    /// Subscriptions end after so long, unless they say otherwise.
    pub stream_timeout: Option<Duration>,
    /// What it has set of the engine's own options.
    pub engine: EngineOptions,
}

impl Settings {
    /// Sets one of them.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let is_none = value.eq_ignore_ascii_case(NONE);
        match name {
            DEVICE => self.device = value.parse().map_err(|e| Error::Invalid(format!("{e}")))?,
            ENDPOINTS => {
                let count = value.parse().ok().filter(|count| (1..=MAX_ENDPOINTS).contains(count));
                self.delivery.endpoints = count.ok_or_else(|| Error::Invalid(format!("{name} is a number from 1 to {MAX_ENDPOINTS}, not '{value}'")))?;
            }
            COMPRESSION => {
                let known = Compression::ALL.into_iter().find(|known| value.eq_ignore_ascii_case(known.name()));
                self.delivery.compression = known.ok_or_else(|| Error::Invalid(format!("{name} is 'none', 'lz4' or 'zstd', not '{value}'")))?;
            }
            STREAM_MAX_ROWS if is_none => self.stream_max_rows = None,
            STREAM_MAX_ROWS => {
                let rows = value.parse().ok().filter(|rows| *rows > 0);
                self.stream_max_rows = Some(rows.ok_or_else(|| Error::Invalid(format!("{name} is a number of rows from 1, or '{NONE}', not '{value}'")))?);
            }
            STATEMENT_TIMEOUT if is_none => self.statement_timeout = Some(None),
            STATEMENT_TIMEOUT if value.eq_ignore_ascii_case(SERVER) => self.statement_timeout = None,
            STATEMENT_TIMEOUT => self.statement_timeout = Some(Some(sql::duration_option(name, value)?)),
            STREAM_TIMEOUT if is_none => self.stream_timeout = None,
            STREAM_TIMEOUT => self.stream_timeout = Some(sql::duration_option(name, value)?),
            other => return Err(unknown(other)),
        }
        Ok(())
    }

    /// One of them as text.
    pub(super) fn get(&self, name: &str) -> Result<String> {
        self.list().into_iter().find(|setting| setting.name == name).map(|setting| setting.value).ok_or_else(|| unknown(name))
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<Setting> {
        let rows = |rows: Option<usize>| rows.map_or(NONE.into(), |rows| rows.to_string());
        let length = |length: Option<Duration>| length.map_or(NONE.into(), |length| humantime::format_duration(length).to_string());
        let usual = Self::default();
        vec![
            Setting {
                name: COMPRESSION,
                value: self.delivery.compression.name().into(),
                default: usual.delivery.compression.name().into(),
                description: "what this session's results are compressed with: none, lz4 or zstd",
            },
            Setting {
                name: DEVICE,
                value: self.device.to_string(),
                default: usual.device.to_string(),
                description: "where this session's operators run: auto, cpu or gpu (SET tidegate.device)",
            },
            Setting {
                name: ENDPOINTS,
                value: self.delivery.endpoints.to_string(),
                default: usual.delivery.endpoints.to_string(),
                description: "in how many streams at once a result of this session can be fetched; one with an order comes in one",
            },
            Setting {
                name: STATEMENT_TIMEOUT,
                value: self.statement_timeout.map_or(SERVER.into(), length),
                default: SERVER.into(),
                description: "this session's queries end with an error after so long; 'server': after the server's statement_timeout",
            },
            Setting {
                name: STREAM_MAX_ROWS,
                value: rows(self.stream_max_rows),
                default: rows(usual.stream_max_rows),
                description: "this session's subscriptions end after so many rows, for tools that read to the end",
            },
            Setting {
                name: STREAM_TIMEOUT,
                value: length(self.stream_timeout),
                default: length(usual.stream_timeout),
                description: "this session's subscriptions end after so long, for tools that read to the end",
            },
        ]
    }
}

/// Says now, in a sentence, and not at the first query, that nothing can run there.
pub(super) async fn check_device(device: Device) -> Result<()> {
    match device {
        Device::Auto | Device::Cpu => Ok(()),
        Device::Gpu => {
            let opened = super::engine::blocking(|| Devices::get().gpu()).await?;
            opened.map(|_| ()).map_err(|reason| Error::Invalid(format!("device = 'gpu', but {reason}; 'auto' and 'cpu' work without a GPU")))
        }
    }
}

fn unknown(name: &str) -> Error {
    let known: Vec<&str> = Settings::default().list().into_iter().map(|setting| setting.name).collect();
    Error::NotFound(format!("there is no setting {name}; there are {}", known.join(", ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn they_are_set_and_read_back_by_name() {
        let mut settings = Settings::default();
        for (name, value, shown) in [
            (STREAM_MAX_ROWS, "200", "200"),
            (STREAM_TIMEOUT, "5 seconds", "5s"),
            (STATEMENT_TIMEOUT, "none", "none"),
            (STATEMENT_TIMEOUT, "1 minute", "1m"),
            (STATEMENT_TIMEOUT, "server", "server"),
            (DEVICE, "cpu", "cpu"),
            (ENDPOINTS, "4", "4"),
            (COMPRESSION, "LZ4", "lz4"),
            (COMPRESSION, "none", "none"),
        ] {
            settings.set(name, value).unwrap();
            assert_eq!(settings.get(name).unwrap(), shown);
        }
        for name in [STREAM_MAX_ROWS, STREAM_TIMEOUT] {
            settings.set(name, "NONE").unwrap();
            assert_eq!(settings.get(name).unwrap(), "none");
        }
        for (name, value, sentence) in [
            (STREAM_MAX_ROWS, "0", "from 1"),
            (STREAM_TIMEOUT, "soon", "tidegate.stream_timeout"),
            (DEVICE, "fpga", "fpga"),
            (ENDPOINTS, "0", "from 1 to 64"),
            (ENDPOINTS, "many", "from 1 to 64"),
            (COMPRESSION, "gzip", "'lz4'"),
            (
                "tidegate.colour",
                "red",
                "there are tidegate.compression, tidegate.device, tidegate.endpoints, tidegate.statement_timeout, tidegate.stream_max_rows",
            ),
        ] {
            let error = settings.set(name, value).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error}");
        }
    }
}
