//! The server as a client meets it: real gRPC on a free port, over a backend on plain DataFusion.
#![allow(clippy::unwrap_used)]

mod double;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
    util::pretty::pretty_format_batches,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, FlightDescriptor, FlightInfo, IpcMessage, Ticket,
    sql::{
        CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetTables,
        CommandGetXdbcTypeInfo, CommandStatementQuery, ProstMessageExt, TicketStatementQuery, client::FlightSqlServiceClient,
    },
};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, transport::Channel};

use self::double::Double;
use super::{
    Options, Server,
    session_options::{GetSessionOptionsResult, OneOption, OptionValue, SetSessionOptionsRequest, SetSessionOptionsResult},
};
use crate::error::Result;

type Client = FlightSqlServiceClient<Channel>;

struct Running {
    backend: Arc<Double>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<()>>,
}

impl Running {
    async fn start() -> Self {
        let backend = Double::new();
        let server = Server::bind(backend.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let server = server.with_options(Options { heartbeat: Duration::from_millis(100) });
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { backend, address, stop: Some(stop), task }
    }

    async fn client(&self) -> Client {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        let inner = arrow_flight::flight_service_client::FlightServiceClient::new(channel).max_decoding_message_size(16 << 20);
        Client::new_from_inner(inner)
    }

    fn executed(&self) -> usize {
        self.backend.executed.load(Ordering::SeqCst)
    }

    async fn until_alive(&self, count: usize) {
        let reached = async {
            while self.backend.alive.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("the number of live streams is reached");
    }
}

fn ticket(info: &FlightInfo) -> Ticket {
    assert_eq!(info.endpoint.len(), 1, "some clients want exactly one endpoint");
    assert!(info.endpoint[0].location.is_empty());
    info.endpoint[0].ticket.clone().unwrap()
}

/// Fetches a result, checking that its schema is the one that was told.
async fn fetch(client: &mut Client, info: FlightInfo) -> Vec<RecordBatch> {
    let told = info.clone().try_decode_schema().unwrap();
    let mut stream = client.do_get(ticket(&info)).await.unwrap();
    let batches: Vec<RecordBatch> = (&mut stream).try_collect().await.unwrap();
    assert_eq!(stream.schema().unwrap().as_ref(), &told);
    batches
}

async fn query(client: &mut Client, sql: &str) -> Vec<RecordBatch> {
    let info = client.execute(sql.into(), None).await.unwrap();
    fetch(client, info).await
}

async fn check(client: &mut Client, sql: &str, expected: &str) {
    let shown = pretty_format_batches(&query(client, sql).await).unwrap().to_string();
    let trimmed: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), trimmed);
}

fn one_row(columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(at, column)| (at.to_string(), column))).unwrap()
}

fn code(error: arrow_flight::error::FlightError) -> (Code, String) {
    match error {
        arrow_flight::error::FlightError::Tonic(status) => (status.code(), status.message().to_owned()),
        other => panic!("not a status: {other}"),
    }
}

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
async fn what_travels_is_plain() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let batches =
        query(client, "SELECT arrow_cast('a', 'Utf8View') AS t, arrow_cast('d', 'Dictionary(Int32, Utf8)') AS d, make_array(arrow_cast('b', 'Utf8View')) AS l")
            .await;
    let types: Vec<DataType> = batches[0].schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types[..2], [DataType::Utf8, DataType::Utf8]);
    assert!(matches!(&types[2], DataType::List(item) if item.data_type() == &DataType::Utf8));
}

#[tokio::test]
async fn an_empty_result_still_has_its_schema() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let info = client.execute("SELECT 1 AS a WHERE false".into(), None).await.unwrap();
    assert!(fetch(client, info).await.is_empty());
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
async fn a_large_result_is_divided() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    // 40 MB in all: a default gRPC client takes messages of 4 MiB.
    let sql = "SELECT value, repeat('x', 1000) AS t FROM generate_series(1, 40000)";
    let info = client.execute(sql.into(), None).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut raw = arrow_flight::flight_service_client::FlightServiceClient::new(channel);
    let messages: Vec<_> = raw.do_get(ticket(&info)).await.unwrap().into_inner().try_collect().await.unwrap();
    assert!(messages.iter().all(|message| message.encoded_len() < 2 << 20));
    let rows: usize = fetch(client, info).await.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 40_000);
}

#[tokio::test]
async fn one_row_larger_than_the_limit_arrives() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let batches = query(client, "SELECT repeat('x', 6000000) AS t").await;
    assert_eq!(batches[0].column(0).as_string::<i32>().value(0).len(), 6_000_000);
}

#[tokio::test]
async fn a_subscription_sends_rows_then_heartbeats_and_ends_when_dropped() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let info = client.execute("SUBSCRIBE 2".into(), None).await.unwrap();
    assert_eq!(server.backend.alive.load(Ordering::SeqCst), 0, "nothing runs before it is fetched");
    let mut stream = client.do_get(ticket(&info)).await.unwrap();
    let mut sizes = vec![];
    for _ in 0..4 {
        sizes.push(tokio::time::timeout(Duration::from_secs(2), stream.next()).await.unwrap().unwrap().unwrap().num_rows());
    }
    assert_eq!(sizes, [1, 1, 0, 0], "two rows, then heartbeats");
    server.until_alive(1).await;
    drop(stream);
    server.until_alive(0).await;
}

#[tokio::test]
async fn a_result_is_cancelled_by_its_ticket() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    let info = client.execute("SUBSCRIBE 1".into(), None).await.unwrap();
    let mut stream = client.do_get(ticket(&info)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    client.do_action(Action::new("CancelFlightInfo", body)).await.unwrap();
    let ended = async {
        loop {
            if let Err(error) = stream.next().await.unwrap() {
                return code(error).0;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(2), ended).await.unwrap(), Code::Cancelled);
    server.until_alive(0).await;
    assert_eq!(code(client.do_get(ticket(&info)).await.err().unwrap()).0, Code::Cancelled);
}

#[tokio::test]
async fn stopping_ends_subscriptions() {
    let mut server = Running::start().await;
    let client = &mut server.client().await;
    let info = client.execute("SUBSCRIBE 1".into(), None).await.unwrap();
    let mut stream = client.do_get(ticket(&info)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    let last = stream.filter_map(|item| std::future::ready(item.err())).next().await.unwrap();
    assert_eq!(code(last), (Code::Unavailable, "the server is stopping".into()));
    tokio::time::timeout(Duration::from_secs(6), &mut server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn errors_have_the_right_code_and_are_short() {
    let server = Running::start().await;
    let client = &mut server.client().await;
    for (sql, expected) in [
        ("FAIL invalid", Code::InvalidArgument),
        ("FAIL missing", Code::NotFound),
        ("FAIL external", Code::Unavailable),
        ("FAIL long", Code::InvalidArgument),
        ("SELEC 1", Code::InvalidArgument),
        ("SELECT nonsense FROM (SELECT 1 AS a)", Code::InvalidArgument),
        ("SELECT * FROM nowhere", Code::NotFound),
    ] {
        let (code, message) = code(client.execute(sql.into(), None).await.unwrap_err());
        assert_eq!(code, expected, "{sql}: {message}");
        assert!(!message.is_empty() && message.chars().count() <= 2001);
        assert_eq!(self::code(client.prepare(sql.into(), None).await.unwrap_err()).0, expected, "{sql}");
        assert_eq!(self::code(client.execute_update(sql.into(), None).await.unwrap_err()).0, expected, "{sql}");
    }
    for (sql, expected) in [("FAIL later", Code::Cancelled), ("PANIC later", Code::Internal)] {
        let info = client.execute(sql.into(), None).await.unwrap();
        let error = client.do_get(ticket(&info)).await.unwrap().try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(code(error).0, expected, "{sql}");
    }
    query(client, "SELECT 2").await;
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

async fn act<M: Message + Default>(client: &mut Client, name: &str, body: Vec<u8>) -> M {
    let mut results = client.do_action(Action::new(name, body)).await.unwrap();
    M::decode(results.message().await.unwrap().unwrap().body).unwrap()
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
    assert!(refused.contains("only loopback"), "{refused}");
    let server = Running::start().await;
    let taken = Server::bind(Double::new(), server.address).await.unwrap_err().to_string();
    assert!(taken.contains("in use"), "{taken}");
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
async fn a_statement_outlives_the_client_that_asked_for_it() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let asked = tokio::spawn(async move { client.execute("CREATE TABLE t AS SELECT count(*) FROM generate_series(1, 20000000)".into(), None).await });
    while server.executed() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asked.abort();
    let client = &mut server.client().await;
    let appeared = async {
        while client.execute("SELECT * FROM t".into(), None).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), appeared).await.expect("the table is made");
}
