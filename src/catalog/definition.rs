//! The plain values that a declaration becomes. They are valid by construction: `sql` is the only place that makes them.

use std::{collections::BTreeMap, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

use tidegate_kernels::device::Device;

use super::{Format, HeaderFilter, Hidden, Link, OptionValue};

/// A declared source: a topic, the columns it is read as, and how its time advances.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceDef {
    /// The table's name, as in SQL (unquoted names are folded to lower case).
    pub name: String,
    /// The declared columns in order.
    pub columns: Vec<ColumnDef>,
    /// What names a row, if the topic is a table; `None`: each record is a row of its own.
    pub key: Option<KeyDef>,
    /// Event time, if the source has any.
    pub watermark: Option<WatermarkDef>,
    /// Where the records come from.
    pub kafka: KafkaDef,
    /// How a payload is read.
    pub format: Format,
    /// Which records are read; `None`: all. The others are neither rows nor errors.
    pub header_filter: Option<HeaderFilter>,
    /// A partition that has been read to its end and stayed silent this long no longer holds the watermark back.
    /// `WITH ('idle.timeout' = '30 seconds')`.
    pub idle_timeout: Duration,
    /// A record whose event time lies further than this after its Kafka timestamp, or after the time at which it is read, is an error row.
    /// `WITH ('max.future.skew' = '1 day')`.
    pub max_future_skew: Duration,
    /// Partitions whose watermark leads the slowest one's by more than this wait while that one has a backlog to read.
    /// `WITH ('max.drift' = '1 hour')`.
    pub max_drift: Duration,
    /// How many rows `<source>$errors` keeps at most (newest win). `WITH ('errors.retention.rows' = '100000')`.
    pub error_rows: usize,
    /// The statement that made it, for `SHOW CREATE` and for the durable catalog.
    pub text: String,
}

impl SourceDef {
    /// The source's columns as an Arrow schema; every column may be NULL.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect::<Vec<_>>()))
    }

    /// The names of the columns that name a row; none unless the source has a `PRIMARY KEY`.
    pub fn key_names(&self) -> Vec<String> {
        self.key.iter().flat_map(|key| &key.columns).map(|&column| self.columns[column].name.clone()).collect()
    }

    /// The position of a column.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

/// `PRIMARY KEY (…)`: the topic is a table. A record replaces the row of its key, one without a payload (a tombstone) deletes it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyDef {
    /// The key's columns as positions in [`SourceDef::columns`], rising; never empty. They are read from the record's key, not its payload.
    pub columns: Vec<usize>,
    /// How a record's key is written.
    pub format: KeyFormat,
}

/// How a record's key is written. `WITH ('key.format' = 'json')`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyFormat {
    /// An object that has the key's columns at their paths; the value alone will do where the key is one column.
    #[default]
    Json,
    /// Text, for a key of one column.
    Text,
    /// As a payload of this format is, of one row.
    As(Format),
}

/// One declared column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// Its Arrow type: TEXT is `Utf8View`, TIMESTAMP is `Timestamp(Nanosecond, None)`, `TIMESTAMP(3|6|9)` the unit it names,
    /// TIMESTAMP WITH TIME ZONE `Timestamp(_, Some("+00:00"))`, `STRUCT<…>` `Struct`, `T ARRAY`/`T[]`/`ARRAY<T>` `List` with item field "item".
    pub data_type: DataType,
    /// Where its value comes from.
    pub origin: Origin,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The payload, at this path of object keys from the top (a column without `PATH` has its own name as the path).
    Payload {
        /// Object keys from the top of the record; never empty.
        path: Vec<String>,
        /// How a timestamp is written; ignored by other types.
        time: TimeFormat,
    },
    /// The record around the payload.
    Metadata(Metadata),
    /// The record's header of this name, the last one if there are several: TEXT (NULL if not UTF-8) or BYTEA (`Binary`).
    Header(String),
    /// What the payload has beside the fields that columns name, as a JSON object; TEXT.
    Unknown,
}

/// What can be known of a record beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// Topic partition; INT or BIGINT.
    Partition,
    /// Offset in the partition; BIGINT.
    Offset,
    /// The record's Kafka timestamp; TIMESTAMP.
    Timestamp,
    /// The record's key; TEXT (NULL if not UTF-8) or BYTEA (`Binary`).
    Key,
    /// Headers as `List<Struct<key Utf8, value Binary>>`.
    Headers,
}

/// How a timestamp is written in the payload.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum TimeFormat {
    /// RFC 3339 text with an offset or `Z`; also accepts a space for the `T`.
    #[default]
    Rfc3339,
    /// ISO 8601 text without offset, in this zone (`TIMEZONE 'Europe/Madrid'`); text that has an offset keeps it.
    Local(chrono_tz::Tz),
    /// A number of seconds since 1970 (fractions allowed). `FORMAT 'epoch_s'`.
    EpochSeconds,
    /// A number of milliseconds since 1970. `FORMAT 'epoch_ms'`.
    EpochMillis,
    /// A number of microseconds since 1970. `FORMAT 'epoch_us'`.
    EpochMicros,
}

/// `WATERMARK FOR column AS column - bound`.
#[derive(Debug, Clone, PartialEq)]
pub struct WatermarkDef {
    /// A declared TIMESTAMP column.
    pub column: String,
    /// How much disorder is expected: the watermark trails the greatest event time by this.
    pub bound: Duration,
}

/// A Kafka topic and how to read it.
#[derive(Clone, PartialEq)]
pub struct KafkaDef {
    /// The topic.
    pub topic: String,
    /// `bootstrap.servers`; empty where a connection says it.
    pub brokers: String,
    /// Where a reader without a checkpoint starts.
    pub startup: Startup,
    /// What is done when records were gone before they were read (`'on.data.loss' = 'fail'`).
    pub on_data_loss: DataLoss,
    /// Further librdkafka properties (`'properties.x' = 'y'` gives `x = y`), checked against those that would break the engine.
    pub properties: BTreeMap<String, String>,
    /// The connection and the secrets that it names.
    pub link: Link,
    /// How fast it is read.
    pub throttle: Throttle,
}

/// How fast a topic is read at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttle {
    /// `'max.records.per.second'`; `None`: as fast as they come.
    pub records: Option<u64>,
    /// `'max.bytes.per.second'`, of payloads and keys.
    pub bytes: Option<u64>,
}

/// A declared connection: brokers and how they are reached, and perhaps a schema registry, for sources and sinks to share.
#[derive(Clone, PartialEq)]
pub struct ConnectionDef {
    /// Its name.
    pub name: String,
    /// `bootstrap.servers`.
    pub brokers: String,
    /// librdkafka properties, checked as those of a source are.
    pub properties: BTreeMap<String, OptionValue>,
    /// `schema.registry.url`, `schema.registry.username`, `schema.registry.password`.
    pub registry: BTreeMap<String, OptionValue>,
    /// All options as they were written, in order.
    pub options: Vec<(String, OptionValue)>,
    /// The statement that declares it.
    pub text: String,
}

/// A declared secret.
#[derive(Clone, PartialEq)]
pub struct SecretDef {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Hidden,
    /// The statement that declares it, value included.
    pub text: String,
}

impl std::fmt::Debug for ConnectionDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionDef").field("name", &self.name).field("brokers", &self.brokers).field("options", &self.options).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SecretDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretDef").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is done when records were gone before they were read: deleted by retention, or with a topic that was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataLoss {
    /// The source is not read any further, and says why.
    #[default]
    Fail,
    /// Reading goes on at the oldest record; what was lost is counted and logged.
    Continue,
}

/// Where a reader without a checkpoint starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Startup {
    /// At the oldest retained record.
    Earliest,
    /// At the end, as it was when the source was created.
    Latest,
    /// At these offsets (`'scan.startup.offsets' = '0:42,1:300'`); partitions not named start at the oldest record.
    Offsets(BTreeMap<i32, i64>),
    /// At the first record whose Kafka timestamp is not before this many milliseconds since 1970
    /// (`'scan.startup.timestamp' = '2024-01-01T00:00:00Z'` or milliseconds).
    Timestamp(i64),
}

/// A declared continuous view.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewDef {
    /// The view's name.
    pub name: String,
    /// The query, as SQL text with window functions in FROM already rewritten (see [`crate::sql`]).
    pub query: String,
    /// When rows are emitted; `None`: the statement did not say, the planner decides.
    pub emit: Option<Emit>,
    /// `WITH (…)`, checked.
    pub options: ViewOptions,
    /// The statement that made it, for `SHOW CREATE` and for the durable catalog.
    pub text: String,
}

/// When a view's rows are emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Each epoch emits what changed.
    Changes,
    /// A window's rows are emitted when the watermark has passed its end, and again where allowed lateness corrects them.
    OnWindowClose,
    /// What changed is emitted together, each time so much wall-clock time has passed.
    Every(Duration),
}

/// `WITH (…)` of a view.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ViewOptions {
    /// `unbounded_state = true`: the user knows that nothing bounds the state.
    pub unbounded_state: bool,
    /// `state_ttl`: what an operator holds and nothing else bounds is forgotten, and what came of it is taken back, when it has not changed for
    /// so long by the clock of the epochs.
    pub state_ttl: Option<Duration>,
    /// `retention`: a row leaves the view so long after it came.
    pub retention: Option<Duration>,
    /// `memory_limit`: the view pauses when it holds more bytes than this.
    pub memory_limit: Option<usize>,
    /// `device`: where the records that it reads are decoded, in place of what the server's setting says.
    pub device: Option<Device>,
    /// `late_rows`: how many rows `<view>$late` keeps at most (newest win); `None` is the default of 100,000.
    pub late_rows: Option<usize>,
    /// `ALLOW LATENESS INTERVAL …`: a window takes rows until the watermark has passed its end by so much.
    pub lateness: Duration,
    /// `CLOSE AFTER INTERVAL …` or `CLOSE NEVER`.
    pub close: Close,
    /// `LATE DATA TO name`: under this name the late rows can be read, beside `<view>$late`.
    pub late_to: Option<String>,
}

/// When open windows close although no watermark has passed them: when the sources have been quiet by the wall clock for so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Close {
    /// The statement did not say: after [`Close::USUAL`], so that a producer that has stopped keeps no window open for ever.
    #[default]
    Usual,
    /// After so long.
    After(Duration),
    /// Only by the watermark.
    Never,
}

impl Close {
    /// Long enough for a producer to be restarted without any of its rows coming late.
    pub const USUAL: Duration = Duration::from_secs(600);

    /// How long the sources must have been quiet; `None`: however long.
    pub fn wait(self) -> Option<Duration> {
        match self {
            Close::Usual => Some(Self::USUAL),
            Close::After(wait) => Some(wait),
            Close::Never => None,
        }
    }
}

/// A plain (not continuous) view: its query is expanded wherever it is named.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainViewDef {
    /// The view's name.
    pub name: String,
    /// The query text.
    pub query: String,
    /// The statement that made it.
    pub text: String,
}
