"""What the README shows works as it stands there."""

import re

import tidegate

README = (tidegate.REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_its_sql_runs(serve, embedded):
    broker, server = embedded(events=2), serve()
    statements = [s.strip() for block in blocks("sql") for s in re.sub(r"--[^\n]*", "", block).split(";") if s.strip()]
    assert len(statements) > 8
    for statement in statements:
        statement = statement.replace("localhost:9092", broker.bootstrap)
        if statement.endswith("EMIT CHANGES") and statement.startswith("SELECT"):
            assert tidegate.Subscription(server, statement).cancel()
        else:
            server.query(statement)


def test_its_python_runs(serve, embedded):
    broker, server = embedded(events=1), serve()
    source, view = [s for block in blocks("sql")[:2] for s in block.split(";")[:1]]
    server.query(source.replace("localhost:9092", broker.bootstrap))
    server.query(re.sub(r"--[^\n]*", "", view))
    broker.send("events", [(0, b'{"match_id": 1, "team": {"name": "A"}, "event_time": "2024-01-01T00:00:00Z"}')])
    assert server.settle("SELECT count(*) FROM team_minute", 1) == 1
    [code] = blocks("python")
    # The loop over the subscription never ends: leave it after its first batch of rows.
    code = code.replace("grpc://127.0.0.1:50051", server.url) + "        if batch.num_rows:\n            break\n"
    printed = []
    exec(code, {"print": printed.append})
    assert printed[0].num_rows == 1 and any(row["team"] == "A" for row in printed[-1])
