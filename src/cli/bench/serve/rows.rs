//! All rows of a large view, through one stream and through several.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::{Ticket, sql::client::FlightSqlServiceClient};
use futures::{StreamExt, future::try_join_all};
use tonic::transport::Channel;

use super::{Args, Served, bare, connect};
use crate::cli::bench::report::{Figure, Report, Unit};

const QUERY: &str = "SELECT id, team, xg FROM shots";
/// In how many streams a result is asked for, beside one.
const STREAMS: usize = 4;

pub(super) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let payload = |id| format!("{{\"id\":{id},\"team\":{},\"xg\":{}.5}}", id % 1000, id % 7);
    let (_broker, served) = Served::with_view("shots", "SELECT id, team, xg FROM events", "id BIGINT, team BIGINT, xg DOUBLE", args.rows, payload).await?;
    let batches = served.fresh.rows(QUERY).await?;
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let (bare_url, bare_serving) = bare::serve(batches).await?;
    for streams in [1, STREAMS] {
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        let mut clients = vec![];
        let mut bare_clients = vec![];
        for _ in 0..streams {
            clients.push(connect(&served.url).await?);
            bare_clients.push(connect(&bare_url).await?);
        }
        clients[0].execute_update(format!("SET tidegate.endpoints = {streams}"), None).await?;
        for _ in 0..args.runs {
            let started = Instant::now();
            let info = clients[0].execute(QUERY.into(), None).await?;
            let tickets: Vec<Ticket> = info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket).collect();
            anyhow::ensure!(tickets.len() == streams, "the result has {} tickets instead of {streams}", tickets.len());
            count(&mut clients, tickets, args.rows).await?;
            ours = ours.min(started.elapsed());
            let started = Instant::now();
            let tickets = (0..streams).map(|part| Ticket::new(format!("{part}/{streams}"))).collect();
            count(&mut bare_clients, tickets, args.rows).await?;
            theirs = theirs.min(started.elapsed());
        }
        let rate = |took: Duration| args.rows as f64 / took.as_secs_f64();
        report.add(
            Figure::new("serve", format!("rows-{streams}-stream{}", if streams == 1 { "" } else { "s" }), rate(ours), Unit::rate("rows/s"))
                .against("arrow-flight from memory", rate(theirs))
                .more("gb_per_second", bytes as f64 / ours.as_secs_f64() / 1e9)
                .more("rows", args.rows)
                .more("bytes", bytes)
                .more("runs", args.runs),
        )?;
    }
    bare_serving.abort();
    served.end().await
}

/// Fetches a result's parts at once, each through a connection of its own, and counts their rows.
async fn count(clients: &mut [FlightSqlServiceClient<Channel>], tickets: Vec<Ticket>, want: u64) -> anyhow::Result<()> {
    let counted = clients.iter_mut().zip(tickets).map(|(client, ticket)| async move {
        let mut rows = client.do_get(ticket).await?;
        let mut got = 0;
        while let Some(batch) = rows.next().await {
            got += batch?.num_rows() as u64;
        }
        Ok::<_, anyhow::Error>(got)
    });
    let got: u64 = try_join_all(counted).await?.into_iter().sum();
    anyhow::ensure!(got == want, "{got} rows came instead of {want}");
    Ok(())
}
