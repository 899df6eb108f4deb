"""A client in Rust (tests/adbc-rust), over ADBC's driver manager and the Flight SQL driver that the Python package brings."""

import os
import subprocess

import adbc_driver_flightsql
import pytest
from security import PASSWORD, As

CLIENT = os.environ.get("TIDEGATE_ADBC_RUST")


@pytest.mark.skipif(not CLIENT, reason="no TIDEGATE_ADBC_RUST, the client of tests/adbc-rust")
def test_a_client_in_rust(serve, embedded):
    broker, server = embedded(events=1), serve(admin_password=PASSWORD)
    admin = As(server, "admin")
    admin.query("CREATE TABLE teams (team TEXT, points BIGINT)")
    admin.query("INSERT INTO teams VALUES ('Away', 1), ('Away', 2), ('Away', 3), ('Home', 4)")
    admin.query(f"CREATE SOURCE events (a BIGINT) WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')")
    admin.query("CREATE CONTINUOUS VIEW sums WITH (unbounded_state = true) AS SELECT a, count(*) AS n FROM events GROUP BY a")
    broker.send("events", [(0, b'{"a": 1}'), (0, b'{"a": 2}')])
    library = adbc_driver_flightsql._driver_path()
    done = subprocess.run([CLIENT, library, server.url, "admin", PASSWORD], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Away: 3", "Home: 1", "prepared: 2", "uploaded: 2", "subscribed: 2"]
    assert admin.query("SELECT * FROM goals ORDER BY player") == [{"player": "a", "goals": 3}, {"player": "b", "goals": None}]
    assert admin.settle("SELECT count(*) FROM system.queries WHERE sql = 'SUBSCRIBE sums'", 0) == 0, "it was cancelled"
    refused = subprocess.run([CLIENT, library, server.url, "admin", "wrong"], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0 and "invalid credentials" in refused.stderr
