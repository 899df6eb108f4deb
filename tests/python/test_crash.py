"""Crashes at random moments and at named points: nothing lost, nothing twice, also when the broker no longer has what lies below the checkpoint.

TIDEGATE_SEED repeats a run's choices as far as timing allows. TIDEGATE_LONG=1 runs the long version: at least 10 deaths at each
failpoint and 200 kills at random moments.
"""

import itertools
import os
import random
import signal
import threading
import time

import pytest

import kafka as kafka_module
import oracle
import tidegate

LONG = os.environ.get("TIDEGATE_LONG", "") not in ("", "0")

# Where the server can be made to die, and at which pass at most: epochs come often, checkpoints do not.
FAILPOINTS = {"log-appended": 60, "before-publication": 60, "after-publication": 60, "state-part": 3, "before-manifest": 3, "after-manifest": 3}

SEED = int(os.environ.get("TIDEGATE_SEED") or time.time())


@pytest.fixture
def chance(request):
    print(f"TIDEGATE_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


class Sender:
    """Sends records at about `rate` a second in a thread of its own."""

    def __init__(self, bootstrap, topic, records, rate):
        self.failure = None
        self.thread = threading.Thread(target=self._send, args=(bootstrap, topic, list(records), rate), daemon=True)
        self.thread.start()

    def _send(self, bootstrap, topic, records, rate):
        try:
            for at in range(0, len(records), max(1, rate // 20)):
                kafka_module.send(bootstrap, topic, records[at:at + rate // 20])
                time.sleep(0.05)
        except Exception as error:
            self.failure = error

    def running(self):
        return self.thread.is_alive()

    def finish(self):
        self.thread.join()
        if self.failure is not None:
            raise self.failure


def records(chance, count, partitions, disorder=60):
    return list(oracle.placed(oracle.with_malformed(oracle.synthetic_events(chance.random(), count, disorder=disorder)), partitions))


def test_kills_while_events_arrive(chance, serve, embedded):
    broker, server = embedded(matches=3), serve(checkpoint_interval="100ms", max_epoch_rows=400)
    server.query(oracle.source("matches", broker.bootstrap, bound="5 seconds"))
    server.query(oracle.VIEW)
    collector = oracle.Collector(broker.bootstrap, "matches")
    sender, kills = Sender(broker.bootstrap, "matches", records(chance, 12_000, 3), 2500), 0
    while sender.running():
        time.sleep(chance.uniform(0, 0.8))
        server.kill()
        server.start()
        kills += 1
    sender.finish()
    assert kills >= 4
    want, bad = collector.counts()
    assert oracle.check_view_and_late(server, want) > 0
    oracle.check_errors(server, bad)

    def rows():
        # Epochs after the last checkpoint are cut anew, and floating sums may then differ in their last bits.
        found = server.query(f"SELECT {oracle.COLUMNS} FROM team_minute ORDER BY 1, 2, 3")
        return [{k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in found]

    # The rows that a restart restores are the rows that were there. What lies behind the last checkpoint would be cut, and judged, anew:
    # a server that is stopped leaves nothing there.
    server.stop()
    server.start()
    before = rows()
    server.restart()
    oracle.check_view_and_late(server, want)
    oracle.check_errors(server, bad)
    assert rows() == before


def test_kills_during_start(chance, serve, embedded):
    broker, server = embedded(matches=2), serve(checkpoint_interval="100ms", max_epoch_rows=50)
    server.query(oracle.source("matches", broker.bootstrap))
    server.query(oracle.VIEW)
    collector = oracle.Collector(broker.bootstrap, "matches")
    sender = Sender(broker.bootstrap, "matches", records(chance, 4000, 2, disorder=0), 2000)
    server.kill()
    for _ in range(10):
        server.process = tidegate.Process(server.folder, "serve", "--listen", "127.0.0.1:0", "--data-dir", server.data, settings=server.settings)
        time.sleep(chance.uniform(0, 0.6))
        server.process.kill()
    sender.finish()
    server.start()
    want, bad = collector.counts()
    oracle.check_view(server, want)
    oracle.check_errors(server, bad)


def test_after_the_records_below_the_checkpoint_are_gone(chance, kafka, serve):
    topic, server = kafka.fresh_topic("crash", 4), serve(checkpoint_interval="100ms", max_epoch_rows=1000)
    server.query(oracle.source(topic, kafka.bootstrap, bound="5 seconds"))
    server.query(oracle.VIEW)
    collector = oracle.Collector(kafka.bootstrap, topic)
    sender, kills, deleted = Sender(kafka.bootstrap, topic, records(chance, 12_000, 4), 2500), 0, 0
    while sender.running():
        time.sleep(chance.uniform(0.3, 1))
        server.kill()
        deleted = delete_below_checkpoint(kafka, topic, collector) or deleted
        server.start()
        kills += 1
    sender.finish()
    assert kills >= 3 and deleted > 0
    check(server, collector)


def delete_below_checkpoint(kafka, topic, *readers):
    """Deletes what the last checkpoint covers; returns how many records of the topic are gone."""
    # The group's offsets follow each checkpoint, so what lies below them is in one. Other readers have to be past them too.
    committed = kafka.committed("tidegate-match_events", topic)
    for reader in readers:
        assert tidegate.settle(lambda: all(reader.reached[p] >= offset for p, offset in committed.items()), True, 20)
    if committed:
        kafka.delete_below(topic, committed)
    return sum(committed.values())


def check(server, collector):
    """Views, `$late` and `$errors` are what a run that never crashed has: each record once, in one of the three."""
    want, bad = collector.counts()
    oracle.check_view_and_late(server, want)
    oracle.check_errors(server, bad)
    server.restart()
    oracle.check_view_and_late(server, want)
    oracle.check_errors(server, bad)


class Twin:
    """A second server over the same topic, with the same view, that nobody kills."""

    def __init__(self, serve, kafka, topic):
        self.server = serve(checkpoint_interval="1s")
        # Its own group: the other one's tells what that one's checkpoints hold.
        self.server.query(oracle.source(topic, kafka.bootstrap, bound="5 seconds", options=", 'properties.group.id' = 'twin'"))
        self.server.query(oracle.VIEW)

    @property
    def reached(self):
        return {row["partition"]: row["offset"] for row in self.server.query('SELECT "partition", "offset" FROM system.partitions')}


class Crashing:
    """A server that is to be killed while it reads, beside its twin; the records are late in every cutting or in none."""

    def __init__(self, chance, kafka, serve, name, max_epoch_rows):
        self.kafka, self.topic = kafka, kafka.fresh_topic(name, 4)
        self.server, self.deaths, self.deleted, self.begun = serve(checkpoint_interval="100ms", max_epoch_rows=max_epoch_rows), 0, 0, time.monotonic()
        self.server.query(oracle.source(self.topic, kafka.bootstrap, bound="5 seconds"))
        self.server.query(oracle.VIEW)
        self.collector, self.twin = oracle.Collector(kafka.bootstrap, self.topic), Twin(serve, kafka, self.topic)
        # In order but for less than the bound. Before the first stray comes, the watermark is far above it for good: in a checkpoint.
        first, events = 1000, oracle.synthetic_events(chance.random(), 10_000_000, disorder=4)
        kafka_module.send(kafka.bootstrap, self.topic, oracle.placed(itertools.islice(events, first), 4))
        ends = {p: end for p, (_, end) in kafka.ranges(self.topic).items()}
        assert sum(ends.values()) == first
        assert tidegate.settle(lambda: kafka.committed("tidegate-match_events", self.topic), ends, 60) == ends
        assert tidegate.settle(lambda: self.twin.reached, ends, 60) == ends
        self.events = oracle.placed(oracle.with_malformed(oracle.with_strays(events)), 4)

    def send(self):
        kafka_module.send(self.kafka.bootstrap, self.topic, list(itertools.islice(self.events, 100)))

    def died(self):
        self.deaths += 1
        self.deleted = delete_below_checkpoint(self.kafka, self.topic, self.collector, self.twin)

    def check(self):
        """All is as on the twin, and as counted independently."""
        assert self.deleted > 0
        strays = self.collector.strays()
        want, bad = self.collector.counts()
        for server in (self.server, self.twin.server):
            assert oracle.check_view_and_late(server, want) == len(strays) > 0
            oracle.check_errors(server, bad)
        for again in (False, True):
            if again:
                # It reads again what lies behind its last checkpoint: only then is it where its twin is.
                self.server.restart()
                oracle.check_view_and_late(self.server, want)
            oracle.check_same(self.server, self.twin.server)
        late = self.server.query('SELECT "_partition", "_offset" FROM "team_minute$late" ORDER BY 1, 2')
        assert [(row["_partition"], row["_offset"]) for row in late] == strays
        print(f"{self.deaths} deaths in {time.monotonic() - self.begun:.0f} s: {want.total} events, {len(strays)} late, {len(bad)} malformed, "
              f"{self.deleted} records deleted below checkpoints")


def test_deaths_at_every_failpoint(chance, kafka, serve):
    run = Crashing(chance, kafka, serve, "failpoints", max_epoch_rows=300)
    server = run.server
    server.stop()
    for point in chance.sample(list(FAILPOINTS) * (12 if LONG else 1), len(FAILPOINTS) * (12 if LONG else 1)):
        armed = server.settings | {"failpoint": f"{point}:{chance.randint(1, FAILPOINTS[point])}"}
        process = tidegate.Process(server.folder, "serve", "--listen", "127.0.0.1:0", "--data-dir", server.data, settings=armed)
        deadline = time.monotonic() + 60
        while process.child.poll() is None:
            assert time.monotonic() < deadline, f"the server does not pass {armed['failpoint']}: {process.said()[-2000:]}"
            run.send()
        assert process.child.returncode == -signal.SIGABRT, process.said()[-2000:]
        run.died()
    server.start()
    run.check()


def test_an_unknown_failpoint_is_refused(serve):
    with pytest.raises(RuntimeError, match="TIDEGATE_FAILPOINT names no point 'nowhere'"):
        serve(failpoint="nowhere")


@pytest.mark.skipif(not LONG, reason="skipped: 200 kills take minutes, TIDEGATE_LONG=1 runs them")
def test_two_hundred_kills(chance, kafka, serve):
    run = Crashing(chance, kafka, serve, "kills", max_epoch_rows=500)
    server = run.server
    for kill in range(200):
        until = time.monotonic() + chance.uniform(0, 0.8)
        while time.monotonic() < until:
            run.send()
        server.kill()
        run.died()
        if kill % 3 == 2:
            # Dead again before it serves.
            process = tidegate.Process(server.folder, "serve", "--listen", "127.0.0.1:0", "--data-dir", server.data, settings=server.settings)
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
        server.start()
    run.check()


def test_real_matches_with_a_kill_and_their_records_gone(chance, kafka, serve, statsbomb, tmp_path):
    topic, server = kafka.fresh_topic("real-crash", 4), serve(checkpoint_interval="100ms", max_epoch_rows=5000)
    server.query(oracle.source(topic, kafka.bootstrap))
    server.query(oracle.VIEW)
    replay = tidegate.Process(tmp_path, "replay", statsbomb.folder, "--brokers", kafka.bootstrap, "--topic", topic, "--rate", "max")
    want, kills = statsbomb.counts(), 0
    while kills < 3:
        time.sleep(chance.uniform(0.5, 1.5))
        server.kill()
        committed = kafka.committed("tidegate-match_events", topic)
        if committed:
            kafka.delete_below(topic, committed)
        server.start()
        kills += 1
    assert replay.wait() == 0, replay.said()
    oracle.check_view(server, want)


def test_what_was_acknowledged_is_in_the_catalog(chance, serve, embedded):
    broker, server = embedded(numbers=1), serve()
    server.query(f"CREATE SOURCE numbers (n INT) WITH (connector = 'kafka', topic = 'numbers', 'bootstrap.servers' = '{broker.bootstrap}', format = 'json')")
    there = set()
    for round_ in range(3):
        acknowledged = []

        def declare():
            try:
                with server.connect() as connection, connection.cursor() as cursor:
                    for i in range(1000):
                        cursor.execute(f"CREATE CONTINUOUS VIEW v_{round_}_{i} AS SELECT n + {i} AS n FROM numbers")
                        acknowledged.append(f"v_{round_}_{i}")
            except Exception:
                pass  # the server is gone

        thread = threading.Thread(target=declare)
        thread.start()
        time.sleep(chance.uniform(0.1, 0.6))
        server.kill()
        thread.join()
        there.update(acknowledged)
        server.start()
        for name in sorted(there):
            server.query(f"SELECT n FROM {name}")
        for name in sorted(there):
            server.query(f"DROP VIEW {name}")
        # At most the statement that was under way may have left a view behind.
        left = [value for row in server.query("SHOW VIEWS") for value in row.values() if str(value).startswith("v_")]
        assert len(left) <= round_ + 1
        there.clear()
