CREATE SOURCE readings (sensor TEXT, celsius DOUBLE, ts TIMESTAMP FORMAT 'epoch_s', WATERMARK FOR ts AS ts - INTERVAL '10 minutes')
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

-- Windows that the watermark has passed, once and for all.
CREATE CONTINUOUS VIEW quarter_hours AS
SELECT window_start, sensor, count(*) AS n, min(celsius) AS low, max(celsius) AS high
FROM TUMBLE(readings, ts, INTERVAL '15 minutes')
GROUP BY window_start, window_end, sensor
EMIT ON WINDOW CLOSE;
