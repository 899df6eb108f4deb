"""What docs/sql.md shows works as it stands there, from top to bottom, and gives the answers that stand below it."""

import json
import re

import slt
import tidegate

PAGE = (tidegate.REPOSITORY / "docs" / "sql.md").read_text()


def blocks():
    """The page's fenced blocks in order, as (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def statements(block):
    """A block's statements. The page has no semicolon in a text."""
    return [s.strip() for s in re.sub(r"--[^\n]*", "", block).split(";") if s.strip()]


def is_subscription(statement):
    return bool(re.match(r"SUBSCRIBE\b|SELECT\b.*\bEMIT\b", statement, re.DOTALL))


def records(block):
    """The records that a block shows, by topic: payloads alone are scores, keys with payloads are players."""
    lines = [json.loads(line) for line in block.splitlines()]
    if "key" in lines[0]:
        encoded = lambda value: None if value is None else json.dumps(value).encode()
        return "players", [(0, encoded(line["payload"]), {"key": encoded(line["key"])}) for line in lines]
    return "scores", [(0, line.encode()) for line in block.splitlines()]


def test_its_statements_run_and_its_answers_hold(serve, embedded):
    broker, server = embedded(scores=1, players=1), serve()
    wrong, ran, compared, last, before = [], 0, 0, None, None
    for language, text in blocks():
        if language == "json":
            broker.send(*records(text))
        elif language == "sql":
            for statement in statements(text):
                last, ran = statement.replace("localhost:9092", broker.bootstrap), ran + 1
                try:
                    if is_subscription(last):
                        assert tidegate.Subscription(server, last).cancel(), "it could not be cancelled"
                    else:
                        server.query(last)
                except Exception as error:
                    wrong.append(f"{statement}\n    failed: {tidegate.message(error)}")
                    last = None
        else:
            assert (language, before) == ("text", "sql"), f"a block of {language} behind one of {before}"
            compared += 1
            if last is not None:
                want = text.splitlines()
                got = tidegate.settle(lambda: slt.answer(server.table(last))[1], want)
                if got != want:
                    wrong.append(f"{last}\n    gave {got}\n    instead of {want}")
        before = language
    assert ran > 40 and compared > 15, f"only {ran} statements and {compared} answers were found"
    assert not wrong, "\n".join([f"{len(wrong)} of {ran} statements went wrong", *wrong])


def test_it_names_every_statement_and_clause():
    """The dialect's own words, each in an example."""
    shown = "\n".join(text for language, text in blocks() if language == "sql")
    for words in [
        "CREATE SOURCE", "PRIMARY KEY", "ALTER SOURCE", "CREATE UNBOUNDED EXTERNAL TABLE", "CREATE CONTINUOUS VIEW", "CREATE OR REPLACE VIEW", "CREATE OR REPLACE CONTINUOUS VIEW", "EMIT CHANGES", "EMIT ON WINDOW CLOSE",
        "EMIT EVERY", "ALLOW LATENESS", "CLOSE AFTER", "CLOSE NEVER", "LATE DATA TO", "now()", "proctime()", "TUMBLE(", "HOP(", "CUMULATE(", "SESSION(", "window(", "session_window(", "SUBSCRIBE",
        "SHOW SOURCES", "SHOW VIEWS", "SHOW TABLES", "SHOW QUERIES", "SHOW CREATE", "EXPLAIN VIEW", "EXPLAIN CREATE", "SET tidegate.", "SHOW tidegate.",
        "DROP SOURCE", "DROP VIEW", "DROP TABLE", "CREATE TABLE", "CREATE OR REPLACE TABLE", "INSERT INTO", "INSERT OVERWRITE", "UPDATE", "DELETE FROM", "$errors", "$late",
    ]:
        assert words in shown, f"docs/sql.md has no example of {words}"
