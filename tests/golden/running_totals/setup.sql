CREATE SOURCE payments (account BIGINT, amount BIGINT)
WITH (connector = 'kafka', topic = '${topic}', 'bootstrap.servers' = '${brokers}', format = 'json');

-- No window: the user says that the number of accounts is bounded.
CREATE CONTINUOUS VIEW balances WITH (unbounded_state = true) AS
SELECT account, sum(amount) AS balance, count(*) AS payments, max(amount) AS largest FROM payments GROUP BY account
EMIT CHANGES;
