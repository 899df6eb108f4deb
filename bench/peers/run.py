#!/usr/bin/env python3
"""The same job side by side: Tidegate, Spark Structured Streaming, Flink SQL, DuckDB, and a consumer that only counts bytes.

    python3 bench/peers/run.py                     all of them, one table
    python3 bench/peers/run.py spark               one (the ratio needs Tidegate: `run.py tidegate spark`)
    python3 bench/peers/run.py --clean             removes the topic and the file

Needs Linux, Python 3.11 or newer, a JDK (17), Maven, a C compiler, and a release build of Tidegate (TIDEGATE_BIN, or --binary). All else is fetched once into
$TIDEGATE_CACHE (default ~/.cache/tidegate), where topic and file are kept, too. README.md beside this file says what is measured.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import job  # noqa: E402
from provision import CACHE, Missing, compiled, jars, last_said, python_environment  # noqa: E402

FOLDER = CACHE / "peers"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
# A peer that takes longer than this hangs, and is ended.
LIMIT_SECONDS = 1800
# What Flink may use of the JDK's insides, as its own start scripts allow it.
OPENED = ["java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.time", "java.util", "java.util.concurrent",
          "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch"]


# --- the peers ------------------------------------------------------------------------------------------------------


def tidegate(told, options):
    return [sys.executable, HERE / "peer_tidegate.py", *told]


def spark(told, options):
    python = python_environment(HERE / "spark/requirements.txt", "peer-spark")
    return [python, HERE / "peer_spark.py", *told, "--jars", jars(HERE / "spark/pom.xml", "peer-spark-jars")]


def flink(told, options):
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
    virtual_machine = ["-Xmx4g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *opened]
    return ["java", *virtual_machine, "-cp", f"{jars(HERE / 'flink/pom.xml', 'peer-flink-jars')}/*", HERE / "flink/Peer.java", *told]


def duckdb(told, options):
    return [sys.executable, HERE / "peer_duckdb.py", *told]


def bare(told, options):
    import confluent_kafka

    given = dict(zip(told[::2], told[1::2]))
    [library] = (pathlib.Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka-*.so*")
    return [compiled(HERE / "bare.c", library), given["--bootstrap"], given["--topic"], options.partitions, given["--events"], given["--passes"]]


# In the order of the table. DuckDB is first asked for the answer that all are held to.
PEERS = {"tidegate": tidegate, "spark": spark, "flink": flink, "duckdb": duckdb, "bare": bare}
FROM_THE_FILE = {"duckdb"}
NAMES = {"tidegate": "Tidegate", "spark": "Spark Structured Streaming", "flink": "Flink SQL", "duckdb": "DuckDB (batch, a file)", "bare": "bare consumer (bytes only)"}


@dataclasses.dataclass
class Pass:
    """One run of the job: `began`, then the first records were read, then the answer was there."""

    began: float
    first_read: float
    done: float
    # CPU seconds of the peer from the first read on; the broker's are not among them.
    used: float

    @property
    def seconds(self):
        return self.done - self.first_read

    @property
    def planning(self):
        return self.first_read - self.began


@dataclasses.dataclass
class Outcome:
    """What a peer did in all its passes; or why not, in `refused`."""

    peer: str
    version: str = ""
    start: float = 0.0
    passes: list = dataclasses.field(default_factory=list)
    peak: int = 0
    equal: str = ""
    refused: str | None = None

    @property
    def warm(self):
        """The best pass but the first."""
        return min(self.passes[1:] or self.passes, key=lambda one: one.seconds)


def measure(peer, workload, options, wanted):
    """Runs a peer's program to its end, and looks on."""
    from watch import Watch

    outcome = Outcome(peer)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{peer}-", dir=FOLDER))
    told = {"bootstrap": workload.bootstrap, "topic": workload.topic, "file": workload.file, "events": workload.events}
    told |= {"threads": options.threads, "passes": options.passes, "folder": folder}
    try:
        command = PEERS[peer]([str(part) for name, value in told.items() for part in (f"--{name}", value)], options)
        with open(folder / "peer.log", "w") as log:
            started = time.time()
            child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
            limit = threading.Timer(LIMIT_SECONDS, stop, [child])
            limit.start()
            try:
                with Watch(workload.broker.child.pid, child.pid) as watch:
                    answers = follow(child.stdout, watch, outcome, started)
                    status = child.wait()
            finally:
                limit.cancel()
                stop(child)
        if status or len(outcome.passes) != options.passes:
            said = last_said((folder / "peer.log").read_text(errors="replace"))
            outcome.refused = f"ended with {status} after {len(outcome.passes)} of {options.passes} passes: {said}"
        else:
            outcome.equal = compare(answers, wanted, workload.bytes)
    except Missing as missing:
        outcome.refused = str(missing)
    finally:
        if options.keep:
            print(f"{peer} worked in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return outcome


def stop(child):
    """Ends a peer with all that it has started, if anything is left."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def follow(lines, watch, outcome, started):
    """Reads what a peer says until it ends; returns what it says of its answers."""
    began, answers = None, []
    for line in lines:
        if not line.startswith("{"):
            print(line, end="", file=sys.stderr)
            continue
        said = json.loads(line)
        if said["is"] == "ready":
            outcome.version, outcome.start = said["version"], said["at"] - started
        elif said["is"] == "process":
            watch.instead(said["id"])
        elif said["is"] == "began":
            began = said["at"]
        elif said["is"] == "done":
            done = said["at"]
            first_read = began if outcome.peer in FROM_THE_FILE else watch.first_read(began, done)
            if first_read is None:
                raise RuntimeError(f"{outcome.peer} says that it is done, and the broker has sent it nothing")
            one = Pass(began, first_read, done, watch.used(first_read, done))
            outcome.passes.append(one)
            sent = watch.sent(began, done) / 1e6
            print(f"{outcome.peer}: pass {len(outcome.passes)}: {one.planning:.2f} s to the first read, then {one.seconds:.2f} s ({one.used:.2f} s of CPU); the broker sent {sent:.0f} MB", file=sys.stderr)
            answers.append(said)
    outcome.peak = watch.peak
    return answers


def compare(answers, wanted, size):
    """Whether each pass gave the wanted rows, or counted all bytes, in a few words."""
    for number, said in enumerate(answers, 1):
        if "bytes" in said:
            wrong = None if said["bytes"] == size else f"{said['bytes']} bytes, and the topic has {size}"
        else:
            wrong = job.difference(job.read_rows(said["rows"]), wanted)
        if wrong is not None:
            return f"NO: pass {number}: {wrong}"
    return "yes, all bytes" if "bytes" in answers[0] else f"yes, {len(wanted)} rows"


# --- the answer and the table ---------------------------------------------------------------------------------------


def wanted_answer(workload):
    """DuckDB's batch answer over the file; kept beside it."""
    file = workload.folder / "answer.csv"
    if not file.exists():
        import duckdb as database
        from peer_duckdb import QUERY

        rows = database.connect().sql(QUERY, params=[str(workload.file)]).to_arrow_table()
        job.write_rows(file, zip(*(column.to_pylist() for column in rows.columns)))
    answer = job.read_rows(file)
    counted = sum(events for events, *_ in answer.values())
    if counted != workload.events:
        raise RuntimeError(f"the topic has {workload.events} events, and DuckDB counted {counted}: the file {workload.file} is not the topic; remove it with --clean")
    return answer


def table(outcomes, workload):
    """The outcomes as a table in Markdown."""
    ours = next((outcome.warm.seconds for outcome in outcomes if outcome.peer == "tidegate" and outcome.passes and not outcome.refused), None)
    head = ["", "version", "events/s", "of Tidegate's", "time", "CPU time", "first pass", "to first read", "start", "peak memory", "equal"]
    rows = []
    for outcome in outcomes:
        name = NAMES[outcome.peer]
        if outcome.refused is not None:
            rows.append([name, outcome.version, "no figure", *["-"] * (len(head) - 3)])
            continue
        warm = outcome.warm
        ratio = "-" if ours is None else f"{ours / warm.seconds:.3g}"
        rows.append([name, outcome.version, f"{workload.events / warm.seconds:,.0f}", ratio, f"{warm.seconds:.2f} s", f"{warm.used:.2f} s", f"{outcome.passes[0].seconds:.2f} s",
                     f"{warm.planning:.2f} s", f"{outcome.start:.1f} s", f"{outcome.peak / 2**20:,.0f} MiB", outcome.equal])
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in [head, *rows]]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines + [f"{NAMES[outcome.peer]}: {outcome.refused}" for outcome in outcomes if outcome.refused is not None])


def machine(threads):
    """What it ran on, in a line."""
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "an unnamed processor")
    return f"{model}, {threads} of {os.cpu_count()} cores for everything, broker included; load before: {os.getloadavg()[0]:.1f}"


# --- command line ---------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"{', '.join(PEERS)}, or all (the default)")
    parser.add_argument("--events", type=int, default=2_000_000, help="about how many events: whole matches are simulated (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=4, help="passes of each; the first warms up, the best of the others counts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each peer, and cores for everything (default: %(default)s)")
    parser.add_argument("--binary", default=os.environ.get("TIDEGATE_BIN") or str(TARGET / "release/tidegate"), help="Tidegate (default: $TIDEGATE_BIN, else %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep what each peer left: its log, its rows")
    parser.add_argument("--clean", action="store_true", help="remove topic and file, and do nothing else")
    options = parser.parse_args()
    if options.clean:
        shutil.rmtree(FOLDER, ignore_errors=True)
        return 0
    chosen = list(PEERS) if options.peers in ([], ["all"]) else options.peers
    if unknown := [peer for peer in chosen if peer not in PEERS]:
        parser.error(f"no peer {unknown[0]!r}; there are: {', '.join(PEERS)}")
    if options.passes < 1 or options.threads < 1 or options.events < 1:
        parser.error("--passes, --threads and --events are at least 1")
    if options.threads > (cores := len(os.sched_getaffinity(0))):
        parser.error(f"--threads {options.threads}: there are {cores} cores")
    if not os.access(options.binary, os.X_OK):
        parser.error(f"no binary at {options.binary}: build it (cargo build --release) or name it with --binary")
    os.environ["TIDEGATE_BIN"] = options.binary
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Everything started from here inherits it: the broker and each peer have these cores, and no others.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])

    from workload import PARTITIONS, Workload

    options.partitions = PARTITIONS
    print(machine(options.threads))
    workload = Workload(FOLDER / "workload", options.events, options.binary)
    try:
        workload.start()
        print(f"{workload.events} events, {workload.bytes / workload.events:.0f} bytes each, {PARTITIONS} partitions")
        wanted = wanted_answer(workload)
        outcomes = [measure(peer, workload, options, wanted) for peer in chosen]
    finally:
        workload.stop()
    print(table(outcomes, workload))
    return int(any(outcome.refused is not None or outcome.equal.startswith("NO") for outcome in outcomes))


if __name__ == "__main__":
    try:
        here = python_environment(HERE / "requirements.txt", "peers")
        if pathlib.Path(sys.prefix) != here.parents[1]:
            os.execv(here, [str(here), *sys.argv])
        sys.exit(main())
    except Missing as missing:
        sys.exit(f"bench/peers: {missing}")
