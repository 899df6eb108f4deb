//! A source that leaves something to be found out: its schema is asked of the registry, its columns are read off the schema or off a sample of
//! the topic, and both are written into its statement. From then on the statement says it all, whatever becomes of the registry.

use std::sync::Arc;

use arrow::{array::StringArray, record_batch::RecordBatch};

use super::{
    engine::{Engine, blocking},
    show,
};
use crate::{
    access::Caller,
    catalog::{ColumnDef, Format, KafkaDef, KeyFormat, ObjectKind, RegistryDef, SinkDef, SourceDef},
    decode::{Sampled, can_be_sampled, columns_of, columns_of_json_schema, columns_of_sample},
    error::{Error, Result},
    source::{
        kafka::{Sample, sample},
        registry::{Registered, Registry},
    },
    sql::{self, OpenColumns, SchemaWanted, SourceDraft, Statement},
};

/// So many of the newest records of each partition are looked at.
const SAMPLES: i64 = 200;

/// Creates a source; whether there was none of its name.
pub(super) async fn create(engine: &Engine, caller: &Caller, statement: Statement) -> Result<bool> {
    let (def, if_not_exists) = match statement {
        Statement::CreateSource { def, if_not_exists } => (def, if_not_exists),
        Statement::DraftSource(draft) => {
            // A registry or a broker is asked for those alone who may create what it is asked for.
            engine.check_create(caller, &draft.name)?;
            if draft.if_not_exists && engine.is_taken_for(caller, &draft.name, true)? {
                return Ok(false);
            }
            complete(engine, caller, draft).await?
        }
        _ => return Err(Error::Internal("a source parsed as something else".into())),
    };
    engine.create_source(caller, def, if_not_exists).await
}

/// Creates a source and the sink of its bad records, or neither.
pub(super) async fn create_with_sink(engine: &Arc<Engine>, caller: &Caller, source: Statement, sink: SinkDef) -> Result<()> {
    let Some(name) = sink.errors_of.clone() else { return Err(Error::Internal("a sink of bad records has no source".into())) };
    if !create(engine, caller, source).await? {
        return Ok(());
    }
    if let Err(error) = engine.create_sink(caller, sink, false).await {
        engine.drop_object(caller, ObjectKind::Source, &name, true, false).await?;
        return Err(error);
    }
    Ok(())
}

/// The whole declaration, and whether a taken name is no error. Only who may use them has secrets and connections looked at.
pub(super) async fn complete(engine: &Engine, caller: &Caller, draft: SourceDraft) -> Result<(SourceDef, bool)> {
    engine.usable_links(caller, draft.kafka.link.connection.as_ref(), draft.kafka.link.secrets.values().cloned())?;
    let kafka = engine.catalog.kafka_asking(&draft.kafka);
    let owner = format!("source {}", draft.name);
    let mut text = draft.text;
    for wanted in &draft.schemas {
        let registry = Registry::of(&wanted.subject.registry(&kafka.link)?);
        let found = registry.latest(&wanted.subject.name).await?;
        text = sql::with_option(&text, &wanted.option, &schema_text(&owner, wanted, &registry, &found)?)?;
        if let Some(option) = &wanted.subject_option {
            text = sql::with_option(&text, option, &wanted.subject.name)?;
        }
    }
    let open = match parse(&text)? {
        Parsed::Whole(def, if_not_exists) => return Ok((*def, if_not_exists)),
        Parsed::Draft(draft) => draft.open,
    };
    let open = open.ok_or_else(|| Error::Internal(format!("{owner} is not whole with its schemas")))?;
    text = sql::with_columns(&text, &found_columns(&owner, &kafka, open).await?)?;
    match parse(&text)? {
        Parsed::Whole(def, if_not_exists) => Ok((*def, if_not_exists)),
        Parsed::Draft(_) => Err(Error::Internal(format!("{owner} is not whole with all that was found out"))),
    }
}

/// The columns that the statement leaves open: those of the format's schema, of the registry's JSON Schema, or of a sample. Columns of the
/// primary key that payloads don't have are those of the keys.
async fn found_columns(owner: &str, kafka: &KafkaDef, open: OpenColumns) -> Result<Vec<ColumnDef>> {
    let format = open.format.as_ref().ok_or_else(|| Error::Internal(format!("{owner} has no format with its schemas")))?;
    let (mut columns, mut seen) = match columns_of(format)? {
        Some(columns) => (columns, None),
        None => match registered_columns(owner, kafka, &open).await? {
            Some(columns) => (columns, None),
            None if can_be_sampled(format) => {
                let sampled = sampled(kafka, format, &open).await?;
                (seen_columns(owner, kafka, &sampled)?, Some(sampled))
            }
            None => {
                return Err(Error::Invalid(format!("{owner} declares no column, and its format has no schema that tells them: add one like id BIGINT")));
            }
        },
    };
    let lacks = |columns: &[ColumnDef], name: &String| !open.declared.contains(name) && columns.iter().all(|column| column.name != *name);
    if open.key.iter().any(|name| lacks(&columns, name)) {
        let of_key = match &open.key_format {
            Some(KeyFormat::Text) => vec![],
            Some(KeyFormat::As(format)) => columns_of(format)?.unwrap_or_default(),
            Some(KeyFormat::Json) | None => {
                let sampled = match seen.take() {
                    Some(sampled) => sampled,
                    None => sampled(kafka, &Format::Json, &open).await?,
                };
                sampled.key_columns
            }
        };
        columns.extend(of_key.into_iter().filter(|column| open.key.contains(&column.name)).filter(|column| lacks(&columns, &column.name)).collect::<Vec<_>>());
    }
    columns.retain(|column| !open.declared.contains(&column.name));
    Ok(sql::named_columns(columns, &open.declared))
}

/// The columns of the JSON Schema that the registry has for the topic; `None`: there is no registry, or payloads are none of JSON behind a header.
async fn registered_columns(owner: &str, kafka: &KafkaDef, open: &OpenColumns) -> Result<Option<Vec<ColumnDef>>> {
    let Some(subject) = &open.subject else { return Ok(None) };
    if !subject.options.contains_key(RegistryDef::URL) && !kafka.link.registry()?.contains_key(RegistryDef::URL) {
        return Ok(None);
    }
    let registry = Registry::of(&subject.registry(&kafka.link)?);
    let found = registry.latest(&subject.name).await?;
    let unusable =
        |why: String| Error::Invalid(format!("{owner}: schema {} of subject {} at {} tells no columns: {why}", found.id, subject.name, registry.url()));
    let columns = found.json().map_err(unusable).and_then(|text| columns_of_json_schema(text).map_err(|error| unusable(error.to_string())))?;
    match columns.is_empty() {
        true => Err(unusable("it describes no object with properties; declare the columns that you need".into())),
        false => Ok(Some(columns)),
    }
}

/// What the newest records of the topic show.
async fn sampled(kafka: &KafkaDef, format: &Format, open: &OpenColumns) -> Result<Sampled> {
    let (settings, topic) = (kafka.settings()?, kafka.topic.clone());
    let partitions = blocking(move || sample(&settings, &topic, SAMPLES)).await??;
    let counts = |record: &&Sample| open.header_filter.as_ref().is_none_or(|filter| filter.passes(&record.headers));
    let records = partitions.iter().flat_map(|partition| &partition.records).filter(counts);
    columns_of_sample(format, records.map(|record| (record.key.as_deref(), record.value.as_deref())))
}

fn seen_columns(owner: &str, kafka: &KafkaDef, sampled: &Sampled) -> Result<Vec<ColumnDef>> {
    let why = match (sampled.read, sampled.unread) {
        (0, 0) => "holds no record that could show them".into(),
        (0, unread) => format!("shows none: of its newest records {unread} were looked at, and none is a JSON object"),
        _ if sampled.columns.is_empty() => "shows none: its newest records are empty objects".into(),
        _ => return Ok(sampled.columns.clone()),
    };
    Err(Error::Invalid(format!("{owner} declares no column, and topic {} {why}: add columns like id BIGINT", kafka.topic)))
}

/// `EXPLAIN CREATE SOURCE`: the statements that would be stored.
pub(super) async fn explain(engine: &Engine, caller: &Caller, statement: Statement) -> Result<RecordBatch> {
    let (statement, sink) = match statement {
        Statement::SourceAndSink { source, sink } => (*source, Some(sink)),
        statement => (statement, None),
    };
    let def = match statement {
        Statement::CreateSource { def, .. } => def,
        Statement::DraftSource(draft) => complete(engine, caller, draft).await?.0,
        _ => return Err(Error::Internal("a source parsed as something else".into())),
    };
    let (mut names, mut texts) = (vec![def.name], vec![sql::redacted(&def.text)]);
    if let Some(sink) = sink {
        texts.push(sql::redacted(&sink.text));
        names.push(sink.name);
    }
    Ok(RecordBatch::try_new(show::create_schema(), vec![Arc::new(StringArray::from(names)), Arc::new(StringArray::from(texts))])?)
}

enum Parsed {
    Whole(Box<SourceDef>, bool),
    Draft(Box<SourceDraft>),
}

fn parse(text: &str) -> Result<Parsed> {
    match sql::parse_one(text)? {
        Statement::CreateSource { def, if_not_exists } => Ok(Parsed::Whole(Box::new(def), if_not_exists)),
        Statement::DraftSource(draft) => Ok(Parsed::Draft(Box::new(draft))),
        _ => Err(Error::Internal("a source parsed as something else".into())),
    }
}

/// A registered schema as its option takes it.
fn schema_text(owner: &str, wanted: &SchemaWanted, registry: &Registry, found: &Registered) -> Result<String> {
    let text = match wanted.option.ends_with("avro.schema") {
        true => found.avro(),
        false => found.protobuf(),
    };
    text.map_err(|why| Error::Invalid(format!("{owner}: schema {} of subject {} at {} can't be used: {why}", found.id, wanted.subject.name, registry.url())))
}
