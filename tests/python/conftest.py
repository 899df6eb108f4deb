"""Fixtures: servers and brokers that end with the test, and whose logs are shown when it fails."""

import os
import pathlib

import pytest

import kafka as kafka_module
import kafka_secure
import oracle
import tidegate


def pytest_sessionstart(session):
    if not os.access(tidegate.BINARY, os.X_OK):
        pytest.exit(f"no program at {tidegate.BINARY}: run `bash tests/run`, which builds it, or set TIDEGATE_BIN", returncode=2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "call" and report.failed and folder is not None:
        for log in sorted(pathlib.Path(folder).rglob("*.err")):
            report.sections.append((str(log), log.read_text(errors="replace")[-4000:]))
    return report


@pytest.fixture
def serve(tmp_path):
    """`serve(*arguments, **settings)` starts a server; `settings` are configuration keys, each passed as its environment variable."""
    servers = []

    def start(*arguments, **settings):
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = tidegate.Server(folder, *arguments, **settings)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


class Embedded:
    """`tidegate broker` in a process of its own."""

    def __init__(self, folder, **topics):
        self.folder = folder
        arguments = [word for name, partitions in topics.items() for word in ("--topic", f"{name}:{partitions}")]
        self.process = tidegate.Process(folder, "broker", *arguments)
        self.bootstrap = self.process.wait_for("bootstrap.servers=")

    def send(self, topic, records, **config):
        """Sends (partition, value) records and waits until all are acknowledged."""
        kafka_module.send(self.bootstrap, topic, records, **config)

    def simulate(self, topic, *arguments):
        """Sends simulated matches."""
        return tidegate.run(self.folder, "simulate", "--brokers", self.bootstrap, "--topic", topic, *arguments)

    def close(self):
        self.process.kill()


@pytest.fixture
def embedded(tmp_path):
    """`embedded(topic=partitions, …)` starts an embedded broker."""
    brokers = []

    def start(**topics):
        brokers.append(Embedded(tmp_path, **topics))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.close()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """One real Apache Kafka for all tests; they use topics of their own."""
    broker = kafka_module.Kafka(tmp_path_factory.mktemp("kafka"))
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.fixture(scope="session")
def secure_kafka(tmp_path_factory):
    """One real Apache Kafka with a listener for each kind of security, for all tests."""
    broker = kafka_secure.SecureKafka(tmp_path_factory.mktemp("secure-kafka"))
    try:
        yield broker.start()
    finally:
        broker.close()


@pytest.fixture(scope="session")
def statsbomb():
    """The folder of real matches; the test is skipped where there is none."""
    folder = os.environ.get("TIDEGATE_STATSBOMB")
    if not folder or not pathlib.Path(folder, "events").is_dir():
        pytest.skip("skipped: no StatsBomb matches (TIDEGATE_STATSBOMB names no folder with events/)")
    return oracle.Matches(folder)
