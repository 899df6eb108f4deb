"""A real Apache Kafka broker in KRaft mode on free ports, and what the tests do to its topics."""

import os
import pathlib
import shutil
import socket
import subprocess
import time
import uuid

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

# Where `tests/run` has put Kafka's jars.
JARS = os.environ.get("TIDEGATE_KAFKA_JARS", "")

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=200
log.retention.check.interval.ms=1000
log.retention.ms=-1
"""


def free_ports(count):
    """Ports that nothing listens on; all held open until the last is known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Kafka:
    """One broker that is also its own controller, its data in `folder`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, controller = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.properties = self.folder / "server.properties"
        self.properties.write_text(PROPERTIES.format(port=self.port, controller=controller, folder=self.folder))
        self.child = None
        self._formatted = False
        # What else the storage is formatted with.
        self.format_arguments = []
        # One client for the broker's life: a client that is dropped fails its unfinished requests. Its own log goes nowhere, since it complains of the broker's start.
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def _java(self, *arguments, heap="256m"):
        # One garbage collector thread and C1 only: a test broker lives for minutes, so a fast start counts for more than peak speed.
        return ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*", *arguments]

    def start(self):
        """Starts the broker and waits until it answers."""
        if not JARS:
            raise RuntimeError("TIDEGATE_KAFKA_JARS names no folder: run `bash tests/run`, which fetches Kafka")
        if not self._formatted:
            cluster = uuid.uuid4().hex[:22]
            command = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.properties), *self.format_arguments)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"kafka's storage could not be formatted: {done.stdout}{done.stderr}")
            self._formatted = True
        with open(self.folder / "kafka.log", "ab") as log:
            self.child = subprocess.Popen(
                self._java("kafka.Kafka", str(self.properties), heap="512m"), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while True:
            if self.child.poll() is not None:
                raise RuntimeError(f"kafka ended with {self.child.returncode}: {self.log_end()}")
            try:
                self.admin.list_topics(timeout=2)
                return self
            except Exception as error:
                if time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"kafka did not answer within 60 s: {self.log_end()}") from error

    def stop(self):
        """Stops the broker; its data stays, and `start` goes on with it on the same port."""
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.child = None

    def close(self):
        """Stops the broker and removes its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_end(self):
        """The last lines of the broker's log."""
        return "\n".join((self.folder / "kafka.log").read_text(errors="replace").splitlines()[-20:])

    def create_topic(self, name, partitions=1, **config):
        """Creates a topic and returns its name. `config` is the topic's, with `_` for `.`."""
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        new = NewTopic(name, partitions, 1, config=settings)
        for future in self.admin.create_topics([new]).values():
            future.result(20)
        self.ranges(name)  # which waits until its partitions have leaders
        return name

    def fresh_topic(self, stem, partitions=1, **config):
        """Creates a topic whose name nothing had before."""
        return self.create_topic(f"{stem}-{uuid.uuid4().hex[:8]}", partitions, **config)

    def ranges(self, topic):
        """{partition: (first offset, end offset)} of a topic."""
        return ranges(self.bootstrap, topic)

    def committed(self, group, topic):
        """{partition: offset} that a consumer group has committed for a topic; partitions without a commit are absent."""
        partitions = [TopicPartition(topic, p) for p in self.ranges(topic)]
        request = ConsumerGroupTopicPartitions(group, partitions)
        [future] = self.admin.list_consumer_group_offsets([request]).values()
        return {p.partition: p.offset for p in future.result(20).topic_partitions if p.offset >= 0}

    def delete_below(self, topic, offsets):
        """Deletes the records of each partition below its offset in `offsets`."""
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        for future in self.admin.delete_records(wanted).values():
            future.result(20)

    def add_partitions(self, topic, total):
        """Makes partitions until the topic has so many."""
        for future in self.admin.create_partitions([NewPartitions(topic, total)]).values():
            future.result(20)

    def delete_topic(self, topic):
        """Deletes a topic and waits until nobody knows it any more."""
        for future in self.admin.delete_topics([topic]).values():
            future.result(20)
        deadline = time.monotonic() + 20
        while topic in self.admin.list_topics(timeout=5).topics:
            if time.monotonic() > deadline:
                raise RuntimeError(f"topic {topic} is still there")
            time.sleep(0.05)

    def producer(self, **config):
        """A producer that may not lose or reorder anything; `config` with `_` for `.`."""
        return producer(self.bootstrap, **config)


def producer(bootstrap, **config):
    """A producer for any broker; `config` with `_` for `.`."""
    settings = {key.replace("_", "."): value for key, value in config.items()}
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 1, "log_level": 3, **settings})


def ranges(bootstrap, topic):
    """{partition: (first offset, end offset)} of a topic on any broker."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.auto.commit": False, "log_level": 3})
    deadline = time.monotonic() + 20
    try:
        while True:
            try:
                known = client.list_topics(topic, timeout=10).topics[topic].partitions
                return {p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in sorted(known)}
            except KafkaException as error:
                # A topic just made, or a broker just started: its partitions have no leader yet.
                if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    finally:
        client.close()


def send(bootstrap, topic, records, **config):
    """Sends records and waits until all are acknowledged. A record is (partition, value) or (partition, value, {timestamp, key, headers})."""
    failures = []

    def acknowledged(error, _message):
        if error is not None:
            failures.append(error)

    client = producer(bootstrap, **config)
    for record in records:
        partition, value, more = record if len(record) == 3 else (*record, {})
        while True:
            try:
                client.produce(topic, value, partition=partition, on_delivery=acknowledged, **more)
                break
            except BufferError:
                client.poll(0.1)
        client.poll(0)
    left = client.flush(30)
    if left or failures:
        raise RuntimeError(f"{left} records unsent, {len(failures)} refused{': ' + str(failures[0]) if failures else ''}")
