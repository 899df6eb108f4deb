//! `CREATE CONNECTION`, `ALTER CONNECTION`, and what looks around there: `SHOW TOPICS`, `DESCRIBE TOPIC`.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    ObjectKind, Statement,
    cursor::Cursor,
    kafka_options, kafka_properties,
    names::{check_new, quote_identifier, quote_literal},
    options::Options,
    show, syntax,
};
use crate::{
    catalog::{ConnectionDef, OptionValue, RegistryDef},
    error::{Error, Result},
};

/// Options about a schema registry.
const REGISTRY: [&str; 4] = [RegistryDef::URL, RegistryDef::USER, RegistryDef::PASSWORD, RegistryDef::BOTH];
/// What there is beside those that begin with a word of security or `properties.`.
const OPTIONS: &[&str] = &["connector", "bootstrap.servers", "validate", "properties.…", REGISTRY[0], REGISTRY[1], REGISTRY[2], REGISTRY[3]];

/// Parses what follows `CREATE CONNECTION`: `[IF NOT EXISTS] name TO KAFKA (…) [WITH (validate = false)]`, or
/// `name WITH (connector = 'kafka', …)`.
pub(super) fn create(mut cursor: Cursor) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of the connection")?;
    check_new("a connection", &name)?;
    let owner = format!("connection {name}");
    let options = if cursor.take(&["TO", "KAFKA"]) {
        let mut options = Options::parse(&owner, &mut cursor)?;
        options.add("connector", "kafka".into(), "TO KAFKA")?;
        options
    } else if cursor.take(&["WITH"]) {
        Options::parse(&owner, &mut cursor)?
    } else {
        return Err(syntax::expected("TO KAFKA ('bootstrap.servers' = 'host:9092', …)", cursor.peek()));
    };
    let mut options = options;
    let mut validate = options.take_bool("validate")?;
    if validate.is_none() {
        validate = with_validate(&owner, &mut cursor)?;
    }
    cursor.end()?;
    let connector = options.require("connector", "kafka")?;
    if !connector.eq_ignore_ascii_case("kafka") {
        return Err(Error::Unsupported(format!("{owner}: the connector '{connector}' is unknown: write TO KAFKA (…)")));
    }
    Ok(Statement::CreateConnection { def: connection(name, options)?, if_not_exists, validate: validate.unwrap_or(true) })
}

/// `WITH (validate = false)`, if it comes next.
fn with_validate(owner: &str, cursor: &mut Cursor) -> Result<Option<bool>> {
    if !cursor.take(&["WITH"]) {
        return Ok(None);
    }
    let mut options = Options::parse(owner, cursor)?;
    let validate = options.take_bool("validate")?;
    options.finish(&["validate"])?;
    Ok(validate)
}

/// The connection that options declare.
fn connection(name: String, mut options: Options) -> Result<ConnectionDef> {
    let owner = format!("connection {name}");
    let listed = options.listed();
    let brokers = options.require("bootstrap.servers", "localhost:9092")?;
    kafka_options::check_brokers(&owner, &brokers)?;
    let properties = kafka_properties::take(&owner, &mut options, None)?;
    if let Some(name) = properties.keys().find(|name| *name == "group.id") {
        return Err(Error::Invalid(format!("{owner}: '{name}' differs from source to source: write 'properties.{name}' there")));
    }
    let registry: BTreeMap<String, OptionValue> = options.take_wanted(|key| REGISTRY.contains(&key)).into_iter().collect();
    if !registry.is_empty() {
        RegistryDef::check(&registry).map_err(|why| Error::Invalid(format!("{owner}: {why}")))?;
    }
    options.finish(OPTIONS)?;
    let text = declaration(&name, &listed);
    Ok(ConnectionDef { name, brokers, properties, registry, options: listed, text })
}

/// The statement that declares a connection of these options.
fn declaration(name: &str, options: &[(String, OptionValue)]) -> String {
    let value = |value: &OptionValue| match value {
        OptionValue::Text(text) => quote_literal(text),
        OptionValue::Secret(name) => format!("SECRET {}", quote_identifier(name)),
    };
    let listed: Vec<String> = options.iter().map(|(key, given)| format!("{} = {}", quote_literal(key), value(given))).collect();
    format!("CREATE CONNECTION {} TO KAFKA (\n  {}\n)", quote_identifier(name), listed.join(",\n  "))
}

/// Parses what follows `ALTER CONNECTION`: `name SET (…)`, `name RESET (…)`, `name OWNER TO user`.
pub(super) fn alter(mut cursor: Cursor) -> Result<Statement> {
    let name = cursor.name("the name of a connection")?;
    if let Some(owned) = show::owner(&mut cursor, ObjectKind::Connection, &name)? {
        return Ok(owned);
    }
    let owner = format!("connection {name}");
    let (mut set, mut reset, mut validate) = (vec![], vec![], None);
    if cursor.take(&["SET"]) {
        let mut options = Options::parse(&owner, &mut cursor)?;
        validate = options.take_bool("validate")?;
        set = options.listed();
    } else if cursor.take(&["RESET"]) {
        reset = names(&mut cursor)?;
    } else {
        return Err(syntax::expected("SET ('option' = 'value', …), RESET ('option', …) or OWNER TO user", cursor.peek()));
    }
    if validate.is_none() {
        validate = with_validate(&owner, &mut cursor)?;
    }
    cursor.end()?;
    if set.is_empty() && reset.is_empty() {
        return Err(Error::Invalid(format!("{owner}: nothing is to be changed: write SET ('sasl.password' = SECRET name)")));
    }
    Ok(Statement::AlterConnection { name, set, reset, validate: validate.unwrap_or(true) })
}

/// `('option', …)`.
fn names(cursor: &mut Cursor) -> Result<Vec<String>> {
    let mut names = vec![];
    cursor.expect_token(&Token::LParen)?;
    loop {
        names.push(cursor.text("an option in single quotes")?.to_ascii_lowercase());
        if cursor.take_token(&Token::RParen) {
            return Ok(names);
        }
        cursor.expect_token(&Token::Comma)?;
    }
}

/// A connection with some options set and others taken away.
pub fn altered_connection(def: &ConnectionDef, set: &[(String, OptionValue)], reset: &[String]) -> Result<ConnectionDef> {
    let mut options = def.options.clone();
    for name in reset {
        match options.iter().position(|(key, _)| key == name) {
            Some(at) => drop(options.remove(at)),
            None => return Err(Error::Invalid(format!("connection {} does not say '{name}': SHOW CREATE CONNECTION {0} tells what it says", def.name))),
        }
    }
    for (name, value) in set {
        // `x` and `properties.x` are the same, in either order of being said.
        let bare = |key: &str| key.strip_prefix("properties.").unwrap_or(key).to_string();
        match options.iter_mut().find(|(key, _)| bare(key) == bare(name)) {
            Some(option) => *option = (name.clone(), value.clone()),
            None => options.push((name.clone(), value.clone())),
        }
    }
    match super::parse_one(&declaration(&def.name, &options))? {
        Statement::CreateConnection { def, .. } => Ok(def),
        _ => Err(Error::Internal(format!("connection {} became something else", def.name))),
    }
}

/// Parses what follows `SHOW TOPICS`: `FROM CONNECTION name`.
pub(super) fn show_topics(cursor: &mut Cursor) -> Result<Statement> {
    let connection = from_connection(cursor)?;
    cursor.end()?;
    Ok(Statement::ShowTopics { connection })
}

/// Parses what follows `DESCRIBE TOPIC`: `'topic' FROM CONNECTION name`.
pub(super) fn describe_topic(mut cursor: Cursor) -> Result<Statement> {
    let topic = match &cursor.peek().token {
        // A name that needs no quotes elsewhere needs none here.
        Token::Word(_) => cursor.identifier("the name of a topic")?.value,
        _ => cursor.text("the name of a topic in single quotes")?,
    };
    kafka_options::check_topic("DESCRIBE TOPIC", &topic)?;
    let connection = from_connection(&mut cursor)?;
    cursor.end()?;
    Ok(Statement::DescribeTopic { topic, connection })
}

fn from_connection(cursor: &mut Cursor) -> Result<String> {
    cursor.expect(&["FROM", "CONNECTION"])?;
    cursor.name("the name of a connection")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::{parse_one, redacted};

    fn created(text: &str) -> ConnectionDef {
        match parse_one(text).unwrap() {
            Statement::CreateConnection { def, .. } => def,
            other => panic!("{other:?}"),
        }
    }

    const FULL: &str = "CREATE CONNECTION c TO KAFKA ('bootstrap.servers' = 'b:1', 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'scram-sha-512', \
         'sasl.username' = 'u', 'sasl.password' = SECRET pw, 'properties.client.id' = 'x''y', 'schema.registry.url' = 'http://r') WITH (validate = false)";

    #[test]
    fn a_connection_reads_back_as_it_was_written() {
        let def = created(FULL);
        assert_eq!((def.name.as_str(), def.brokers.as_str(), def.secrets()), ("c", "b:1", vec!["pw".to_string()]));
        assert_eq!(def.properties["sasl.mechanisms"], OptionValue::Text("SCRAM-SHA-512".into()));
        assert_eq!(def.properties["client.id"], OptionValue::Text("x'y".into()));
        assert_eq!(def.registry["schema.registry.url"], OptionValue::Text("http://r".into()));
        assert_eq!(created(&def.text), def);
        let other = created("CREATE CONNECTION c WITH (connector = 'kafka', 'bootstrap.servers' = 'b:1', validate = false)");
        assert_eq!(other.text, "CREATE CONNECTION c TO KAFKA (\n  'bootstrap.servers' = 'b:1'\n)");
    }

    #[test]
    fn what_is_altered_and_nothing_else() {
        let def = created(FULL);
        let alter = |text: &str| match parse_one(text).unwrap() {
            Statement::AlterConnection { set, reset, .. } => altered_connection(&def, &set, &reset),
            other => panic!("{other:?}"),
        };
        let new = alter("ALTER CONNECTION c SET ('sasl.password' = 'geheim', 'client.id' = 'z')").unwrap_err().to_string();
        assert!(new.contains("'client.id'"), "{new}");
        let new = alter("ALTER CONNECTION c SET ('properties.sasl.password' = 'geheim', 'properties.linger.ms' = 3)").unwrap();
        assert_eq!(new.properties["sasl.password"], OptionValue::Text("geheim".into()));
        assert_eq!((new.options.len(), new.brokers), (def.options.len() + 1, def.brokers.clone()));
        assert!(!redacted(&new.text).contains("geheim") && redacted(&new.text).contains("'sasl.username' = 'u'"), "{}", redacted(&new.text));
        assert!(alter("ALTER CONNECTION c RESET ('sasl.password')").unwrap_err().to_string().contains("needs 'sasl.password'"));
        assert!(alter("ALTER CONNECTION c RESET ('topic')").unwrap_err().to_string().contains("does not say 'topic'"));
        assert!(!alter("ALTER CONNECTION c RESET ('schema.registry.url')").unwrap().text.contains("registry"));
    }

    #[test]
    fn what_can_not_work_is_said() {
        for (options, words) in [
            ("", "lacks the option 'bootstrap.servers'"),
            ("'bootstrap.servers' = 'b', topic = 't'", "has no option 'topic'"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'TLS'", "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL', not 'TLS'"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SASL_SSL'", "needs 'sasl.mechanism'"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'MD5'", "not 'MD5'"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'PLAIN', 'sasl.username' = 'u'", "needs 'sasl.password'"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'OAUTHBEARER'", "needs 'sasl.oauthbearer.token.endpoint.url'"),
            ("'bootstrap.servers' = 'b', 'sasl.username' = 'u'", "has no effect without 'security.protocol' = 'SASL_SSL' or 'SASL_PLAINTEXT'"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SASL_SSL', 'sasl.pasword' = 'u'", "did you mean 'sasl.password'?"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SSL', 'ssl.ca.pem' = '/etc/ca.pem'", "not a file's name"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SSL', 'ssl.certificate.pem' = '-----BEGIN CERTIFICATE-----'", "belong together"),
            ("'bootstrap.servers' = 'b', 'ssl.truststore.location' = '/x'", "Java's client"),
            ("'bootstrap.servers' = 'b', 'security.protocol' = 'SSL', 'properties.enable.ssl.certificate.verification' = 'false'", "'ssl.ca.pem'"),
            ("'bootstrap.servers' = 'b', 'schema.registry.ur' = 'x'", "did you mean 'schema.registry.url'?"),
            ("'bootstrap.servers' = SECRET s", "can't be a SECRET"),
            ("'bootstrap.servers' = 'b', 'properties.group.id' = 'g'", "differs from source to source"),
            ("'bootstrap.servers' = 'b', 'sasl.mechanism' = 'PLAIN', 'properties.sasl.mechanisms' = 'PLAIN'", "given twice"),
        ] {
            let error = parse_one(&format!("CREATE CONNECTION c TO KAFKA ({options})")).unwrap_err().to_string();
            assert!(error.contains(words), "{options}: {error}");
        }
        if !cfg!(feature = "gssapi") {
            let error = parse_one("CREATE CONNECTION c TO KAFKA ('bootstrap.servers' = 'b', 'security.protocol' = 'SASL_SSL', 'sasl.mechanism' = 'GSSAPI')");
            assert!(error.unwrap_err().to_string().contains("--features gssapi"));
        }
    }

    #[test]
    fn a_source_leaves_its_connection_what_is_its_own() {
        let with = |options: &str| parse_one(&format!("CREATE SOURCE s (a INT) WITH (connector = 'kafka', topic = 't', format = 'json', {options})"));
        let Statement::CreateSource { def, .. } = with("connection = C, 'properties.fetch.min.bytes' = 3").unwrap() else { panic!() };
        assert_eq!((def.kafka.link.connection.as_deref(), def.kafka.link.names()), (Some("c"), vec!["c".to_string()]));
        let Statement::CreateSource { def, .. } = with("'bootstrap.servers' = 'b', 'properties.sasl.password' = SECRET pw").unwrap() else { panic!() };
        assert_eq!(def.kafka.link.names(), ["pw"]);
        for (options, words) in [
            ("connection = 'c', 'bootstrap.servers' = 'evil:1'", "leave one of the two out"),
            ("connection = 'c', 'sasl.password' = 'x'", "ALTER CONNECTION c SET ('sasl.password'"),
            ("connection = 'c', 'properties.sasl.oauthbearer.token.endpoint.url' = 'http://evil'", "for connection c to say"),
            ("connection = 'c', 'properties.broker.address.family' = 'v4'", "for connection c to say"),
            ("connection = 'c', 'properties.debug' = 'all'", "for connection c to say"),
            ("'bootstrap.servers' = 'b', 'max.records.per.second' = 0", "whole number from 1"),
            ("'bootstrap.servers' = 'b', 'max.bytes.per.second' = 'fast'", "a size like"),
        ] {
            let error = with(options).unwrap_err().to_string();
            assert!(error.contains(words), "{options}: {error}");
        }
    }
}
