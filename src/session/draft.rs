//! A source that leaves something to be found out: its schema is asked of the registry, its columns are read off the schema, and both are written
//! into its statement. From then on the statement says it all, whatever becomes of the registry.

use std::sync::Arc;

use arrow::{array::StringArray, record_batch::RecordBatch};

use super::{engine::Engine, show};
use crate::{
    access::Caller,
    catalog::SourceDef,
    decode::columns_of,
    error::{Error, Result},
    source::registry::{Registered, Registry},
    sql::{self, SchemaWanted, SourceDraft, Statement},
};

/// The whole declaration, and whether a taken name is no error. Only who may use them has secrets and connections looked at.
pub(super) async fn complete(engine: &Engine, caller: &Caller, draft: SourceDraft) -> Result<(SourceDef, bool)> {
    engine.usable_links(caller, draft.kafka.link.connection.as_ref(), draft.kafka.link.secrets.values().cloned())?;
    let link = engine.catalog.link_asking(draft.kafka.link.clone());
    let owner = format!("source {}", draft.name);
    let mut text = draft.text;
    for wanted in &draft.schemas {
        let registry = Registry::of(&wanted.subject.registry(&link)?);
        let found = registry.latest(&wanted.subject.name).await?;
        text = sql::with_option(&text, &wanted.option, &schema_text(&owner, wanted, &registry, &found)?)?;
        if let Some(option) = &wanted.subject_option {
            text = sql::with_option(&text, option, &wanted.subject.name)?;
        }
    }
    let columns_of_format = match parse(&text)? {
        Parsed::Whole(def, if_not_exists) => return Ok((*def, if_not_exists)),
        Parsed::Draft(draft) => draft.columns_of,
    };
    let lacking = || Error::Invalid(format!("{owner} declares no column, and its format has no schema that tells them: add one like id BIGINT"));
    let columns = columns_of_format.as_ref().map(columns_of).transpose()?.flatten().ok_or_else(lacking)?;
    text = sql::with_columns(&text, &columns)?;
    match parse(&text)? {
        Parsed::Whole(def, if_not_exists) => Ok((*def, if_not_exists)),
        Parsed::Draft(_) => Err(Error::Internal(format!("{owner} is not whole with all that was found out"))),
    }
}

/// `EXPLAIN CREATE SOURCE`: the statement that would be stored.
pub(super) async fn explain(engine: &Engine, caller: &Caller, statement: Statement) -> Result<RecordBatch> {
    let def = match statement {
        Statement::CreateSource { def, .. } => def,
        Statement::DraftSource(draft) => complete(engine, caller, draft).await?.0,
        _ => return Err(Error::Internal("a source parsed as something else".into())),
    };
    let (name, text) = (StringArray::from_iter_values([&def.name]), StringArray::from_iter_values([sql::redacted(&def.text)]));
    Ok(RecordBatch::try_new(show::create_schema(), vec![Arc::new(name), Arc::new(text)])?)
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
