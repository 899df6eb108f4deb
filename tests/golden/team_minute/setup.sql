CREATE SOURCE events (
  match_id BIGINT, team TEXT PATH '$.team.name', kind TEXT PATH '$.type.name', xg DOUBLE PATH '$.shot.statsbomb_xg', event_time TIMESTAMP,
  WATERMARK FOR event_time AS event_time - INTERVAL '1 hour'
) WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

CREATE CONTINUOUS VIEW team_minute AS
SELECT window_start, window_end, match_id, team, count(*) AS events, count(*) FILTER (WHERE kind = 'Pass') AS passes,
  count(*) FILTER (WHERE kind = 'Shot') AS shots, sum(xg) AS xg
FROM TUMBLE(events, event_time, INTERVAL '1 minute')
GROUP BY window_start, window_end, match_id, team
EMIT CHANGES;
