//! Simulated match events, and the main job over them: their source, and the view of one-minute windows a match and team.

use crate::source::matches::{
    MatchEvent,
    simulate::{SimulateOptions, SimulatedMatches},
};

/// The view, by name `team_minute`.
pub(super) const TEAM_MINUTE: &str = "CREATE CONTINUOUS VIEW team_minute AS SELECT window_start, match_id, team, count(*) AS events,
  count(*) FILTER (WHERE type_name = 'Pass') AS passes, count(*) FILTER (WHERE type_name = 'Shot') AS shots, sum(xg) AS xg
  FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team EMIT CHANGES";

/// So many events, of 60 matches at a time, none late and none with 360 data.
pub(super) fn simulated(events: usize) -> impl Iterator<Item = MatchEvent> {
    let options = SimulateOptions { matches: None, concurrent: 60, three_sixty: 0.0, late_receipts: false, ..SimulateOptions::default() };
    SimulatedMatches::new(&options).take(events)
}

/// The statement that makes the source `match_events` over a topic of these brokers.
pub(super) fn source(brokers: &str, topic: &str) -> String {
    source_with(brokers, topic, "", "")
}

/// The same with a further column, ended by its comma, and a further option, begun by one.
pub(super) fn source_with(brokers: &str, topic: &str, column: &str, option: &str) -> String {
    format!(
        "CREATE SOURCE match_events (match_id BIGINT, team TEXT PATH '$.team.name', type_name TEXT PATH '$.type.name', xg DOUBLE PATH '$.shot.statsbomb_xg',
           event_time TIMESTAMP, {column} WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
         WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{brokers}', format = 'json' {option})"
    )
}
