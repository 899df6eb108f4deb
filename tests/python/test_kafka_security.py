"""A real Apache Kafka that wants to know who is there: TLS, every kind of login, denials; secrets and connections; looking around."""

import base64
import datetime
import json
import os
import time

import pytest

import kafka as kafka_module
import kafka_secure
import tidegate
from kafka_secure import CLIENT, PASSWORDS, with_options

COLUMNS = "(n INT, o BIGINT METADATA FROM 'offset')"


def number(n):
    return b'{"n": %d}' % n


def declare(server, topic, options, name="numbers", more=""):
    server.query(f"CREATE SOURCE {name} {COLUMNS} WITH (connector = 'kafka', topic = '{topic}', format = 'json', {with_options(options)}{more})")
    server.query(f"CREATE CONTINUOUS VIEW {name}_seen AS SELECT n FROM {name}")


def refused(server, topic, options):
    return server.refusal(f"CREATE SOURCE refused {COLUMNS} WITH (connector = 'kafka', topic = '{topic}', format = 'json', {with_options(options)})")


def state(server, name="numbers"):
    [row] = [row for row in server.query("SHOW SOURCES") if row["name"] == name]
    return row["state"], row["message"]


def until(ask, what, limit=40):
    deadline = time.monotonic() + limit
    while not what(got := ask()):
        assert time.monotonic() < deadline, got
        time.sleep(0.1)
    return got


KINDS = {
    "TLS": ("tls", {}),
    "mutual TLS": ("mtls", {}),
    "SCRAM-SHA-256": ("scram", {"sasl_mechanism": "SCRAM-SHA-256"}),
    "SCRAM-SHA-512": ("scram", {}),
    "PLAIN": ("pw", {}),
    "OAUTHBEARER": ("oauth", {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_and_go_over(kind, secure_kafka, serve):
    listener, more = KINDS[kind]
    topic, server = secure_kafka.fresh_topic("kinds", 2), serve()
    if listener == "tls":
        # Who shows no certificate is nobody.
        for operation in ("READ", "DESCRIBE", "WRITE"):
            secure_kafka.allow("ANONYMOUS", "TOPIC", topic, operation)
    kafka_module.send(secure_kafka.bootstrap, topic, [(n % 2, number(n)) for n in range(10)])
    declare(server, topic, secure_kafka.options(listener, **more))
    assert server.settle("SELECT count(*) FROM numbers_seen", 10) == 10
    assert server.value("SELECT sum(n) FROM numbers") == 45
    server.query("INSERT INTO numbers (n) VALUES (10), (11)")
    assert server.settle("SELECT sum(n) FROM numbers_seen", 66) == 66
    assert state(server) == ("running", "")
    # Longer than a login counts here: it is made anew under way.
    if kind in ("SCRAM-SHA-512", "OAUTHBEARER"):
        time.sleep(5)
        kafka_module.send(secure_kafka.bootstrap, topic, [(0, number(100))])
        assert server.settle("SELECT sum(n) FROM numbers_seen", 166) == 166
    want = 166 if kind in ("SCRAM-SHA-512", "OAUTHBEARER") else 66
    server.restart()
    assert server.settle("SELECT sum(n) FROM numbers_seen", want) == want


def test_all_kinds_of_compression(secure_kafka, serve):
    topic, server = secure_kafka.fresh_topic("compressed"), serve()
    codecs = ["gzip", "snappy", "lz4", "zstd"]
    text = "x" * 2000
    for n, codec in enumerate(codecs):
        kafka_module.send(secure_kafka.bootstrap, topic, [(0, json.dumps({"n": n, "t": text}).encode())] * 5, compression_type=codec)
    for n, codec in enumerate(codecs):
        more = f", 'properties.compression.type' = '{codec}'"
        server.query(f"""CREATE SOURCE c_{codec} (n INT, t TEXT)
          WITH (connector = 'kafka', topic = '{topic}', format = 'json', {with_options(secure_kafka.options("scram"))}{more})""")
        server.query(f"INSERT INTO c_{codec} SELECT {n}, '{text}' FROM generate_series(1, 5)")
    assert server.query(f"SELECT n, count(*) AS c, min(length(t)) AS l FROM c_gzip GROUP BY n ORDER BY n") == [{"n": n, "c": 10, "l": 2000} for n in range(4)]
    # 40 records of 2,000 bytes each: whoever wrote them has pressed them.
    log = next((secure_kafka.folder / "log").glob(f"{topic}-0/*.log"))
    assert log.stat().st_size < 20_000


def test_what_is_wrong_is_said_in_the_statement(secure_kafka, serve):
    topic, server = secure_kafka.fresh_topic("wrong"), serve()
    expired, its_key = secure_kafka.authority.issue("ann", begins=-20, days=-10)
    foreign, foreign_key = secure_kafka.other_authority.issue("ann")
    for options, words in [
        (secure_kafka.options("scram", sasl_password="no-such-pw"), ["refuses the login", "'sasl.password'"]),
        (secure_kafka.options("scram", sasl_username="nobody"), ["refuses the login", "'sasl.username'"]),
        (secure_kafka.options("pw", sasl_password="no-such-pw"), ["refuses the login", "'sasl.password'"]),
        (secure_kafka.options("pw", sasl_mechanism="SCRAM-SHA-256"), ["SCRAM-SHA-256", "'sasl.mechanism'"]),
        (secure_kafka.options("oauth", sasl_oauthbearer_client_secret="no-such-pw"), ["no token could be had", "'sasl.oauthbearer.client.secret'"]),
        (secure_kafka.options("oauth", https_ca_pem=None), ["'https.ca.pem'"]),
        (secure_kafka.options("scram", ssl_ca_pem=secure_kafka.other_authority.pem), ["authority", "'ssl.ca.pem'"]),
        (secure_kafka.options("tls", ssl_ca_pem=None), ["authority", "'ssl.ca.pem'"]),
        (secure_kafka.options("tls", bootstrap_servers=secure_kafka.bootstrap), ["speaks no TLS"]),
        (secure_kafka.options("tls", bootstrap_servers=secure_kafka.address("mtls")), ["certificate", "'ssl.certificate.pem'"]),
        (secure_kafka.options("mtls", ssl_certificate_pem=foreign, ssl_key_pem=foreign_key), ["certificate", "'ssl.certificate.pem'"]),
        (secure_kafka.options("mtls", ssl_certificate_pem=expired, ssl_key_pem=its_key), ["certificate", "'ssl.certificate.pem'"]),
        (secure_kafka.options("mtls", ssl_key_pem=foreign_key), ["can't be made: ssl.key.pem failed"]),
        (secure_kafka.options("tls") | {"properties.fetch.min.byte": "3"}, ["fetch.min.byte"]),
    ]:
        said = refused(server, topic, options)
        for word in words:
            assert word in said, (word, said)
        for secret in ("no-such-pw", "PRIVATE KEY", PASSWORDS["ann"], CLIENT[1]):
            assert secret not in said, said
    assert server.query("SHOW SOURCES") == []


def test_denials_name_the_topic_and_the_operation(secure_kafka, serve):
    topic, server = secure_kafka.fresh_topic("denied"), serve()
    kafka_module.send(secure_kafka.bootstrap, topic, [(0, number(1))])
    options = secure_kafka.options("scram", user="bob")
    said = refused(server, topic, options)
    assert topic in said and "READ" in said and "does not allow" in said, said
    for operation in ("READ", "DESCRIBE"):
        secure_kafka.allow("bob", "TOPIC", topic, operation)
    declare(server, topic, options)
    assert server.settle("SELECT count(*) FROM numbers_seen", 1) == 1
    # What shows the lag to others is denied, and told; it keeps nobody from reading.
    assert server.value("SELECT count(*) FROM numbers") == 1
    said = until(lambda: state(server), lambda s: "consumer group" in s[1])
    assert said[0] == "running" and "tidegate-<source>" in said[1]
    said = server.refusal("INSERT INTO numbers (n) VALUES (2)")
    assert topic in said and "WRITE" in said, said
    # Taken away while it runs.
    secure_kafka.forbid("bob", "TOPIC", topic, "READ")
    secure_kafka.forbid("bob", "TOPIC", topic, "DESCRIBE")
    kafka_module.send(secure_kafka.bootstrap, topic, [(0, number(2))])
    said = until(lambda: state(server), lambda s: s[0] == "connecting")
    assert topic in said[1] and "READ" in said[1], said
    [row] = [row for row in server.query("SELECT state, message FROM system.sources") if row["state"] == "connecting"]
    assert "READ" in row["message"]
    for operation in ("READ", "DESCRIBE"):
        secure_kafka.allow("bob", "TOPIC", topic, operation)
    secure_kafka.allow("bob", "GROUP", "tidegate-numbers", "READ")
    assert server.settle("SELECT count(*) FROM numbers_seen", 2, 60) == 2
    assert until(lambda: state(server), lambda s: s[0] == "running")[0] == "running"


def test_a_password_that_changes_keeps_the_place(secure_kafka, serve, tmp_path):
    topic, server = secure_kafka.fresh_topic("rotated", 2), serve(checkpoint_interval="1s")
    old, new = "rotated-pw-one-8d1", "rotated-pw-two-44f"
    secure_kafka.set_password("rita", old)
    for operation in ("READ", "DESCRIBE"):
        secure_kafka.allow("rita", "TOPIC", topic, operation)
    secure_kafka.allow("rita", "GROUP", "tidegate-numbers", "READ")
    server.query(f"CREATE SECRET rita_pw AS '{old}'")
    options = secure_kafka.options("scram", sasl_username="rita", sasl_password=("SECRET", "rita_pw"))
    said = server.refusal(f"CREATE CONNECTION c TO KAFKA ({with_options(options | {'sasl.password': 'no-such-pw'})})")
    assert "refuses the login" in said and "validate = false" in said and "no-such-pw" not in said, said
    server.query(f"CREATE CONNECTION c TO KAFKA ({with_options(options)})")
    declare(server, topic, {}, more="connection = c")
    sent = 0

    def send():
        nonlocal sent
        kafka_module.send(secure_kafka.bootstrap, topic, [(n % 2, number(n)) for n in range(sent, sent + 20)])
        sent += 20

    def check():
        assert server.settle("SELECT count(*) FROM numbers_seen", sent, 60) == sent
        assert server.value("SELECT count(DISTINCT n) FROM numbers_seen") == sent

    send()
    check()
    # A login counts four seconds here: then the old password is refused.
    secure_kafka.set_password("rita", new)
    said = until(lambda: state(server), lambda s: s[0] == "connecting")
    assert "refuses the login" in said[1], said
    send()
    server.query(f"ALTER SECRET rita_pw AS '{new}'")
    check()
    assert until(lambda: state(server), lambda s: s[0] == "running") == ("running", "")
    # The same through the connection: another user, whose password stands in it.
    server.query(f"ALTER CONNECTION c SET ('sasl.username' = 'ann', 'sasl.password' = '{PASSWORDS['ann']}')")
    send()
    check()
    [shown] = server.query("SHOW CREATE CONNECTION c")
    assert "'sasl.password' = '***'" in shown["statement"] and PASSWORDS["ann"] not in shown["statement"]
    server.restart()
    send()
    check()
    assert "refuses the login" in server.refusal("ALTER CONNECTION c SET ('sasl.password' = 'no-such-pw')")
    server.query("ALTER CONNECTION c SET ('sasl.password' = 'no-such-pw') WITH (validate = false)")
    server.query(f"ALTER CONNECTION c SET ('sasl.password' = '{PASSWORDS['ann']}')")
    send()
    check()
    assert "numbers" in server.refusal("DROP CONNECTION c")
    server.query("DROP SECRET rita_pw")
    server.query("DROP CONNECTION c CASCADE")
    assert server.query("SHOW SOURCES") == [] and server.query("SHOW CONNECTIONS") == [] and server.query("SHOW SECRETS") == []


def test_looking_around(secure_kafka, serve):
    topic, empty, server = secure_kafka.fresh_topic("looked", 2), secure_kafka.fresh_topic("empty"), serve()
    server.query(f"CREATE CONNECTION c TO KAFKA ({with_options(secure_kafka.options('scram'))})")
    kafka_module.send(secure_kafka.bootstrap, topic, [
        *[(0, number(n), {"key": f"k{n}", "headers": [("h", b"v"), ("raw", b"\xff")], "timestamp": 1_700_000_000_000 + n}) for n in range(10)],
        (1, b"\x00\x00\x00\x00\x07abc"), (1, None),
    ])
    topics = {row["topic"]: row for row in server.query("SHOW TOPICS FROM CONNECTION c")}
    assert topics[topic] == {"topic": topic, "partitions": 2, "records": 12, "internal": False}
    assert topics[empty]["records"] == 0
    rows = server.query(f"DESCRIBE TOPIC '{topic}' FROM CONNECTION c")
    assert [(row["partition"], row["low_offset"], row["end_offset"], row["offset"]) for row in rows] == [(0, 0, 10, 7), (0, 0, 10, 8), (0, 0, 10, 9), (1, 0, 2, 0), (1, 0, 2, 1)]
    assert [row["format"] for row in rows] == ["json"] * 3 + ["schema registry, schema 7 (avro, protobuf or json)", "tombstone"]
    assert rows[2]["key"] == "k9" and rows[2]["payload"] == '{"n": 9}' and rows[2]["bytes"] == 8 and rows[2]["timestamp"].replace(tzinfo=datetime.timezone.utc).timestamp() == 1_700_000_000.009
    assert rows[2]["headers"] == r'{"h": "v", "raw": "\\xff"}'
    [row] = server.query(f"DESCRIBE TOPIC '{empty}' FROM CONNECTION c")
    assert (row["end_offset"], row["offset"], row["format"]) == (0, None, None)
    assert "does not exist" in server.refusal("DESCRIBE TOPIC 'no-such-topic' FROM CONNECTION c")
    assert "no connection d" in server.refusal("SHOW TOPICS FROM CONNECTION d")
    [row] = server.query("SHOW CONNECTIONS")
    assert row == {"name": "c", "kind": "kafka", "brokers": secure_kafka.address("scram"), "security": "SASL_SSL SCRAM-SHA-512", "schema_registry": None, "used_by": ""}


def test_a_source_that_is_read_slowly(secure_kafka, serve):
    topic, server = secure_kafka.fresh_topic("slow", 2), serve()
    kafka_module.send(secure_kafka.bootstrap, topic, [(n % 2, number(n)) for n in range(1000)])
    begin = time.monotonic()
    declare(server, topic, {"bootstrap.servers": secure_kafka.bootstrap}, more=", 'max.records.per.second' = 100")
    seen = until(lambda: server.value("SELECT count(*) FROM numbers_seen"), lambda seen: seen >= 300)
    passed = time.monotonic() - begin
    assert passed > 1.5 and seen <= 100 * passed + 150, (seen, passed)
    assert server.settle("SELECT count(*) FROM numbers_seen", 1000) == 1000
    assert time.monotonic() - begin > 8
    declare(server, topic, {"bootstrap.servers": secure_kafka.bootstrap}, name="bytes", more=", 'max.bytes.per.second' = '1 KiB'")
    begin, first = time.monotonic(), server.value("SELECT count(*) FROM bytes_seen")
    time.sleep(3)
    # A record is nine or ten bytes here.
    assert 150 < server.value("SELECT count(*) FROM bytes_seen") - first < 600


def test_who_may_use_what(secure_kafka, serve):
    topic = secure_kafka.fresh_topic("grants")
    kafka_module.send(secure_kafka.bootstrap, topic, [(0, number(1))])
    server = serve(admin_password="battery staple")
    connections = {}

    def run(user, sql):
        if user not in connections:
            connections[user] = server.connect(username=user, password="battery staple")
        with connections[user].cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table().to_pylist()

    def fails(user, sql):
        try:
            run(user, sql)
        except Exception as error:
            return tidegate.message(error)
        raise AssertionError(sql)

    try:
        for name in ("bob", "eve"):
            run("admin", f"CREATE USER {name} WITH PASSWORD 'battery staple'")
            run("admin", f"GRANT CREATE, SELECT ON SCHEMA public TO {name}")
        run("admin", f"CREATE SECRET ann_pw AS '{PASSWORDS['ann']}'")
        options = secure_kafka.options("scram", sasl_password=("SECRET", "ann_pw"))
        run("admin", f"CREATE CONNECTION c TO KAFKA ({with_options(options)})")
        source = f"CREATE SOURCE bobs {COLUMNS} WITH (connector = 'kafka', topic = '{topic}', format = 'json', connection = c)"
        # A right to read all rows is none to use what there is to use.
        for user in ("bob", "eve"):
            assert run(user, "SHOW SECRETS") == [] and run(user, "SHOW CONNECTIONS") == []
            assert "no connection c" in fails(user, source) and "no connection c" in fails(user, "SHOW TOPICS FROM CONNECTION c")
            assert "no secret ann_pw" in fails(user, f"CREATE CONNECTION d TO KAFKA ({with_options(options)}) WITH (validate = false)")
        run("admin", "GRANT USAGE ON CONNECTION c TO bob")
        assert "there is USAGE" in fails("admin", "GRANT SELECT ON c TO bob")
        run("bob", source)
        assert run("bob", "SELECT n FROM bobs") == [{"n": 1}]
        assert run("bob", "SHOW CREATE CONNECTION c")[0]["statement"].count("SECRET ann_pw") == 1
        assert "may not change c" in fails("bob", "ALTER CONNECTION c SET ('sasl.username' = 'bob')")
        assert "may not change c" in fails("bob", "DROP CONNECTION c")
        # Its secrets go where the connection says and nowhere else.
        assert "leave one of the two out" in fails("bob", source.replace("bobs", "evil").replace("connection = c", "connection = c, 'bootstrap.servers' = '127.0.0.1:1'"))
        assert "has no rows" in fails("admin", "SELECT * FROM c") and "not found" in fails("eve", "SELECT * FROM c")
        assert "can be used and not read" in fails("admin", "SELECT * FROM ann_pw")
        run("admin", "GRANT USAGE ON SECRET ann_pw TO eve")
        assert run("eve", "SHOW SECRETS") == [{"name": "ann_pw"}]
        assert run("eve", "SHOW CREATE SECRET ann_pw")[0]["statement"] == "CREATE SECRET ann_pw AS '***'"
        run("eve", f"CREATE CONNECTION d TO KAFKA ({with_options(options)})")
        assert "may not change ann_pw" in fails("eve", "ALTER SECRET ann_pw AS 'x'")
        assert {row["name"] for row in run("admin", "SHOW TABLES")} == {"bobs"}
    finally:
        for connection in connections.values():
            connection.close()


def test_secrets_are_nowhere(secure_kafka, serve, tmp_path):
    topic = secure_kafka.fresh_topic("nowhere")
    for operation in ("READ", "DESCRIBE", "WRITE"):
        secure_kafka.allow("bob", "TOPIC", topic, operation)
    kafka_module.send(secure_kafka.bootstrap, topic, [(0, number(1))])
    server = serve(log="trace", checkpoint_interval="1s")
    scram, oauth = secure_kafka.options("scram"), secure_kafka.options("oauth")
    mtls = secure_kafka.options("mtls")
    server.query(f"CREATE SECRET pw AS '{PASSWORDS['ann']}'")
    server.query(f"CREATE CONNECTION named TO KAFKA ({with_options(scram | {'sasl.password': ('SECRET', 'pw')})})")
    server.query(f"CREATE CONNECTION literal TO KAFKA ({with_options(oauth)})")
    declare(server, topic, {}, name="a", more="connection = named")
    declare(server, topic, {}, name="b", more="connection = literal")
    declare(server, topic, secure_kafka.options("scram", user="bob"), name="d")
    declare(server, topic, mtls, name="e")
    for sent, name in enumerate("abde", 1):
        # They all read the same topic.
        assert server.settle(f"SELECT count(*) FROM {name}_seen", sent) == sent
        server.query(f"INSERT INTO {name} (n) VALUES (2)")
    wrong = "no-such-pw-e7"
    said = [refused(server, topic, scram | {"sasl.password": wrong}), server.refusal(f"CREATE SECRET pw AS '{wrong}'"), server.refusal(f"CREATE SECRET x '{wrong}'"),
            server.refusal(f"CREATE CONNECTION x TO KAFKA ({with_options(scram | {'sasl.password': wrong})})"),
            server.refusal(f"CREATE CONNECTION x TO KAFKA ({with_options(scram | {'sasl.password': wrong, 'odd': 1})})")]
    for name in "abde":
        said.append(str(server.query(f"SHOW CREATE SOURCE {name}")) + str(server.query(f"EXPLAIN VIEW {name}_seen")) + str(server.query(f"EXPLAIN SELECT * FROM {name}")))
    said += [str(server.query(f"SHOW {what}")) for what in ("CREATE CONNECTION named", "CREATE CONNECTION literal", "CREATE SECRET pw", "SECRETS", "CONNECTIONS", "SOURCES", "QUERIES")]
    said += [str(server.query(f"SELECT * FROM system.{row['table_name']}")) for row in server.query("SELECT table_name FROM information_schema.tables WHERE table_schema = 'system'")]
    time.sleep(1.5)
    server.restart()
    for name in "abde":
        assert server.settle(f"SELECT count(*) FROM {name}_seen", 5) == 5
    server.stop()
    key = mtls["ssl.key.pem"].splitlines()[1]
    secrets = [PASSWORDS["ann"], PASSWORDS["bob"], CLIENT[1], wrong, key]
    for text in said:
        for secret in secrets:
            assert secret not in text, text[:300]
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    assert any(path.name == "catalog.json" for path in files) and any(path.suffix == ".err" for path in files)
    for path in files:
        kept = path.read_bytes()
        for secret in secrets:
            for form in (secret.encode(), base64.b64encode(secret.encode()).rstrip(b"=")[:-1]):
                assert form not in kept, (path, secret)
    assert (server.data / "secret.key").stat().st_mode & 0o777 == 0o600


def test_the_key_may_come_from_elsewhere(secure_kafka, serve, tmp_path):
    key = base64.b64encode(os.urandom(32)).decode()
    server = serve(secret_key=key)
    options = with_options(secure_kafka.options("scram"))
    server.query(f"CREATE CONNECTION c TO KAFKA ({options})")
    assert not (server.data / "secret.key").exists()
    server.restart()
    assert len(server.query("SHOW TOPICS FROM CONNECTION c")) > 0
    server.stop()
    for settings, words in [({}, "secret.key"), ({"secret_key": base64.b64encode(os.urandom(32)).decode()}, "encrypted with another key"), ({"secret_key": "short"}, "openssl rand -base64 32")]:
        server.settings = settings
        with pytest.raises(RuntimeError) as error:
            server.start()
        assert words in str(error.value) and key not in str(error.value)
    file = tmp_path / "key"
    file.write_text(key + "\n")
    server.settings = {"secret_key_file": file}
    server.start()
    assert len(server.query("SHOW TOPICS FROM CONNECTION c")) > 0


def test_a_broker_that_can_not_be_reached(serve):
    server = serve()
    [port] = kafka_module.free_ports(1)
    begin = time.monotonic()
    said = server.refusal(f"CREATE CONNECTION c TO KAFKA ('bootstrap.servers' = '127.0.0.1:{port}')")
    assert "no answer" in said and str(port) in said and "validate = false" in said and time.monotonic() - begin < 15
    server.query(f"CREATE CONNECTION c TO KAFKA ('bootstrap.servers' = '127.0.0.1:{port}') WITH (validate = false)")
    server.query(f"CREATE CONNECTION IF NOT EXISTS c TO KAFKA ('bootstrap.servers' = '127.0.0.1:{port}')")
    assert "exists already" in server.refusal(f"CREATE CONNECTION c TO KAFKA ('bootstrap.servers' = '127.0.0.1:{port}') WITH (validate = false)")
    assert "ALTER CONNECTION" in server.refusal("CREATE OR REPLACE CONNECTION c TO KAFKA ('bootstrap.servers' = 'x:1')")
