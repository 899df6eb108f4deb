//! The broker of the benchmark: the embedded one, or one that is there, with topics of the benchmark's own.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use super::process::Process;
use crate::source::broker::EmbeddedBroker;

/// Brokers with the benchmark's topics.
pub(in crate::cli::bench) struct Place {
    /// Makes and deletes topics, where the broker is one that was there.
    admin: Option<AdminClient<DefaultClientContext>>,
    /// It lives as long as this.
    _embedded: Option<Embedded>,
    brokers: String,
    /// What the topics' names begin with.
    stem: String,
    topics: Vec<String>,
}

/// The embedded broker, in this process or in one of its own.
enum Embedded {
    Here { _broker: EmbeddedBroker },
    Apart { _process: Process },
}

/// The embedded broker keeps little of a partition: so many records are sent before a view has to have them.
pub(in crate::cli::bench) const CHUNK: u32 = 50_000;
/// What a request may take, and the brokers after it until all know of a topic.
const PATIENCE: Duration = Duration::from_secs(20);

impl Place {
    /// Makes topics, given as names and numbers of partitions, at these brokers or at an embedded one.
    pub(in crate::cli::bench) async fn start(brokers: Option<&str>, topics: &[(&str, i32)]) -> anyhow::Result<Self> {
        Self::begin(brokers, topics, |topics| {
            let broker = EmbeddedBroker::start(topics)?;
            let brokers = broker.bootstrap_servers().to_string();
            Ok((Embedded::Here { _broker: broker }, brokers))
        })
        .await
    }

    /// The same, with the embedded broker in a process of its own: its work is none of this process's.
    pub(in crate::cli::bench) async fn apart(brokers: Option<&str>, topics: &[(&str, i32)]) -> anyhow::Result<Self> {
        Self::begin(brokers, topics, |topics| {
            let (process, brokers) = Process::broker(topics)?;
            Ok((Embedded::Apart { _process: process }, brokers))
        })
        .await
    }

    async fn begin(
        brokers: Option<&str>,
        topics: &[(&str, i32)],
        embedded: impl FnOnce(&[(String, i32)]) -> anyhow::Result<(Embedded, String)>,
    ) -> anyhow::Result<Self> {
        let stem = format!("tidegate-bench-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let named: Vec<(String, i32)> = topics.iter().map(|(name, partitions)| (format!("{stem}-{name}"), *partitions)).collect();
        let names = named.iter().map(|(name, _)| name.clone()).collect();
        let Some(brokers) = brokers else {
            let (embedded, brokers) = embedded(&named)?;
            return Ok(Self { admin: None, brokers, _embedded: Some(embedded), stem, topics: names });
        };
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).set("log_level", "3").create()?;
        let new: Vec<NewTopic<'_>> = named.iter().map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1))).collect();
        for made in admin.create_topics(&new, &options()).await? {
            made.map_err(|(topic, why)| anyhow::anyhow!("topic {topic} can't be made at {brokers}: {why}"))?;
        }
        for (topic, partitions) in named {
            wait_for(&admin, &topic, partitions as usize).await?;
        }
        Ok(Self { admin: Some(admin), _embedded: None, brokers: brokers.into(), stem, topics: names })
    }

    /// `bootstrap.servers`.
    pub(in crate::cli::bench) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The whole name of a topic.
    pub(in crate::cli::bench) fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.stem)
    }

    /// What the broker is called in figures.
    pub(in crate::cli::bench) fn name(&self) -> &str {
        if self.admin.is_some() { &self.brokers } else { "embedded" }
    }

    /// Deletes the topics.
    pub(in crate::cli::bench) async fn end(&self) -> anyhow::Result<()> {
        let Some(admin) = &self.admin else { return Ok(()) };
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        for deleted in admin.delete_topics(&topics, &options()).await? {
            deleted.map_err(|(topic, why)| anyhow::anyhow!("topic {topic} at {} can't be deleted: {why}", self.brokers))?;
        }
        Ok(())
    }
}

/// Waits until a topic has its partitions, each with a leader.
async fn wait_for(admin: &AdminClient<DefaultClientContext>, topic: &str, partitions: usize) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let metadata = tokio::task::block_in_place(|| admin.inner().fetch_metadata(Some(topic), PATIENCE))?;
        let led = metadata.topics().iter().flat_map(|topic| topic.partitions()).filter(|partition| partition.leader() >= 0).count();
        if led == partitions {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < until, "topic {topic} has {led} of its {partitions} partitions after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE / 2))
}
