//! Results on their way: types, sizes, subscriptions, cancellation, errors.

use super::*;

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
