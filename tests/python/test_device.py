"""The device is a choice, never a meaning: servers on a GPU (the kernels' emulator, behind a stand-in for the driver), and without one."""

import subprocess

import pytest

import oracle
import stand_in
import tidegate

RECORDS = "SELECT batches, rows, left_over, failed, lost FROM system.devices WHERE device = 'gpu 0'"
EXPLAIN = "EXPLAIN VIEW team_minute"


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    return stand_in.environment(stand_in.build(tmp_path_factory.mktemp("stand-in")))


@pytest.fixture
def on_gpu(gpu, monkeypatch):
    """Servers that are started from here on find a GPU."""
    for name, value in gpu.items():
        monkeypatch.setenv(name, value)


def simulate(broker, matches, seed=1):
    broker.simulate("matches", "--rate", "max", "--matches", matches, "--seed", seed)


def told(server, statement, topic):
    return [row["text"] for row in server.query(statement) if row["topic"] == topic]


def test_a_view_is_the_same_on_both(serve, embedded, on_gpu):
    broker = embedded(matches=4)
    simulate(broker, matches=2)
    cpu, gpu, asked = serve(device="cpu"), serve(device="gpu"), serve(device="cpu")
    for server, view in ((cpu, oracle.VIEW), (gpu, oracle.VIEW), (asked, oracle.VIEW.replace(" AS ", " WITH (device = 'gpu') AS ", 1))):
        server.query(oracle.source("matches", broker.bootstrap))
        server.query(view)
        all_events = server.value("SELECT count(*) FROM match_events")
        assert all_events > 5000
        server.settle("SELECT sum(events) AS n FROM team_minute", all_events, 120)
    everything = "SELECT * FROM team_minute ORDER BY 1, 2, 3"
    expected = cpu.query(everything)
    assert len(expected) > 10 and gpu.query(everything) == expected and asked.query(everything) == expected
    drift = "SELECT source, kind, field, records FROM system.drift ORDER BY 1, 2, 3"
    assert gpu.query(drift) == cpu.query(drift) == asked.query(drift) != []
    for server in (gpu, asked):
        [done] = server.query(RECORDS)
        assert done["rows"] > 3000 and done["left_over"] * 10 < done["rows"] and done["failed"] == done["lost"] == 0, done
        assert told(server, EXPLAIN, "device") == ["decoding match_events: gpu 0; records that it is not sure of on the CPU", "operators: cpu"]
    assert told(cpu, EXPLAIN, "device") == ["decoding match_events: cpu: device = 'cpu'", "operators: cpu"]
    assert cpu.value("SELECT rows FROM system.devices WHERE device = 'gpu 0'") == 0


def test_a_session_chooses_for_its_queries(serve, embedded, on_gpu):
    broker, server = embedded(matches=2), serve(device="cpu")
    simulate(broker, matches=1)
    server.query(oracle.source("matches", broker.bootstrap))
    ask = "SELECT team, count(*) AS n, sum(xg) AS xg FROM match_events GROUP BY team ORDER BY team"
    expected = server.query(ask)
    assert server.value("SELECT rows FROM system.devices WHERE device = 'gpu 0'") == 0
    server.query("SET tidegate.device = 'gpu'")
    assert server.query(ask) == expected and len(expected) > 1
    assert server.value("SELECT rows FROM system.devices WHERE device = 'gpu 0'") > 500
    assert server.query("SHOW tidegate.device") == [{"tidegate.device": "gpu"}]


def test_what_a_gpu_does_not_read_is_the_cpus(serve, embedded, on_gpu):
    broker, server = embedded(numbers=1), serve(device="gpu")
    server.query(
        f"CREATE SOURCE numbers (n BIGINT, list DOUBLE[]) WITH (connector = 'kafka', topic = 'numbers', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')"
    )
    server.query("CREATE CONTINUOUS VIEW v AS SELECT n, list FROM numbers")
    broker.send("numbers", [(0, b'{"n":1,"list":[1.5,2]}'), (0, b'{"n":"one"}')])
    server.settle("SELECT list[1] FROM v", 1.5)
    [decoding, _] = told(server, "EXPLAIN VIEW v", "device")
    assert decoding.startswith("decoding numbers: cpu, since a GPU can't read it: column list is of type List"), decoding


def test_without_a_gpu_that_is_said(serve, embedded, tmp_path):
    broker, server = embedded(matches=1), serve()
    sentence = "no NVIDIA driver is installed"
    [cpu, gpu] = server.query("SELECT * FROM system.devices")
    assert (cpu["device"], cpu["usable"], gpu["device"], gpu["usable"]) == ("cpu", True, "gpu", False) and sentence in gpu["note"]
    assert sentence in server.refusal("SET tidegate.device = 'gpu'")
    assert server.query("SHOW tidegate.device") == [{"tidegate.device": "auto"}]
    server.query(oracle.source("matches", broker.bootstrap))
    assert sentence in server.refusal(oracle.VIEW.replace(" AS ", " WITH (device = 'gpu') AS ", 1))
    assert "'auto', 'cpu' or 'gpu', not 'tpu'" in server.refusal(oracle.VIEW.replace(" AS ", " WITH (device = 'tpu') AS ", 1))
    server.query(oracle.VIEW)
    # As a script says it that runs at each start.
    server.query(oracle.VIEW.replace("VIEW team_minute AS", "VIEW IF NOT EXISTS team_minute WITH (device = 'gpu') AS", 1))
    [decoding, operators] = told(server, EXPLAIN, "device")
    assert decoding.startswith(f"decoding match_events: cpu: {sentence}") and operators == "operators: cpu"
    for arguments in (["--device", "gpu"], ["--device", "tpu"]):
        ended = subprocess.run(
            [tidegate.BINARY, "serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "other", *arguments], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode != 0 and (sentence if arguments[1] == "gpu" else "'auto', 'cpu' or 'gpu'") in ended.stderr, ended


def test_a_view_goes_on_without_the_gpu_that_it_asked_for(serve, embedded, gpu, monkeypatch):
    broker = embedded(matches=2)
    with monkeypatch.context() as patched:
        for name, value in gpu.items():
            patched.setenv(name, value)
        server = serve(device="cpu")
        server.query(oracle.source("matches", broker.bootstrap))
        server.query(oracle.VIEW.replace(" AS ", " WITH (device = 'gpu') AS ", 1))
        simulate(broker, matches=1)
        before = server.value("SELECT count(*) FROM match_events")
        server.settle("SELECT sum(events) AS n FROM team_minute", before, 120)
        assert server.value("SELECT rows FROM system.devices WHERE device = 'gpu 0'") > 100
    server.restart()
    simulate(broker, matches=1, seed=2)
    after = server.value("SELECT count(*) FROM match_events")
    assert after > before
    server.settle("SELECT sum(events) AS n FROM team_minute", after)
    [decoding, _] = told(server, EXPLAIN, "device")
    assert "no NVIDIA driver is installed" in decoding
