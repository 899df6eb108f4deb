CREATE SOURCE events (id BIGINT, k TEXT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 hour')
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

CREATE CONTINUOUS VIEW counted AS
SELECT window_start, k, count(*) AS n, sum(id) AS ids
FROM TUMBLE(events, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, k
EMIT CHANGES;
