"""Pipelines with known answers: `tests/golden/NAME/{setup.sql,input.ndjson,query.sql,expected.csv}`.

Each line of `input.ndjson` is a record: its `key` chooses the partition (null: one copy to each partition, to move every watermark), and its
payload is `value` as JSON or `text` as it stands. The answers were written by hand. A pipeline must give its answer however the input is
spread over partitions and cut into epochs, and after a kill.
"""

import csv
import json
import math
import pathlib
import time
import zlib

import pytest

import slt
import tidegate

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "golden"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/query.sql"))


class Golden:
    """One folder."""

    def __init__(self, name):
        folder = FOLDER / name
        self.setup = [part.strip() for part in (folder / "setup.sql").read_text().split(";") if part.strip()]
        self.query = (folder / "query.sql").read_text()
        self.expected = list(csv.reader((folder / "expected.csv").open()))
        self.input = [json.loads(line) for line in (folder / "input.ndjson").read_text().splitlines()]

    def records(self, partitions):
        """The input as (partition, payload)."""
        for line in self.input:
            payload = line["text"].encode() if "text" in line else json.dumps(line["value"], ensure_ascii=False).encode()
            if line["key"] is None:
                yield from ((p, payload) for p in range(partitions))
            else:
                yield zlib.crc32(line["key"].encode()) % partitions, payload

    def declare(self, server, broker):
        """Runs its statements."""
        for statement in self.setup:
            server.query(statement.replace("${topic}", "input").replace("${brokers}", broker.bootstrap))

    def answer(self, server):
        """The query's answer as rows of text, names first."""
        table = server.table(self.query)
        columns = [[slt.show(value) for value in column] for column in table.columns]
        return [table.column_names, *(list(row) for row in zip(*columns))]

    def check(self, server):
        """The answer must become the expected one, and stay."""
        tidegate.settle(lambda: self.difference(server), "", 20)
        time.sleep(0.1)
        assert self.difference(server) == ""

    def difference(self, server):
        """Where the answer isn't the expected one, if so."""
        got = self.answer(server)
        if len(got) == len(self.expected) and all(same_row(a, b) for a, b in zip(got, self.expected)):
            return ""
        return "\n".join(["expected:", *map(",".join, self.expected), "got:", *map(",".join, got)])


def same_row(got, want):
    """Equal texts; floating-point numbers within 1e-9 relative, since sums depend on how the input is cut."""
    return len(got) == len(want) and all(a == b or "." in b and same_number(a, b) for a, b in zip(got, want))


def same_number(a, b):
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-9)
    except ValueError:
        return False


@pytest.fixture(params=NAMES)
def golden(request):
    return Golden(request.param)


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("rows", [1, 3, 1_000_000])
def test_however_it_is_cut(golden, rows, partitions, serve, embedded):
    broker = embedded(input=partitions)
    server = serve(max_epoch_rows=rows)
    golden.declare(server, broker)
    broker.send("input", golden.records(partitions))
    golden.check(server)


def test_over_input_that_was_there_before(golden, serve, embedded):
    broker = embedded(input=2)
    broker.send("input", golden.records(2))
    server = serve()
    golden.declare(server, broker)
    golden.check(server)


def test_with_a_kill_and_restart(golden, serve, embedded):
    broker = embedded(input=2)
    server = serve(max_epoch_rows=2, checkpoint_interval="100ms")
    golden.declare(server, broker)
    records = list(golden.records(2))
    half = len(records) // 2
    broker.send("input", records[:half])
    time.sleep(0.3)
    server.restart()
    broker.send("input", records[half:])
    golden.check(server)
    # Once more with everything consumed: the state comes from checkpoint and topic alone.
    server.restart()
    golden.check(server)
