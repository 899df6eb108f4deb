"""Independent readers: what the views should hold, counted from the match files or from the topic, without the program."""

import collections
import datetime as dt
import gzip
import json
import math
import pathlib
import threading
import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

import kafka

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

    def counts(self):
        """What its records, read to the end, amount to, and how many could not be read."""
        counts, bad = Counts(), 0
        for _, _, value in self.finish():
            try:
                counts.add_payload(json.loads(value))
            except (ValueError, TypeError, KeyError):
                bad += 1
        return counts, bad


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
