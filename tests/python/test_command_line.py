"""The commands as a user types them: help, flags, configuration, exit statuses, what they send and print."""

import gzip
import json
import re
import signal
import time

import pytest

import oracle
import tidegate
from kafka import free_ports


def finished(folder, *arguments, limit=60, settings=None):
    """Runs a command to its end: (exit status, standard output, standard error)."""
    process = tidegate.Process(folder, *arguments, settings=settings)
    try:
        status = process.wait(limit)
    finally:
        process.kill()
    return status, process.out.read_text(), process.err.read_text()


@pytest.mark.parametrize("command", ["serve", "demo", "sql", "user", "broker", "simulate", "replay", "bench"])
def test_help_teaches(command, tmp_path):
    status, out, _ = finished(tmp_path, command, "--help")
    assert status == 0 and "Usage: tidegate " + command in out and len(out) > 300


def test_the_brokers_help_says_what_it_is_not(tmp_path):
    _, out, _ = finished(tmp_path, "broker", "--help")
    text = " ".join(out.split()).lower()
    assert "5 mib" in text and "100,000" in text and "time" in text and "isolation" in text


# --- serve

def test_a_port_in_use(serve, tmp_path):
    address = serve().url.removeprefix("grpc://")
    status, _, err = finished(tmp_path, "serve", "--listen", address, "--data-dir", tmp_path / "other")
    assert status != 0 and address in err and "panicked" not in err


def test_a_data_dir_in_use(serve, tmp_path):
    server = serve()
    status, _, err = finished(tmp_path, "serve", "--listen", "127.0.0.1:0", "--data-dir", server.data)
    assert status != 0 and str(server.data) in err and "panicked" not in err
    assert server.value("SELECT 1") == 1
    # A process that was killed leaves no lock behind.
    server.restart()
    assert server.value("SELECT 1") == 1


def test_it_listens_on_loopback_only(tmp_path):
    status, _, err = finished(tmp_path, "serve", "--listen", "0.0.0.0:0", "--data-dir", tmp_path / "data")
    assert status != 0 and "loopback" in err and "0.0.0.0" in err


def test_configuration_file_below_environment_below_flags(tmp_path):
    config = tmp_path / "tidegate.toml"
    ports = free_ports(3)
    config.write_text(f'listen = "127.0.0.1:{ports[0]}"\ndata_dir = "{tmp_path / "from-file"}"\n')

    def listening(*flags, **settings):
        process = tidegate.Process(tmp_path, "serve", "--config", config, *flags, settings=settings)
        try:
            return int(process.wait_for("listening on ").rpartition(":")[2])
        finally:
            process.stop()

    assert listening() == ports[0]
    assert (tmp_path / "from-file").is_dir()
    assert listening(listen=f"127.0.0.1:{ports[1]}") == ports[1]
    assert listening("--listen", f"127.0.0.1:{ports[2]}", listen=f"127.0.0.1:{ports[1]}") == ports[2]


def test_unknown_configuration_is_refused(tmp_path):
    config = tmp_path / "tidegate.toml"
    config.write_text("max_epoch_rovs = 7\n")
    status, _, err = finished(tmp_path, "serve", "--config", config, "--data-dir", tmp_path / "data")
    assert status != 0 and "max_epoch_rovs" in err and str(config) in err
    status, _, err = finished(tmp_path, "serve", "--data-dir", tmp_path / "data", settings={"max_epoch_rovs": 7})
    assert status != 0 and "TIDEGATE_MAX_EPOCH_ROVS" in err
    status, _, err = finished(tmp_path, "serve", "--data-dir", tmp_path / "data", settings={"max_epoch_rows": "many"})
    assert status != 0 and "max_epoch_rows" in err.lower() and "many" in err
    status, _, err = finished(tmp_path, "serve", "--config", tmp_path / "not-there.toml", "--data-dir", tmp_path / "data")
    assert status != 0 and "not-there.toml" in err


def test_an_init_script_that_is_wrong(tmp_path):
    script = tmp_path / "wrong.sql"
    script.write_text("SELECT 1;\nCREATE NONSENSE;\n")
    status, out, err = finished(tmp_path, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", "--init", script)
    assert status != 0 and "wrong.sql" in err and "listening on" not in out


def test_files_only_below_allowed_folders(serve, tmp_path):
    allowed, secret = tmp_path / "allowed", tmp_path / "secret.csv"
    allowed.mkdir()
    (allowed / "data.csv").write_text("a,b\n1,x\n2,y\n")
    secret.write_text("a\n1\n")
    (allowed / "link.csv").symlink_to(secret)
    server = serve("--allow-path", str(allowed))
    assert server.value(f"SELECT sum(a) FROM '{allowed}/data.csv'") == 3
    for path in (secret, allowed / ".." / "secret.csv", allowed / "link.csv"):
        assert "allow" in server.refusal(f"SELECT * FROM '{path}'")


# --- sql

def sql(server, folder, *arguments):
    return finished(folder, "sql", "--url", server.url, *arguments)


def test_sql_prints_what_was_asked_for(serve, tmp_path):
    server = serve()
    query = "SELECT 1 AS n, 'a,\"b\"' AS t UNION ALL SELECT 2, NULL ORDER BY n"
    status, out, _ = sql(server, tmp_path, "-c", query, "--format", "csv")
    assert status == 0 and out.splitlines() == ["n,t", '1,"a,""b"""', "2,"]
    status, out, _ = sql(server, tmp_path, "-c", query, "--format", "json")
    assert status == 0
    got = [json.loads(line) for line in out.splitlines()] if not out.lstrip().startswith("[") else json.loads(out)
    assert [(row["n"], row.get("t")) for row in got] == [(1, 'a,"b"'), (2, None)]
    status, out, _ = sql(server, tmp_path, "-c", query)
    assert status == 0 and "| 1 " in out and "n" in out.splitlines()[1]


def test_sql_runs_a_file_and_says_where_it_failed(serve, tmp_path):
    server, script = serve(), tmp_path / "script.sql"
    script.write_text("CREATE VIEW v AS SELECT 'a;b' AS t; -- a comment; with a semicolon\nSELECT t FROM v;\n")
    status, out, _ = sql(server, tmp_path, "-f", script, "--format", "csv")
    assert status == 0 and "a;b" in out
    status, _, err = sql(server, tmp_path, "-c", "SELECT nonsense")
    assert status != 0 and "nonsense" in err and "panicked" not in err


def test_sql_without_a_server(tmp_path):
    [port] = free_ports(1)
    status, _, err = finished(tmp_path, "sql", "--url", f"grpc://127.0.0.1:{port}", "-c", "SELECT 1")
    assert status != 0 and str(port) in err and "panicked" not in err


# --- simulate and replay

def sent(broker, topic, *arguments):
    """What a command sends: [(partition, event)] in order of partition and offset, and its exit status."""
    collector = oracle.Collector(broker.bootstrap, topic)
    status, out, err = finished(broker.folder, *arguments, "--brokers", broker.bootstrap, "--topic", topic)
    assert status == 0, out + err
    return [(p, json.loads(value)) for p, _, value in sorted(collector.finish())]


def test_simulated_matches_are_the_same_for_the_same_seed(embedded):
    broker = embedded(a=4, b=4, c=4)
    a = sent(broker, "a", "simulate", "--seed", "3", "--matches", "1", "--rate", "20000")
    b = sent(broker, "b", "simulate", "--seed", "3", "--matches", "1", "--rate", "20000")
    c = sent(broker, "c", "simulate", "--seed", "4", "--matches", "1", "--rate", "20000")
    assert a == b and a != c and len(a) > 1000


def test_simulated_matches_look_like_matches(embedded):
    broker = embedded(matches=2)
    records = sent(broker, "matches", "simulate", "--seed", "11", "--matches", "2", "--rate", "20000")
    events = [event for _, event in records]
    by_match = {}
    for partition, event in records:
        by_match.setdefault(event["match_id"], []).append((partition, event))
    assert len(by_match) == 2
    for match in by_match.values():
        assert len({partition for partition, _ in match}) == 1
        indexes = [event["index"] for _, event in match]
        assert indexes == list(range(1, len(match) + 1))
        first = match[0][1]
        assert first["type"]["name"] == "Starting XI" and first["team"]["name"] == first["home_team"]
        assert {event["team"]["name"] for _, event in match} == {first["home_team"], first["away_team"]}
    for event in events:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["event_time"])
        assert isinstance(event["match_id"], int)
        for name in ("id", "period", "timestamp", "minute", "second", "possession", "possession_team", "play_pattern"):
            assert name in event
    kinds = {event["type"]["name"] for event in events}
    assert {"Pass", "Shot", "Carry", "Substitution", "Starting XI", "Half Start", "Half End"} <= kinds
    shots = [event["shot"] for event in events if event["type"]["name"] == "Shot"]
    assert shots and all(0 <= shot["statsbomb_xg"] <= 1 for shot in shots)
    assert any("freeze_frame" in event for event in events)
    assert any("card" in event.get(kind, {}) for event in events for kind in ("foul_committed", "bad_behaviour"))


def event(index, team, kind, period, timestamp, **more):
    return {"id": f"e{index}-{team}", "index": index, "period": period, "timestamp": timestamp, "type": {"id": 1, "name": kind}, "team": {"id": 1, "name": team}, **more}


@pytest.fixture
def folder(tmp_path):
    """A small folder in the layout of StatsBomb's open data, with made-up matches."""
    root = tmp_path / "open-data"
    for name in ("events", "matches/1", "three-sixty"):
        (root / name).mkdir(parents=True)
    (root / "events/101.json").write_text(json.dumps([
        event(1, "Reds", "Starting XI", 1, "00:00:00.000"),
        event(2, "Blues", "Starting XI", 1, "00:00:00.000"),
        event(3, "Blues", "Pass", 1, "00:00:01.500"),
        event(4, "Blues", "Ball Receipt*", 1, "00:47:00.250"),
        event(5, "Reds", "Shot", 2, "00:00:02.000", shot={"statsbomb_xg": 0.1}),
        event(6, "Reds", "Shot", 3, "00:00:03.000", shot={"statsbomb_xg": 0.2}),
        event(7, "Reds", "Shot", 4, "00:00:04.000", shot={"statsbomb_xg": 0.3}),
        event(8, "Reds", "Shot", 5, "00:00:05.001", shot={"statsbomb_xg": 0.76}),
    ]))
    with gzip.open(root / "events/102.json.gz", "wt") as f:
        json.dump([event(1, "Älgar", "Starting XI", 1, "00:00:00.000"), event(2, "Owls", "Starting XI", 1, "00:00:00.000"), event(3, "Owls", "Pass", 1, "00:00:00.900")], f)
    with gzip.open(root / "events/103.json.gz", "wt") as f:
        json.dump([event(1, "Cats", "Starting XI", 1, "00:00:00.000"), event(2, "Dogs", "Starting XI", 1, "00:00:00.000")], f)
    (root / "matches/1/5.json").write_text(json.dumps([
        {"match_id": 101, "match_date": "2020-02-03", "kick_off": "18:30:00.000"}, {"match_id": 102, "match_date": "2020-02-03", "kick_off": "18:30:01.000"},
    ]))
    (root / "three-sixty/101.json").write_text(json.dumps([{
        "event_uuid": "e3-Blues", "visible_area": [0, 1.5, 2, 3], "freeze_frame": [{"teammate": True, "actor": True, "keeper": False, "location": [60.1, 40.0]}],
    }]))
    return root


def test_replay_adds_what_a_stream_needs(folder, embedded):
    broker = embedded(matches=1)
    events = [event for _, event in sent(broker, "matches", "replay", folder, "--rate", "max")]
    assert len(events) == 13
    # Match 103 is in no match list.
    assert [(e["match_id"], e["index"], e["event_time"]) for e in events] == [
        (103, 1, "2018-01-01T00:00:00.000Z"), (103, 2, "2018-01-01T00:00:00.000Z"),
        (101, 1, "2020-02-03T18:30:00.000Z"), (101, 2, "2020-02-03T18:30:00.000Z"),
        (102, 1, "2020-02-03T18:30:01.000Z"), (102, 2, "2020-02-03T18:30:01.000Z"),
        (101, 3, "2020-02-03T18:30:01.500Z"), (102, 3, "2020-02-03T18:30:01.900Z"),
        (101, 4, "2020-02-03T19:17:00.250Z"), (101, 5, "2020-02-03T19:35:02.000Z"), (101, 6, "2020-02-03T20:45:03.000Z"),
        (101, 7, "2020-02-03T21:05:04.000Z"), (101, 8, "2020-02-03T21:30:05.001Z"),
    ]
    teams = {e["match_id"]: (e["home_team"], e["away_team"]) for e in events}
    assert teams == {101: ("Reds", "Blues"), 102: ("Älgar", "Owls"), 103: ("Cats", "Dogs")}
    # The 360 frame is on its event and nowhere else; what StatsBomb wrote is all there.
    framed = [e for e in events if "freeze_frame" in e]
    assert [(e["id"], e["visible_area"], e["freeze_frame"][0]["location"]) for e in framed] == [("e3-Blues", [0, 1.5, 2, 3], [60.1, 40.0])]
    original = {e["id"]: e for e in json.loads((folder / "events/101.json").read_text())}
    for e in events:
        if e["match_id"] == 101:
            assert {key: e[key] for key in original[e["id"]]} == original[e["id"]]


def test_replay_of_chosen_matches_at_one_kick_off(folder, embedded):
    broker = embedded(matches=1)
    events = [event for _, event in sent(broker, "matches", "replay", folder, "--rate", "max", "--matches", "101,103", "--kick-off", "2024-05-01T12:00:00Z", "--concurrent", "2")]
    assert len(events) == 10
    assert {e["match_id"]: e["event_time"] for e in events if e["index"] == 1} == {101: "2024-05-01T12:00:00.000Z", 103: "2024-05-01T12:00:00.000Z"}
    times = [e["event_time"] for e in events]
    assert times == sorted(times)


def test_replay_of_a_folder_that_is_none(tmp_path, embedded):
    broker = embedded(matches=1)
    status, _, err = finished(tmp_path, "replay", tmp_path / "nothing", "--brokers", broker.bootstrap, "--topic", "matches")
    assert status != 0 and "nothing" in err and "panicked" not in err
    (tmp_path / "events").mkdir()
    (tmp_path / "events/7.json").write_text("[{")
    status, _, err = finished(tmp_path, "replay", tmp_path, "--brokers", broker.bootstrap, "--topic", "matches")
    assert status != 0 and "7.json" in err and "panicked" not in err


def test_a_loop_gives_fresh_matches_later_in_time(folder, embedded):
    broker = embedded(matches=1)
    collector = oracle.Collector(broker.bootstrap, "matches")
    process = tidegate.Process(broker.folder, "replay", folder, "--brokers", broker.bootstrap, "--topic", "matches", "--rate", "400", "--loop")
    tidegate.settle(lambda: len(collector.records) >= 60, True, 30)
    process.stop(signal.SIGINT)
    events = [json.loads(value) for _, _, value in collector.finish()]
    first, second = events[:13], events[13:26]
    assert {e["match_id"] for e in first}.isdisjoint(e["match_id"] for e in second)
    assert max(e["event_time"] for e in first) < min(e["event_time"] for e in second)


def test_rate(embedded):
    broker = embedded(matches=1)
    begin = time.monotonic()
    process = tidegate.Process(broker.folder, "simulate", "--brokers", broker.bootstrap, "--topic", "matches", "--rate", "500", "--seed", "1", "--matches", "1")
    collector = oracle.Collector(broker.bootstrap, "matches")
    assert tidegate.settle(lambda: len(collector.records) >= 1000, True, 20)
    elapsed = time.monotonic() - begin
    process.kill()
    collector.finish()
    assert 1.5 < elapsed < 6, elapsed


# --- demo and bench

def test_demo(tmp_path):
    begin = time.monotonic()
    status, out, err = finished(tmp_path, "demo", "--for", "6s", "--listen", "127.0.0.1:0", limit=90)
    assert status == 0, out + err
    assert 5 < time.monotonic() - begin < 60
    assert "adbc" in out.lower() and "jdbc" in out.lower() and "panicked" not in err
    assert "\x1b[" not in out  # standard output is no terminal here


def test_a_client_beside_the_demo(tmp_path):
    process = tidegate.Process(tmp_path, "demo", "--for", "12s", "--listen", "127.0.0.1:0")
    try:
        client = tidegate.Server(tmp_path)
        client.url = process.wait_for_match(r"grpc://127\.0\.0\.1:\d+")
        total = "SELECT coalesce(sum(events), 0) FROM team_minute"
        first = client.value(total)
        time.sleep(3)
        assert client.value(total) > first + 1000
        client.disconnect()
        assert process.wait(60) == 0
    finally:
        process.kill()


def figures(folder, bench, *arguments):
    """What a benchmark prints with --json, but for the line that describes the machine."""
    status, out, err = finished(folder, "bench", bench, "--json", *arguments, limit=120)
    assert status == 0, out + err
    machine, *found = [json.loads(line) for line in out.splitlines()]
    assert machine["bench"] == bench and machine["machine"]["cores"] > 0 and machine["machine"]["simd"] and machine["machine"]["version"], machine
    for row in found:
        assert list(row)[:4] == ["bench", "case", "ours", "unit"] and (row["ours"] > 0 or row["unit"] == "cores"), row
        if "baseline" in row:
            assert list(row)[4:7] == ["baseline", "baseline_value", "ratio"] and row["baseline_value"] > 0 and row["ratio"] > 0, row
    return found


def test_decoding_is_compared_with_other_readers(tmp_path):
    found = figures(tmp_path, "decode", "--records", "9000", "--runs", "1")
    of_json = ["arrow-json", "simd-json", "sonic-rs", "serde_json"]
    baselines = {}
    for row in found:
        baselines.setdefault(row["case"], []).append(row["baseline"])
        assert (row["bench"], row["unit"], row["records"]) == ("decode", "GB/s", 9000) and row["bytes_per_record"] > 50, row
        assert abs(row["ratio"] / (row["ours"] / row["baseline_value"]) - 1) < 0.02 and row["records_per_second"] > 0, row
    assert baselines == {"statsbomb-8": of_json, "nexmark-bid": of_json, "flat-12": of_json, "wide-100-5": of_json, "nested": of_json,
                         "avro": ["arrow-avro"], "avro-registry": ["arrow-avro"], "protobuf": ["prost"], "csv": ["arrow-csv"]}
    bytes_of = {row["case"]: row["bytes_per_record"] for row in found}
    assert bytes_of["protobuf"] < bytes_of["statsbomb-8"] and bytes_of["avro-registry"] == bytes_of["avro"] + 5
    assert [row["case"] for row in figures(tmp_path, "decode", "--records", "10", "--cases", "csv,protobuf")] == ["csv", "protobuf"]


def test_latency_is_measured_at_each_rate(tmp_path):
    found = figures(tmp_path, "latency", "--rate", "200,1000", "--seconds", "1")
    assert [row["case"] for row in found] == [f"{rate}-{name}" for rate in (200, 1000) for name in ("p50", "p99", "p99.9", "max", "server")]
    for rate in (200, 1000):
        p50, p99, p999, most = [row["ours"] for row in found if row["case"].startswith(f"{rate}-") and row["unit"] == "ms"]
        assert 0 < p50 <= p99 <= p999 <= most
    # The records of every epoch are counted, not only the newest.
    assert all(row["events_per_second"] > row["rate"] / 2 for row in found), found


@pytest.mark.parametrize(
    ("bench", "arguments", "cases"),
    [
        ("pipeline", ["--events", "4000", "--runs", "1", "--latency-seconds", "1"], {"memory", "one-record-epoch"}),
        ("nexmark", ["--events", "2000", "--runs", "1", "--queries", "q1,q4,q7"], {"q1", "q4", "q7"}),
        ("state", ["--keys", "1000", "--epochs", "3", "--checkpoints", "1"], set()),
        ("sink", ["--records", "2000", "--runs", "1"], set()),
        ("serve", ["--rows", "20000", "--runs", "1", "--keys", "1000", "--clients", "2", "--subscribers", "3", "--seconds", "1"], set()),
    ],
)
def test_every_benchmark_runs_with_one_command(tmp_path, bench, arguments, cases):
    found = figures(tmp_path, bench, *arguments)
    assert found and cases <= {row["case"] for row in found} and all(row["bench"] in (bench, "latency") for row in found), found


def test_figures_are_a_table_for_people(tmp_path):
    status, out, err = finished(tmp_path, "bench", "decode", "--records", "100", "--runs", "1", "--cases", "flat-12", limit=120)
    assert status == 0 and err == "", out + err
    machine, shared, blank, head, *rows = out.splitlines()
    assert " cores, " in machine and "records 100" in shared and not blank
    assert head.split() == ["case", "tidegate", "baseline", "ratio"] and [row.split()[0] for row in rows] == ["flat-12"] * 4
    assert rows[0].index("arrow-json") == rows[1].index("simd-json") == head.index("baseline")
