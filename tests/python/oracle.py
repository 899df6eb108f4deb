"""Independent readers: what the views should hold, counted from the match files or from the topic, without the program."""

import collections
import datetime as dt
import gzip
import json
import math
import pathlib
import random
import threading
import time
import zlib

from confluent_kafka import Consumer, KafkaError, TopicPartition

import kafka
import tidegate

# Minutes after kick-off at which the periods begin: halves, extra time, penalty shoot-out.
PERIOD_START = {1: 0, 2: 65, 3: 135, 4: 155, 5: 180}
UNKNOWN_KICK_OFF = dt.datetime(2018, 1, 1)

SOURCE = """
CREATE SOURCE match_events (
  match_id BIGINT, team TEXT PATH '$.team.name', type_name TEXT PATH '$.type.name', xg DOUBLE PATH '$.shot.statsbomb_xg',
  event_time TIMESTAMP, WATERMARK FOR event_time AS event_time - INTERVAL '{bound}'
) WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{brokers}', format = 'json'{options})"""

QUERY = """
SELECT window_start, match_id, team, count(*) AS events, count(*) FILTER (WHERE type_name = 'Pass') AS passes,
  count(*) FILTER (WHERE type_name = 'Shot') AS shots, sum(xg) AS xg
FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team"""

VIEW = f"CREATE CONTINUOUS VIEW team_minute AS {QUERY} EMIT CHANGES"


def source(topic, brokers, bound="2 hours", options=""):
    """The source that all these tests declare; `options` are more of its WITH clause, beginning with a comma."""
    return SOURCE.format(topic=topic, brokers=brokers, bound=bound, options=options)


class Counts:
    """{(minute, match, team): [events, passes, shots, xg or None]}."""

    def __init__(self):
        self.rows, self.total = collections.defaultdict(lambda: [0, 0, 0, None]), 0

    def add(self, time, match_id, team, type_name, xg):
        """Counts one event."""
        row = self.rows[time.replace(second=0, microsecond=0), match_id, team]
        row[0] += 1
        row[1] += type_name == "Pass"
        row[2] += type_name == "Shot"
        if xg is not None:
            row[3] = (row[3] or 0.0) + xg
        self.total += 1

    def add_payload(self, event):
        """Counts one event as it stands in a topic."""
        time = dt.datetime.strptime(event["event_time"], "%Y-%m-%dT%H:%M:%S.%fZ")
        self.add(time, event["match_id"], event["team"]["name"], event["type"]["name"], event.get("shot", {}).get("statsbomb_xg"))


class Matches:
    """A folder of StatsBomb's open data."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.files = {int(f.name.split(".")[0]): f for f in (self.folder / "events").iterdir() if f.name.endswith((".json", ".json.gz"))}
        self.kick_offs = {}
        for f in self.folder.glob("matches/*/*.json*"):
            for match in load(f):
                start = f"{match['match_date']}T{match['kick_off']}"
                self.kick_offs[match["match_id"]] = dt.datetime.fromisoformat(start)

    def some(self, count):
        """The ids of a few matches, always the same."""
        return sorted(self.files)[:count]

    def counts(self, only=None, kick_off=None):
        """The independent count over these matches (all by default), at their own kick-offs or all at one."""
        counts = Counts()
        for match_id in only or self.files:
            start = kick_off or self.kick_offs.get(match_id, UNKNOWN_KICK_OFF)
            for event in load(self.files[match_id]):
                h, m, s = event["timestamp"].split(":")
                time = start + dt.timedelta(hours=int(h), minutes=PERIOD_START[event["period"]] + int(m), seconds=float(s))
                counts.add(time, match_id, event["team"]["name"], event["type"]["name"], event.get("shot", {}).get("statsbomb_xg"))
        return counts


def load(path):
    """A JSON file, plain or gzip."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as f:
        return json.load(f)


def synthetic_events(seed, count, matches=6, disorder=0.0):
    """Made-up events as payloads: (key, bytes). `disorder`: seconds by which event times may step back."""
    rng = random.Random(seed)
    start = dt.datetime(2024, 3, 1, 18)
    for i in range(count):
        match_id = 1000 + rng.randrange(matches)
        time = start + dt.timedelta(milliseconds=100 * i - int(1000 * rng.uniform(0, disorder)))
        kind = rng.choice(["Pass", "Pass", "Carry", "Pressure", "Ball Receipt*", "Shot"])
        event = {
            "id": f"{seed}-{i}", "index": i, "match_id": match_id, "event_time": time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z",
            "type": {"id": 30, "name": kind}, "team": {"id": match_id % 7, "name": rng.choice(["Älvsjö", "Río \"9\""])}, "location": [rng.random() * 120, 40.0],
        }
        if kind == "Shot" and rng.random() < 0.9:
            event["shot"] = {"statsbomb_xg": rng.random(), "freeze_frame": [{"location": [1.5, 2], "teammate": True}]}
        yield str(match_id).encode(), json.dumps(event, ensure_ascii=bool(i % 2)).encode()


MALFORMED = [b'{"match_id": 1', b"nonsense", b'{"match_id": "one", "event_time": "2024-03-01T18:00:00Z"}', b'{"match_id": 1}', b"\xff\xfe", None, b"[1, 2"]


def with_malformed(events, one_in=100):
    """Puts a malformed record in place after every `one_in - 1` good ones."""
    for i, (key, payload) in enumerate(events, 1):
        yield key, payload
        if i % (one_in - 1) == 0:
            yield key, MALFORMED[i // (one_in - 1) % len(MALFORMED)]


STRAY = "2024-01-01T00:00:00.000Z"


def with_strays(events, one_in=40):
    """Gives every `one_in`-th record a time months before the others: late however epochs are cut, once the watermark is with those."""
    for i, (key, payload) in enumerate(events, 1):
        yield key, json.dumps(json.loads(payload) | {"event_time": STRAY}).encode() if i % one_in == 0 else payload


def placed(events, partitions):
    """Events as records (partition, payload, {key}): a key has its partition, as with any Kafka producer."""
    for key, payload in events:
        yield zlib.crc32(key) % partitions, payload, {"key": key}


class Collector:
    """Reads a topic from its beginning in a thread of its own, so that nothing is missed where the broker keeps little."""

    def __init__(self, bootstrap, topic, **config):
        self.bootstrap, self.topic = bootstrap, topic
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.client = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False, "auto.offset.reset": "error",
            "enable.partition.eof": True, "log_level": 3, **settings,
        })
        self.records = []  # (partition, offset, value) in order of arrival
        self.reached = {p: first for p, (first, _) in kafka.ranges(bootstrap, topic).items()}
        self.stopping, self.failure = threading.Event(), None
        self.client.assign([TopicPartition(topic, p, first) for p, first in self.reached.items()])
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while not self.stopping.is_set():
            for message in self.client.consume(5000, 0.1):
                error = message.error()
                if error is None:
                    self.records.append((message.partition(), message.offset(), message.value()))
                    self.reached[message.partition()] = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    self.reached[message.partition()] = message.offset()
                else:
                    self.failure = error
                    self.stopping.set()
        self.client.close()

    def finish(self, limit=120):
        """Reads on to the topic's present end; returns all records as (partition, offset, value)."""
        ends = {p: end for p, (_, end) in kafka.ranges(self.bootstrap, self.topic).items()}
        deadline = time.monotonic() + limit
        while not self.stopping.is_set() and any(self.reached[p] < end for p, end in ends.items()):
            if time.monotonic() > deadline:
                self.stopping.set()
                raise RuntimeError(f"the topic's end {ends} was not reached within {limit} s, only {self.reached}")
            time.sleep(0.02)
        self.stopping.set()
        self.thread.join()
        if self.failure is not None:
            raise RuntimeError(f"the topic could not be read: {self.failure}")
        return self.records

    def strays(self):
        """The (partition, offset) of the records of `with_strays`, read to the end, sorted."""
        return sorted((partition, offset) for partition, offset, value in self.finish() if value is not None and STRAY.encode() in value)

    def counts(self):
        """What its records, read to the end, amount to; and the (partition, offset) of those that are malformed, sorted."""
        counts, bad = Counts(), []
        for partition, offset, value in self.finish():
            try:
                event = json.loads(value)
                # The declared columns must fit; the others may be anything.
                if not isinstance(event["match_id"], int):
                    raise ValueError("match_id")
                counts.add_payload(event)
            except (ValueError, TypeError, KeyError):
                bad.append((partition, offset))
        return counts, sorted(bad)


COLUMNS = "window_start, match_id, team, events, passes, shots, xg"


def rows_of(answer):
    """An answer with the columns `COLUMNS` in the shape of `Counts.rows`."""
    return {
        (r["window_start"].replace(tzinfo=None), r["match_id"], r["team"]): [r["events"], r["passes"], r["shots"], r["xg"]]
        for r in answer
    }


def same(a, b):
    """Whether two rows are equal: counts exactly, sums of doubles within 1e-9 relative."""
    if a is None or b is None or a[:3] != b[:3] or (a[3] is None) != (b[3] is None):
        return False
    return a[3] is None or math.isclose(a[3], b[3], rel_tol=1e-9, abs_tol=1e-12)


def check_equal(got, want):
    """Fails where an answer differs from the independent count, naming some of the rows that do."""
    rows = rows_of(got)
    assert len(rows) == len(got), f"{len(got)} rows for {len(rows)} keys"
    wrong = [(key, rows.get(key), want.rows.get(key)) for key in sorted(set(rows) | set(want.rows)) if not same(rows.get(key), want.rows.get(key))]
    assert not wrong, f"{len(wrong)} of {len(want.rows)} rows differ (key, got, want): {wrong[:5]}"


def check_view(server, want, view="team_minute", limit=120):
    """Waits until the view has counted all events, then compares every row."""
    server.settle(f"SELECT coalesce(sum(events), 0) FROM {view}", want.total, limit)
    check_equal(server.query(f"SELECT {COLUMNS} FROM {view}"), want)


def check_view_and_late(server, want, view="team_minute", limit=120):
    """The rows of the view and of its `$late` table together are the independent count; returns how many rows were late."""
    late_count = f'SELECT count(*) FROM "{view}$late"'
    tidegate.settle(lambda: server.value(f"SELECT coalesce(sum(events), 0) FROM {view}") + server.value(late_count), want.total, limit)
    sums = Counts()
    late = server.query(f'SELECT date_trunc(\'minute\', event_time) AS minute, match_id, team, type_name, xg FROM "{view}$late"')
    for row in late:
        sums.add(row["minute"].replace(tzinfo=None), row["match_id"], row["team"], row["type_name"], row["xg"])
    for key, (events, passes, shots, xg) in rows_of(server.query(f"SELECT {COLUMNS} FROM {view}")).items():
        row = sums.rows[key]
        row[0] += events
        row[1] += passes
        row[2] += shots
        row[3] = xg if row[3] is None else row[3] if xg is None else row[3] + xg
    wrong = [(key, sums.rows.get(key), want.rows.get(key)) for key in set(sums.rows) | set(want.rows) if not same(sums.rows.get(key), want.rows.get(key))]
    assert not wrong, f"{len(wrong)} of {len(want.rows)} rows differ (key, got, want): {wrong[:5]}"
    return len(late)


# What depends on where epochs were cut; the rest of a late row does not.
CUT = {"_epoch", "_watermark", "_late_ms"}


def check_same(server, twin, view="team_minute", source="match_events"):
    """A view, its `$late` and its source's `$errors` are the same on two servers: sums of doubles within 1e-9, everything else exactly."""
    got, want = (rows_of(s.query(f"SELECT {COLUMNS} FROM {view}")) for s in (server, twin))
    wrong = [(key, got.get(key), want.get(key)) for key in sorted(set(got) | set(want)) if not same(got.get(key), want.get(key))]
    assert not wrong, f"{len(wrong)} of {len(want)} rows differ (key, got, want): {wrong[:5]}"
    for table, order in ((f"{view}$late", '"_partition", "_offset"'), (f"{source}$errors", '"partition", "offset"')):
        rows, others = ([{k: v for k, v in row.items() if k not in CUT} for row in s.query(f'SELECT * FROM "{table}" ORDER BY {order}')] for s in (server, twin))
        assert len(rows) == len(others) > 0, f"{table}: {len(rows)} rows, {len(others)} on the other"
        wrong = [(row, other) for row, other in zip(rows, others) if row != other]
        assert not wrong, f"{table}: {len(wrong)} of {len(rows)} rows differ: {wrong[:5]}"


def check_errors(server, bad, source="match_events"):
    """The source's `$errors` table holds exactly these (partition, offset), each once."""
    query = f'SELECT "partition", "offset", reason FROM "{source}$errors" ORDER BY 1, 2'
    rows = tidegate.settle(lambda: [(r["partition"], r["offset"]) for r in server.query(query)], bad, 20)
    assert rows == bad
    assert all(len(r["reason"]) > 5 for r in server.query(query))
