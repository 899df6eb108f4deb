"""What a JDBC tool sees, through the real Flight SQL driver."""

import os
import pathlib
import subprocess

import pytest
import tidegate

CLIENT = tidegate.REPOSITORY / "tests" / "jdbc" / "Client.java"
DRIVERS = sorted(pathlib.Path(os.environ.get("TIDEGATE_JDBC_JARS", "/nonexistent")).glob("flight-sql-jdbc-driver-*.jar"))


@pytest.mark.parametrize("driver", DRIVERS or [pytest.param(None, marks=pytest.mark.skip(reason="no TIDEGATE_JDBC_JARS"))], ids=lambda jar: jar and jar.stem)
def test_a_tool_finds_its_way(driver, serve, embedded):
    broker, server = embedded(scores=1), serve()
    server.query(f"""CREATE SOURCE scores (id BIGINT, team TEXT, points DOUBLE) WITH (connector = 'kafka', topic = 'scores',
        'bootstrap.servers' = '{broker.bootstrap}', format = 'json')""")
    server.query("CREATE CONTINUOUS VIEW by_team WITH (unbounded_state = true) AS SELECT team, count(*) AS n FROM scores GROUP BY team")
    broker.send("scores", [(0, b'{"id": %d, "team": "t%d", "points": 1.5}' % (i, i % 2)) for i in range(1, 4)])
    assert server.settle("SELECT sum(n) FROM by_team", 3) == 3
    url = f"jdbc:arrow-flight-sql://{server.url.removeprefix('grpc://')}?useEncryption=false"
    done = subprocess.run(
        ["java", "--add-opens=java.base/java.nio=ALL-UNNAMED", "-cp", driver, CLIENT, url], capture_output=True, text=True, timeout=180, check=False
    )
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    refused = [found.pop(name, "") for name in ("refused", "syntax", "with another catalog")]
    closed = found.pop("closed")
    assert closed == "true" or "leaked" in closed, closed
    assert found == {
        "product": "Tidegate",
        "getters": "true []",
        "catalogs": "[tidegate]",
        "schemas": "[public, system]",
        "table types": "[BASE TABLE, SYSTEM TABLE, VIEW]",
        "tables": "{by_team=VIEW, scores=BASE TABLE}",
        "views alone": "[by_team]",
        "columns": "{id=BIGINT, team=TEXT, points=DOUBLE}",
        "keys": "0",
        "types": "[1, -2, 3, 4, 1.5, 2.25, 12.34, true, text, 2024-02-29, 2024-02-29 12:34:56.789, [0, -1], null, [1, 2], view]",
        "200 rows of many": "200",
        "prepared": "[1t1, 2t0, 3t1]",
        "eleven parameters": "abcdefghijk",
        "update": "0 false",
        "still there": "[1]",
        "followed": "insert",
        "cancelled from another thread": "true",
        "bounded": "[insert]",
        "batch": "5 2 [row 0, row 1, row 2]",
        "with a catalog": "[3]",
    }, done.stderr[-3000:]
    assert "nothing" in refused[0] and "syntax error" in refused[1].lower() and refused[2].startswith("failed"), refused
