"""A broker that hangs, dies, or comes late: the server answers on, and every record counts once."""

import os
import signal
import threading
import time

import kafka as kafka_module
import tidegate

SOURCE = """CREATE SOURCE numbers (n BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '0' SECOND)
  WITH (connector = 'kafka', topic = 'numbers', 'bootstrap.servers' = '{bootstrap}', format = 'json', 'idle.timeout' = '1 second')"""
VIEW = "CREATE CONTINUOUS VIEW totals WITH (unbounded_state = true) AS SELECT count(*) AS c, count(DISTINCT n) AS d, sum(n) AS s FROM numbers"
TOTALS = "SELECT max(c) FROM totals"


def record(n, second=None):
    return b'{"n": %d, "at": "2024-01-01T00:00:%02dZ"}' % (n, n % 60 if second is None else second)


def declare(server, bootstrap):
    server.query(SOURCE.format(bootstrap=bootstrap))
    server.query(VIEW)


def check(server, count):
    assert server.settle(TOTALS, count, 60) == count
    assert server.query("SELECT * FROM totals") == [{"c": count, "d": count, "s": sum(range(count))}]


def state(server):
    [row] = server.query("SHOW SOURCES")
    return row["state"]


def test_a_broker_that_hangs(embedded, serve):
    broker, server = embedded(numbers=2), serve(checkpoint_interval="100ms")
    declare(server, broker.bootstrap)
    broker.send("numbers", [(n % 2, record(n)) for n in range(100)])
    check(server, 100)
    for round in range(1, 3):
        os.kill(broker.process.child.pid, signal.SIGSTOP)
        try:
            # Views answer on, and at once.
            begin = time.monotonic()
            while time.monotonic() - begin < 4:
                asked = time.monotonic()
                assert server.value(TOTALS) == 100 * round
                assert time.monotonic() - asked < 2
                time.sleep(0.1)
        finally:
            os.kill(broker.process.child.pid, signal.SIGCONT)
        broker.send("numbers", [(n % 2, record(n)) for n in range(100 * round, 100 * round + 100)])
        check(server, 100 * round + 100)
    assert tidegate.settle(lambda: state(server), "running", 30) == "running"


def test_a_broker_that_hangs_makes_no_partition_idle(embedded, serve):
    broker, server = embedded(numbers=2), serve()
    declare(server, broker.bootstrap)
    server.query("CREATE CONTINUOUS VIEW seconds AS SELECT window_start, count(*) AS c FROM TUMBLE(numbers, at, INTERVAL '1 second') GROUP BY window_start, window_end EMIT ON WINDOW CLOSE")
    # Partition 1 alone holds the watermark back: if it fell idle, its window would close.
    broker.send("numbers", [(0, record(0, 30)), (1, record(1, 1))])
    assert server.settle(TOTALS, 2) == 2
    closed = "SELECT count(*) FROM seconds"
    os.kill(broker.process.child.pid, signal.SIGSTOP)
    try:
        # Whether partition 1 has more nobody can know now: for several times its timeout it does not fall idle.
        begin = time.monotonic()
        while time.monotonic() - begin < 4:
            assert server.value(closed) == 0
            time.sleep(0.1)
    finally:
        os.kill(broker.process.child.pid, signal.SIGCONT)
    broker.send("numbers", [(1, record(2, 1))])
    assert server.settle(TOTALS, 3) == 3
    assert server.value('SELECT count(*) FROM "seconds$late"') == 0
    # Now it is silent, and the broker says so.
    assert server.settle(closed, 1) == 1
    assert server.value("SELECT max(c) FROM seconds") == 2


def test_a_server_that_starts_before_its_broker(tmp_path, serve):
    broker = kafka_module.Kafka(tmp_path / "kafka")
    server = serve(checkpoint_interval="100ms")
    try:
        # The source can be declared, and asked, before anything answers.
        server.query(SOURCE.format(bootstrap=broker.bootstrap))
        server.query(VIEW)
        assert server.query("SELECT count(*) AS c FROM totals") is not None
        assert tidegate.settle(lambda: state(server), "connecting", 30) == "connecting"
        broker.start().create_topic("numbers", 2)
        kafka_module.send(broker.bootstrap, "numbers", [(n % 2, record(n)) for n in range(50)])
        check(server, 50)
    finally:
        broker.close()


def test_a_broker_that_dies_again_and_again(tmp_path, serve):
    broker = kafka_module.Kafka(tmp_path / "kafka")
    server = serve(checkpoint_interval="100ms")
    try:
        broker.start().create_topic("numbers", 2)
        declare(server, broker.bootstrap)
        sent = 0
        for round in range(2):
            kafka_module.send(broker.bootstrap, "numbers", [(n % 2, record(n)) for n in range(sent, sent + 200)])
            sent += 200
            # Killed while it is read; the server too, once.
            broker.child.kill()
            broker.child.wait()
            assert server.value("SELECT 1") == 1
            if round == 1:
                server.restart()
            broker.start()
        kafka_module.send(broker.bootstrap, "numbers", [(n % 2, record(n)) for n in range(sent, sent + 10)])
        check(server, sent + 10)
    finally:
        broker.close()


def test_kills_of_the_server_while_the_broker_hangs(embedded, serve):
    kills = 3
    broker, server = embedded(numbers=2), serve(checkpoint_interval="100ms")
    declare(server, broker.bootstrap)
    for round in range(kills):
        broker.send("numbers", [(n % 2, record(n)) for n in range(100 * round, 100 * round + 100)])
        os.kill(broker.process.child.pid, signal.SIGSTOP)
        timer = threading.Timer(1.5, os.kill, (broker.process.child.pid, signal.SIGCONT))
        timer.start()
        server.restart()
        assert server.query("SELECT * FROM totals") is not None
        timer.join()
    check(server, 100 * kills)
