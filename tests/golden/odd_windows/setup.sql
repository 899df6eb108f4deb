CREATE SOURCE events (k TEXT, t TIMESTAMP FORMAT 'epoch_ms', WATERMARK FOR t AS t - INTERVAL '400 days')
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

-- Seven minutes don't divide an hour: windows are aligned to 1970, also before it. The filter stands below the window, the alias above it.
CREATE CONTINUOUS VIEW sevens AS
WITH kept AS (SELECT * FROM TUMBLE(events, t, INTERVAL '7 minutes') WHERE k IS DISTINCT FROM 'skip')
SELECT window_start AS begins, window_end AS ends, count(*) AS n FROM kept GROUP BY window_start, window_end
EMIT CHANGES;
