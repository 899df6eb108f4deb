"""Transfers between accounts, a diamond of views: credits and debits of one topic, joined again. Money is neither made nor lost: the total is 0
in every value that is emitted and in every read, at every epoch, over a kill. TIDEGATE_LONG=1 sends ten times as many transfers."""

import collections
import os
import random
import threading
import time

import pytest
import tidegate
from confluent_kafka import Producer

LONG = os.environ.get("TIDEGATE_LONG") == "1"
TRANSFERS = 10_000_000 if LONG else 1_000_000
#: So few records an epoch that there are more than a thousand.
EPOCH_ROWS = 900
ACCOUNTS = 10

VIEWS = {
    "credits": "SELECT receiver AS account, sum(amount) AS credits FROM transfers GROUP BY receiver",
    "debits": "SELECT sender AS account, sum(amount) AS debits FROM transfers GROUP BY sender",
    "balance": """SELECT coalesce(c.account, d.account) AS account, coalesce(credits, 0) - coalesce(debits, 0) AS balance
                  FROM credits c FULL JOIN debits d ON c.account = d.account""",
    "total": "SELECT sum(balance) AS total FROM balance",
    "seen": "SELECT count(*) AS n FROM transfers",
}


class Bank:
    """Sends transfers, and knows what everybody must have."""

    def __init__(self, bootstrap, topic, partitions):
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000, "log_level": 0})
        self.topic, self.partitions, self.dice = topic, partitions, random.Random(42)
        self.sent, self.balances = 0, collections.Counter()

    def send(self, count):
        pick = self.dice.random
        for number in range(self.sent, self.sent + count):
            sender, receiver, amount = int(pick() * ACCOUNTS), int(pick() * ACCOUNTS), int(pick() * 5) + 1
            self.balances[sender] -= amount
            self.balances[receiver] += amount
            record = b'{"id":%d,"sender":%d,"receiver":%d,"amount":%d}' % (number, sender, receiver, amount)
            while True:
                try:
                    self.producer.produce(self.topic, record, partition=number % self.partitions)
                    break
                except BufferError:
                    self.producer.poll(0.05)
            if number % 1000 == 0:
                self.producer.poll(0)
        assert self.producer.flush(60) == 0
        self.sent += count


class Watched:
    """What followers and readers are told, until the server is killed."""

    def __init__(self, server):
        self.server, self.stopped = server, threading.Event()
        self.folded, self.reads, self.wrong = {}, {}, []
        self.followers = [tidegate.Subscription(server, f"SELECT * FROM {name} EMIT CHANGES") for name in ("balance", "total")]
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        connection = self.server.connect()
        try:
            with connection, connection.cursor() as cursor:
                ask = lambda sql: (cursor.execute(sql), cursor.fetchall())[1]
                while not self.stopped.wait(0.1):
                    self.wrong += [("read", row) for row in ask("SELECT (SELECT total FROM total), (SELECT sum(balance) FROM balance)") if set(row) - {0, None}]
                    epoch = ask("SELECT max(epoch) FROM system.views")[0][0]
                    self.reads[epoch] = dict(ask(f"SELECT account, balance FROM balance AS OF EPOCH {epoch}"))
        except Exception as error:
            # The server is killed while it reads.
            if not self.stopped.is_set():
                self.wrong.append(("reader", repr(error)))

    def finish(self):
        """Takes what the followers have been told apart, epoch by epoch, and compares it with what was read."""
        self.stopped.set()
        self.reader.join(30)
        balance, total = self.followers
        assert balance.error is None and total.error is None, (balance.error, total.error)
        balances, epoch = {}, None
        for row in balance.rows() + [{"_epoch": None}]:
            if row["_epoch"] != epoch and epoch is not None:
                self.folded[epoch] = dict(balances)
            epoch = row["_epoch"]
            if epoch is None:
                continue
            if row["_op"] in ("update_before", "delete"):
                if balances.pop(row["account"], None) != row["balance"]:
                    self.wrong.append(("taken back", row))
            else:
                if row["account"] in balances:
                    self.wrong.append(("twice", row))
                balances[row["account"]] = row["balance"]
        self.wrong += [("folded", at, held) for at, held in self.folded.items() if sum(held.values()) != 0]
        self.wrong += [("emitted", row) for row in total.rows() if row["total"] not in (0, None)]
        compared = 0
        for at, read in self.reads.items():
            known = [epoch for epoch in self.folded if epoch <= at]
            if known:
                compared += 1
                if self.folded[max(known)] != read:
                    self.wrong.append(("view", at, read, self.folded[max(known)]))
        return compared


@pytest.mark.parametrize("partitions", [1, 4])
def test_money_is_neither_made_nor_lost(serve, kafka, partitions):
    topic = kafka.fresh_topic("transfers", partitions)
    server = serve(checkpoint_interval="500ms", max_epoch_rows=EPOCH_ROWS, min_epoch_interval="0ms")
    server.query(f"""CREATE SOURCE transfers (id BIGINT, sender BIGINT, receiver BIGINT, amount BIGINT)
                     WITH (connector = 'kafka', topic = '{topic}', 'bootstrap.servers' = '{kafka.bootstrap}', format = 'json')""")
    for name, query in VIEWS.items():
        server.query(f"CREATE CONTINUOUS VIEW {name} WITH (unbounded_state = true) AS {query} EMIT CHANGES")
    bank, epochs, compared, wrong = Bank(kafka.bootstrap, topic, partitions), 0, 0, []
    for part in (0, 1):
        watched = Watched(server)
        sending = threading.Thread(target=bank.send, args=(TRANSFERS // 2,))
        sending.start()
        if part == 0:
            # In the midst of it; what was told before is looked at, and all goes on.
            assert server.settle("SELECT n > 100000 FROM seen", True, limit=600)
            told = watched.finish()
            epochs, compared, wrong = epochs + len(watched.folded), compared + told, wrong + watched.wrong
            for follower in watched.followers:
                follower.cancel()
            server.restart()
            watched = Watched(server)
        sending.join()
        assert server.settle("SELECT n FROM seen", bank.sent, limit=600 if not LONG else 6000) == bank.sent
        time.sleep(0.5)
        told = watched.finish()
        epochs, compared, wrong = epochs + len(watched.folded), compared + told, wrong + watched.wrong
        assert all(follower.cancel() for follower in watched.followers)
    print(f"{bank.sent} transfers in {partitions} partitions: {epochs} epochs added up, {compared} read and compared")
    assert not wrong, wrong[:3]
    assert epochs >= 1000 and compared > 10, (epochs, compared)
    held = {row["account"]: row["balance"] for row in server.query("SELECT * FROM balance")}
    assert held == dict(bank.balances)
