//! Sessions, the catalog they see, and the port they come through.

use super::*;

async fn act<M: Message + Default>(client: &mut Client, name: &str, body: Vec<u8>) -> M {
    let mut results = client.do_action(Action::new(name, body)).await.unwrap();
    M::decode(results.message().await.unwrap().unwrap().body).unwrap()
}

#[tokio::test]
async fn the_catalog_is_told() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    client.execute("CREATE TABLE t AS SELECT 1 AS a, arrow_cast('x', 'Utf8View') AS b".into(), None).await.unwrap();

    let info = client.get_catalogs().await.unwrap();
    assert_eq!(fetch(client, info).await[0].column(0).as_string::<i32>().value(0), "tidegate");
    let info = client.get_db_schemas(CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None }).await.unwrap();
    assert_eq!(fetch(client, info).await[0].column(1).as_string::<i32>().value(0), "public");
    let info = client.get_table_types().await.unwrap();
    assert_eq!(fetch(client, info).await[0].num_rows(), 3);
    let tables = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: Some("%".into()),
        table_types: vec![],
        include_schema: true,
    };
    let info = client.get_tables(tables).await.unwrap();
    let listed = fetch(client, info).await;
    let schema = Schema::try_from(IpcMessage(listed[0].column(4).as_binary::<i32>().value(0).to_vec().into())).unwrap();
    let selected = query(client, "SELECT * FROM t").await[0].schema();
    let same = |(described, real): (&Arc<Field>, &Arc<Field>)| described.data_type() == real.data_type() && described.name() == real.name();
    assert!(schema.fields().iter().zip(selected.fields()).all(same));

    let info = client.get_sql_info(vec![]).await.unwrap();
    assert!(fetch(client, info).await[0].num_rows() > 90);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert!(fetch(client, info).await[0].num_rows() > 10);
    let (catalog, db_schema, table) = (None, None, "t".to_owned());
    let info = client.get_primary_keys(CommandGetPrimaryKeys { catalog: catalog.clone(), db_schema: db_schema.clone(), table: table.clone() }).await.unwrap();
    assert_eq!(info.clone().try_decode_schema().unwrap().fields().len(), 6);
    fetch(client, info).await;
    let exported = CommandGetExportedKeys { catalog: catalog.clone(), db_schema: db_schema.clone(), table: table.clone() };
    let imported = CommandGetImportedKeys { catalog, db_schema, table };
    let infos = [
        client.get_exported_keys(exported).await.unwrap(),
        client.get_imported_keys(imported).await.unwrap(),
        client.get_cross_reference(CommandGetCrossReference::default()).await.unwrap(),
    ];
    for info in infos {
        assert_eq!(info.clone().try_decode_schema().unwrap().fields().len(), 13);
        fetch(client, info).await;
    }
}

#[tokio::test]
async fn a_session_is_known_by_token_or_connection() {
    let server = Running::start().await;
    let sessions = || server.backend.sessions.load(Ordering::SeqCst);
    let mut first = server.client().await;
    query(&mut first, "SELECT 1").await;
    query(&mut first, "SELECT 1").await;
    assert_eq!(sessions(), 1, "one connection, one session");
    query(&mut server.client().await, "SELECT 1").await;
    assert_eq!(sessions(), 2);

    first.handshake("alice", "secret").await.unwrap();
    let token = first.token().unwrap().clone();
    query(&mut first, "SELECT 1").await;
    assert_eq!(sessions(), 3);
    let mut second = server.client().await;
    second.set_token(token);
    query(&mut second, "SELECT 1").await;
    assert_eq!(sessions(), 3, "the same token from another connection is the same session");
}

#[tokio::test]
async fn a_cookie_is_offered_and_names_the_session() {
    let server = Running::start().await;
    let command = CommandStatementQuery { query: "SELECT 1".into(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let answer = server.client().await.inner_mut().get_flight_info(descriptor).await.unwrap();
    let cookie = answer.metadata().get("set-cookie").unwrap().to_str().unwrap().split(';').next().unwrap().to_owned();
    let mut other = server.client().await;
    other.set_header("cookie", cookie);
    query(&mut other, "SELECT 1").await;
    assert_eq!(server.backend.sessions.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn session_options_are_set_and_read_back() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let text = |text: &str| OptionValue { value: Some(OneOption::Text(text.into())) };
    let options = [("catalog", "tidegate"), ("schema", "elsewhere"), ("nonsense", "x")].map(|(name, value)| (name.to_owned(), text(value)));
    let request = SetSessionOptionsRequest { options: options.into_iter().collect() };
    let result: SetSessionOptionsResult = act(client, "SetSessionOptions", request.encode_to_vec()).await;
    assert_eq!(result.errors.len(), 2);
    assert_eq!((result.errors["schema"].code, result.errors["nonsense"].code), (2, 1));
    let result: GetSessionOptionsResult = act(client, "GetSessionOptions", vec![]).await;
    assert_eq!(result.options["catalog"], text("tidegate"));
    let sessions = server.backend.sessions.load(Ordering::SeqCst);
    client.do_action(Action::new("CloseSession", vec![])).await.unwrap();
    query(client, "SELECT 1").await;
    assert_eq!(server.backend.sessions.load(Ordering::SeqCst), sessions + 1, "a closed session is not used again");
}

#[tokio::test]
async fn only_loopback_is_served_and_a_taken_port_is_said() {
    let refused = Server::bind(Double::new(), "0.0.0.0:0".parse().unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("only loopback") && refused.contains("tidegate user add"), "{refused}");
    let server = Running::start().await;
    let taken = Server::bind(Double::new(), server.address).await.unwrap_err().to_string();
    assert!(taken.contains("in use"), "{taken}");
}
