//! Statements: queries, effects, parameters, transactions.

use super::*;

#[tokio::test]
async fn a_query_answers() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    check(
        client,
        "SELECT 1 AS a, 'x' AS b, CAST(NULL AS DOUBLE) AS c",
        "+---+---+---+
         | a | b | c |
         +---+---+---+
         | 1 | x |   |
         +---+---+---+",
    )
    .await;
    let info = client.execute("SELECT 1".into(), None).await.unwrap();
    assert_eq!(info.total_records, -1);
}

#[tokio::test]
async fn a_statement_takes_effect_once_when_its_info_is_asked_for() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let info = client.execute("CREATE TABLE t AS SELECT 1 AS a".into(), None).await.unwrap();
    assert_eq!(server.executed(), 1, "executed before anything is fetched");
    for _ in 0..3 {
        assert!(fetch(client, info.clone()).await.is_empty());
    }
    assert_eq!(server.executed(), 1, "fetching never repeats it");
    assert_eq!(info.try_decode_schema().unwrap(), Schema::empty());

    let mut prepared = client.prepare("INSERT INTO t VALUES (2)".into(), None).await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap(), &Schema::empty(), "JDBC takes columns for a query");
    assert_eq!(server.executed(), 1, "preparing has no effect");
    let info = prepared.execute().await.unwrap();
    fetch(client, info).await;
    assert_eq!(server.executed(), 2);
    assert_eq!(prepared.execute_update().await.unwrap(), 1);
    assert_eq!(server.executed(), 3);
    prepared.close().await.unwrap();
    assert_eq!(client.execute_update("INSERT INTO t VALUES (3), (4)".into(), None).await.unwrap(), 2);
    let count = query(client, "SELECT count(*) FROM t").await;
    assert_eq!(count[0].column(0).as_primitive::<Int64Type>().value(0), 5);
}

#[tokio::test]
async fn a_statement_outlives_the_client_that_asked_for_it() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let asked = tokio::spawn(async move { client.execute("SLOW".into(), None).await });
    while server.executed() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked.abort();
    let finished = async {
        while server.backend.finished.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), finished).await.expect("the statement comes to its end");
}

#[tokio::test]
async fn eleven_parameters_keep_their_order() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let sql = format!("SELECT {}", (1..=11).map(|n| format!("CAST(? AS BIGINT) AS c{n}")).collect::<Vec<_>>().join(", "));
    let mut prepared = client.prepare(sql, None).await.unwrap();
    assert_eq!(prepared.parameter_schema().unwrap().fields().len(), 11);
    assert!(prepared.parameter_schema().unwrap().fields().iter().all(|field| field.is_nullable()));
    let values = (1..=11).map(|n| Arc::new(Int64Array::from(vec![n])) as ArrayRef).collect();
    prepared.set_parameters(one_row(values)).unwrap();
    let info = prepared.execute().await.unwrap();
    let batches = fetch(client, info).await;
    let row: Vec<i64> = batches[0].columns().iter().map(|column| column.as_primitive::<Int64Type>().value(0)).collect();
    assert_eq!(row, (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn untyped_parameters_take_the_type_of_their_value() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let mut prepared = client.prepare("SELECT ? AS a, ? AS b".into(), None).await.unwrap();
    prepared.set_parameters(one_row(vec![Arc::new(Int64Array::from(vec![7])), Arc::new(StringArray::from(vec!["y"]))])).unwrap();
    let info = prepared.execute().await.unwrap();
    let batches = fetch(client, info).await;
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(batches[0].column(1).as_string::<i32>().value(0), "y");
}

#[tokio::test]
async fn several_rows_of_parameters_are_several_executions() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    client.execute("CREATE TABLE t (a BIGINT)".into(), None).await.unwrap();
    let mut insert = client.prepare("INSERT INTO t VALUES (?)".into(), None).await.unwrap();
    insert.set_parameters(one_row(vec![Arc::new(Int64Array::from(vec![1, 2, 3]))])).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 3);
    let mut select = client.prepare("SELECT a FROM t WHERE a = ?".into(), None).await.unwrap();
    select.set_parameters(one_row(vec![Arc::new(Int64Array::from(vec![3, 9, 1]))])).unwrap();
    let info = select.execute().await.unwrap();
    let rows: Vec<i64> = fetch(client, info).await.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!(rows, [3, 1]);
}

#[tokio::test]
async fn missing_and_surplus_parameters_are_sentences() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let error = client.execute("SELECT CAST(? AS BIGINT)".into(), None).await.unwrap_err();
    assert!(code(error).1.contains("1 parameters and no values"));
    let mut prepared = client.prepare("SELECT CAST(? AS BIGINT)".into(), None).await.unwrap();
    prepared.set_parameters(one_row(vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![1]))])).unwrap();
    assert_eq!(code(prepared.execute().await.unwrap_err()).0, Code::InvalidArgument);
}

#[tokio::test]
async fn transactions_are_refused() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    assert_eq!(code(client.begin_transaction().await.unwrap_err()).0, Code::Unimplemented);
    let id = Some(prost::bytes::Bytes::from("t"));
    assert_eq!(code(client.execute("CREATE TABLE t AS SELECT 1".into(), id.clone()).await.unwrap_err()).0, Code::Unimplemented);
    assert_eq!(code(client.execute_update("CREATE TABLE t AS SELECT 1".into(), id).await.unwrap_err()).0, Code::Unimplemented);
    assert_eq!(server.executed(), 0);
}

#[tokio::test]
async fn tickets_and_handles_can_not_be_made_up() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let forged = TicketStatementQuery { statement_handle: b"SELECT 1".to_vec().into() };
    let error = client.do_get(Ticket::new(forged.as_any().encode_to_vec())).await.err().unwrap();
    assert_eq!(code(error).0, Code::NotFound);
    let error = client.do_get(Ticket::new("garbage")).await.err().unwrap();
    assert_eq!(code(error).0, Code::InvalidArgument);
    // A command that carries SQL is no ticket.
    let sql = CommandStatementQuery { query: "CREATE TABLE t AS SELECT 1".into(), transaction_id: None };
    assert!(client.do_get(Ticket::new(sql.as_any().encode_to_vec())).await.is_err());
    assert_eq!(server.executed(), 0);
}

#[tokio::test]
async fn get_schema_tells_without_executing() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let schema = async |client: &mut Client, sql: &str| {
        let command = CommandStatementQuery { query: sql.into(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let result = client.inner_mut().get_schema(descriptor).await.unwrap().into_inner();
        Schema::try_from(IpcMessage(result.schema)).unwrap()
    };
    assert_eq!(schema(client, "SELECT arrow_cast('a', 'Utf8View') AS t").await.field(0).data_type(), &DataType::Utf8);
    assert_eq!(schema(client, "CREATE TABLE t AS SELECT 1").await, Schema::empty());
    assert_eq!(server.executed(), 0);

    let command = CommandStatementQuery { query: "SELECT 1 AS a".into(), transaction_id: None };
    let poll = client.inner_mut().poll_flight_info(FlightDescriptor::new_cmd(command.as_any().encode_to_vec())).await.unwrap().into_inner();
    assert!(poll.flight_descriptor.is_none(), "complete at once");
    assert_eq!(fetch(client, poll.info.unwrap()).await[0].num_rows(), 1);
}
