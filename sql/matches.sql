-- Football matches: the topic as a table, and what is kept up to date over it.
-- `tidegate demo` runs this with its own broker in place of localhost:9092; so does docker-compose with Kafka. It may run again.

CREATE SOURCE IF NOT EXISTS match_events (
  match_id   BIGINT,
  home_team  TEXT,
  away_team  TEXT,
  id         TEXT,
  period     INT,
  minute     INT,
  second     INT,
  team       TEXT PATH '$.team.name',
  player     TEXT PATH '$.player.name',
  type_name  TEXT PATH '$.type.name',
  location   DOUBLE ARRAY,
  shot_outcome TEXT PATH '$.shot.outcome.name',
  xg         DOUBLE PATH '$.shot.statsbomb_xg',
  event_time TIMESTAMP,
  sent_at    TIMESTAMP METADATA FROM 'timestamp',
  WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds'
) WITH (
  connector = 'kafka',
  topic = 'statsbomb-events',
  'bootstrap.servers' = 'localhost:9092',
  format = 'json',
  'scan.startup.mode' = 'earliest'
);

-- What each team did in each minute of each match, as it happens.
CREATE CONTINUOUS VIEW IF NOT EXISTS team_minute AS
SELECT window_start, match_id, team,
       count(*) AS events,
       count(*) FILTER (WHERE type_name = 'Pass') AS passes,
       count(*) FILTER (WHERE type_name = 'Shot') AS shots,
       -- Period 5 is the penalty shoot-out: it does not enter the score.
       count(*) FILTER (WHERE (shot_outcome = 'Goal' AND period < 5) OR type_name = 'Own Goal For') AS goals,
       sum(xg) AS xg
FROM TUMBLE(match_events, event_time, INTERVAL '1 minute')
GROUP BY window_start, window_end, match_id, team
EMIT CHANGES;

-- Each minute once, when it is over: rows that never change again.
CREATE CONTINUOUS VIEW IF NOT EXISTS match_minute AS
SELECT window_start, match_id, home_team, away_team, count(*) AS events, count(DISTINCT player) AS players, sum(xg) AS xg
FROM TUMBLE(match_events, event_time, INTERVAL '1 minute')
GROUP BY window_start, window_end, match_id, home_team, away_team
EMIT ON WINDOW CLOSE;

-- Every shot: a filter and a projection.
CREATE CONTINUOUS VIEW IF NOT EXISTS shots AS
SELECT event_time, match_id, team, player, xg, shot_outcome
FROM match_events
WHERE type_name = 'Shot'
EMIT CHANGES;

-- The score so far: a plain view, computed when it is read.
CREATE VIEW IF NOT EXISTS score AS
SELECT match_id, team, sum(goals) AS goals, sum(shots) AS shots, sum(xg) AS xg
FROM team_minute
GROUP BY match_id, team;
