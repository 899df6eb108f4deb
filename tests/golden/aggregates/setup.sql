CREATE SOURCE facts (k TEXT, v BIGINT, price DECIMAL(8, 3), word TEXT, flag BOOLEAN, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 day')
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

CREATE CONTINUOUS VIEW hourly AS
SELECT window_start, k, count(*) AS n, count(v) AS n_v, count(DISTINCT v) AS kinds, sum(v) AS total, avg(v) AS mean, sum(price) AS price,
  min(word) AS first_word, max(word) AS last_word, bool_and(flag) AS every_flag, bool_or(flag) AS any_flag, var_pop(v) AS spread,
  median(v) AS middle
FROM TUMBLE(facts, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, k
EMIT CHANGES;
