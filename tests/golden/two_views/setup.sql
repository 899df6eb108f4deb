CREATE SOURCE events (id BIGINT, kind TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 hour')
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

-- Two views of one topic, read at the same epoch: what one has counted, the other has too.
CREATE CONTINUOUS VIEW by_kind AS
SELECT window_start, kind, count(*) AS n FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, kind EMIT CHANGES;

CREATE CONTINUOUS VIEW by_minute AS
SELECT window_start, count(*) AS n, sum(id) AS ids FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start, window_end EMIT CHANGES;
