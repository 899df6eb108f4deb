"""The broker, its one topic, and the same events as a file; kept in a folder, so that they are made once."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from confluent_kafka import Consumer, TopicPartition

from provision import REPOSITORY, jars

sys.path.append(str(REPOSITORY / "tests/python"))
# Which `kafka` reads when it is imported.
os.environ["TIDEGATE_KAFKA_JARS"] = str(jars(REPOSITORY / "tests/kafka/pom.xml", "kafka"))
import kafka  # noqa: E402

TOPIC = "match-events"
PARTITIONS = 8
# What a simulated match has, about: how many events there are is known when they have been sent.
EVENTS_A_MATCH = 3500


class Broker(kafka.Kafka):
    """The tests' broker as it is run for long: with the JVM's optimizing compiler."""

    def __init__(self, folder):
        super().__init__(folder)
        # One that has been here before goes on with its log.
        self._formatted = (self.folder / "log/meta.properties").exists()

    def _java(self, *arguments, heap="256m"):
        return [part for part in super()._java(*arguments, heap=heap) if part != "-XX:TieredStopAtLevel=1"]


class Workload:
    """A running broker with the topic, and the file."""

    def __init__(self, folder, events, binary):
        self.folder = pathlib.Path(folder)
        self.file = self.folder / "events.json"
        self._about = self.folder / "about.json"
        self._wanted = events
        self._binary = binary
        self.topic = TOPIC
        self.broker = None

    def start(self):
        """Starts the broker; makes topic and file if they are not there, or for another number of events."""
        about = json.loads(self._about.read_text()) if self._about.exists() else {}
        if about.get("wanted") != self._wanted:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.broker = Broker(self.folder / "broker").start()
        if not self._about.exists():
            self._make()
        about = json.loads(self._about.read_text())
        self.events, self.bytes = about["events"], about["bytes"]
        return self

    def stop(self):
        if self.broker is not None:
            self.broker.stop()

    @property
    def bootstrap(self):
        return self.broker.bootstrap

    def _make(self):
        matches = -(-self._wanted // EVENTS_A_MATCH)
        print(f"simulating {matches} matches", file=sys.stderr)
        self.broker.create_topic(TOPIC, PARTITIONS)
        # As `tidegate bench pipeline` has them: sixty matches side by side, no 360 data, nothing three quarters of an hour late (which
        # a watermark of five seconds drops, rightly, and a batch counts).
        command = [self._binary, "simulate", "--brokers", self.bootstrap, "--topic", TOPIC, "--matches", str(matches), "--concurrent", "60"]
        command += ["--three-sixty", "0", "--no-late-receipts", "--rate", "max"]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"`{' '.join(command)}` ended with {ended.returncode}: {ended.stderr[-1000:]}")
        events, size = self._write_file()
        self._about.write_text(json.dumps({"wanted": self._wanted, "events": events, "bytes": size}))

    def _write_file(self):
        """The payloads of the topic, one a line; how many, and their bytes."""
        ends = {partition: end for partition, (_, end) in self.broker.ranges(TOPIC).items()}
        left, events, size = sum(ends.values()), 0, 0
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "file", "enable.auto.commit": False, "log_level": 3})
        try:
            consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in ends])
            with open(self.file, "wb") as out:
                while left:
                    messages = consumer.consume(10_000, timeout=20)
                    if not messages:
                        raise RuntimeError(f"the broker gave nothing for 20 s, with {left} records to come: {self.broker.log_end()}")
                    for message in messages:
                        if message.error():
                            raise RuntimeError(f"the topic can't be read: {message.error()}")
                        payload = message.value()
                        out.write(payload)
                        out.write(b"\n")
                        size += len(payload)
                    left -= len(messages)
                    events += len(messages)
        finally:
            consumer.close()
        return events, size
