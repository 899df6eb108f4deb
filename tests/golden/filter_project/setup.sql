CREATE SOURCE orders (id BIGINT, customer TEXT, amount DECIMAL(12, 2), items STRUCT<count INT, note TEXT>)
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

CREATE CONTINUOUS VIEW large_orders AS
SELECT id, upper(customer) AS customer, amount * 2 AS doubled, items['count'] AS items,
  CASE WHEN amount >= 1000 THEN 'huge' ELSE 'large' END AS size
FROM orders WHERE amount > 100;
