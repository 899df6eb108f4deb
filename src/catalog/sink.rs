//! A declared sink: where what a query over a view gives is written.

use std::time::Duration;

use super::{KafkaDef, KeyFormat};

/// A declared sink.
#[derive(Debug, Clone, PartialEq)]
pub struct SinkDef {
    /// Its name.
    pub name: String,
    /// The query over one continuous view, as text.
    pub query: String,
    /// `FROM source$errors`: the source whose bad records it writes, as they were; then the query says no more.
    pub errors_of: Option<String>,
    /// Where rows go.
    pub target: SinkTarget,
    /// How far it may fall behind, and what then.
    pub lag: LagOptions,
    /// The statement that made it, for `SHOW CREATE` and for the durable catalog.
    pub text: String,
}

impl SinkDef {
    /// The topic that it writes to, if it is one.
    pub fn kafka(&self) -> Option<&KafkaDef> {
        match &self.target {
            SinkTarget::Kafka(sink) => Some(&sink.kafka),
            SinkTarget::Folder(_) => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn kafka_mut(&mut self) -> Option<&mut KafkaDef> {
        match &mut self.target {
            SinkTarget::Kafka(sink) => Some(&mut sink.kafka),
            SinkTarget::Folder(_) => None,
        }
    }
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkTarget {
    /// A topic.
    Kafka(Box<KafkaSink>),
    /// A folder of files.
    Folder(FolderSink),
}

/// `INTO KAFKA (…)`.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaSink {
    /// The topic and how it is reached; where reading would start has no meaning.
    pub kafka: KafkaDef,
    /// `key`: the columns that make the record's key; `None`: the statement did not say.
    pub key: Option<Vec<String>>,
    /// `key.format`: how the key is written.
    pub key_format: KeyFormat,
    /// `envelope`: what a record says.
    pub envelope: Envelope,
    /// `delivery`: what holds after a crash.
    pub delivery: Delivery,
    /// `transaction.timeout`: after so long the broker itself aborts a transaction of a sink that has gone.
    pub transaction_timeout: Duration,
}

/// What a record of a sink says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Envelope {
    /// The row as it is now; a row that has gone is a tombstone under its key.
    #[default]
    Rows,
    /// A change: the row with `_op` and `_epoch`.
    Changes,
}

/// What holds of a sink's records after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// None is missing; the last ones may be there twice, with the same headers.
    #[default]
    AtLeastOnce,
    /// Each is there once, for those who read what is committed.
    ExactlyOnce,
}

/// `INTO FOLDER (…)`.
#[derive(Debug, Clone, PartialEq)]
pub struct FolderSink {
    /// `path`: a folder of the server, or `s3://bucket/prefix`.
    pub path: String,
    /// `partition_by`: columns whose values are folders, as in `day=2024-01-01`.
    pub partition_by: Vec<String>,
    /// `roll.interval`: rows wait so long for others to share their file.
    pub roll_interval: Duration,
    /// `roll.rows`: a file is written when so many wait.
    pub roll_rows: usize,
    /// What a file says.
    pub envelope: Envelope,
}

/// How far a sink may fall behind its view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LagOptions {
    /// `max.lag.bytes`: so many bytes of changes may wait for it.
    pub max_bytes: usize,
    /// `when.behind = 'restart'`: if more would wait it begins again with what the view holds; else it fails.
    pub restart: bool,
    /// `commit.interval`: how long a change waits until it is durable and can be written, about.
    pub commit_interval: Duration,
    /// `snapshot`: whether it begins with what the view holds.
    pub snapshot: bool,
}
