"""The program under test as child processes, and a client's view of it over ADBC."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import adbc_driver_flightsql.dbapi as flight

import stand_in

CACHE = pathlib.Path(os.environ.get("TIDEGATE_CACHE") or pathlib.Path.home() / ".cache/tidegate")
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or CACHE / "target")
BINARY = os.environ.get("TIDEGATE_BIN") or str(TARGET / "debug/tidegate")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def environment(settings):
    """The environment of a child: nothing of the caller's own TIDEGATE_… settings, then `settings` (`max_epoch_rows=3`)."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
    if folder := os.environ.get("TIDEGATE_TEST_STAND_IN"):
        # Whatever is tested is to be the same on a GPU, or on what stands in for one.
        kept |= stand_in.environment(folder)
        settings = {"device": "gpu"} | settings
    return kept | {f"TIDEGATE_{key.upper()}": str(value) for key, value in settings.items()}


class Process:
    """A running `tidegate COMMAND …`; standard output and error go to files in `folder`."""

    count = 0

    def __init__(self, folder, *arguments, settings=None):
        Process.count += 1
        self.name = arguments[0]
        stem = pathlib.Path(folder) / f"{Process.count:03}-{self.name}"
        self.out, self.err = stem.with_suffix(".out"), stem.with_suffix(".err")
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.child = subprocess.Popen(
                [BINARY, *map(str, arguments)], stdout=out, stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                env=environment(settings or {}),
            )

    def wait_for(self, marker, limit=60):
        """The rest of the first line of standard output that begins with `marker`."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            ended = self.child.poll() is not None
            for line in self.out.read_text(errors="replace").splitlines(keepends=True):
                if line.startswith(marker) and line.endswith("\n"):
                    return line[len(marker):].strip()
            if ended:
                raise RuntimeError(f"`{self.name}` ended with {self.child.returncode} before it printed '{marker}': {self.said()[-2000:]}")
            time.sleep(0.01)
        raise RuntimeError(f"`{self.name}` did not print '{marker}' within {limit} s: {self.said()[-2000:]}")

    def wait_for_match(self, pattern, limit=60):
        """The first text of its standard output that matches."""
        deadline = time.monotonic() + limit
        while not (found := re.search(pattern, self.out.read_text(errors="replace"))):
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`{self.name}` printed nothing like {pattern}: {self.said()[-2000:]}")
            time.sleep(0.05)
        return found.group()

    def wait(self, limit=120):
        """The exit status, once it has ended by itself."""
        return self.child.wait(limit)

    def said(self):
        """All it wrote so far."""
        return self.out.read_text(errors="replace") + self.err.read_text(errors="replace")

    def stop(self, sig=signal.SIGTERM, limit=20):
        """Sends a signal and returns the exit status; one that does not react is killed and that is an error."""
        if self.child.poll() is None:
            os.kill(self.child.pid, sig)
            try:
                self.child.wait(limit)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
                raise RuntimeError(f"`{self.name}` was still running {limit} s after signal {sig}") from None
        return self.child.returncode

    def kill(self):
        """kill -9."""
        self.stop(signal.SIGKILL)


def run(folder, *arguments, limit=300):
    """Runs `tidegate COMMAND …` to its end; returns what it wrote. A non-zero exit status is an error."""
    process = Process(folder, *arguments)
    try:
        status = process.wait(limit)
    finally:
        process.kill()
    if status:
        raise RuntimeError(f"`tidegate {' '.join(map(str, arguments))}` ended with {status}: {process.said()[-2000:]}")
    return process.said()


class Server:
    """`tidegate serve` over one data directory; survives kills and restarts."""

    def __init__(self, folder, *arguments, **settings):
        self.folder = pathlib.Path(folder)
        self.data = self.folder / "data"
        self.arguments, self.settings = arguments, settings
        self.process = self.url = self._connection = None

    def start(self):
        """Starts it and waits until it listens."""
        self.process = Process(self.folder, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data, *self.arguments, settings=self.settings)
        self.url = self.process.wait_for("listening on ")
        return self

    def stop(self):
        """Stops it as an operator would; returns the exit status."""
        self.disconnect()
        return self.process.stop()

    def kill(self):
        """kill -9."""
        self.disconnect()
        self.process.kill()

    def restart(self):
        """kill -9, then start again over the same data."""
        self.kill()
        return self.start()

    def close(self):
        """Ends it, whatever it is doing."""
        self.disconnect()
        if self.process is not None:
            self.process.kill()

    def disconnect(self):
        """Gives up the connection that `query` and its like use."""
        if self._connection is not None:
            try:
                self._connection.close()
            except Exception:
                pass  # the server may be gone already
            self._connection = None

    def connect(self, **options):
        """A new connection."""
        return flight.connect(self.url, autocommit=True, db_kwargs=options or None)

    def table(self, sql, parameters=None):
        """The answer of a statement as an Arrow table."""
        if self._connection is None:
            self._connection = self.connect()
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetch_arrow_table()

    def query(self, sql, parameters=None):
        """The answer of a statement as a list of dictionaries."""
        return self.table(sql, parameters).to_pylist()

    def value(self, sql, parameters=None):
        """The single value of a one-row answer."""
        [row] = self.query(sql, parameters)
        [value] = row.values()
        return value

    def refusal(self, sql, parameters=None):
        """The message of a statement that must fail."""
        try:
            answer = self.query(sql, parameters)
        except Exception as error:
            return message(error)
        raise AssertionError(f"was not refused but gave {answer}: {sql}")

    def settle(self, sql, want, limit=30):
        """Asks until the single value is `want`, which a view's first row may still be on its way to; an error of the statement ends it at once."""

        def ask():
            rows = self.query(sql)
            assert len(rows) < 2, rows
            # No row is no value, not even NULL.
            return next(iter(rows[0].values())) if rows else "no row"

        return settle(ask, want, limit)


def message(error):
    """What the server said, without what the driver puts around it."""
    text = str(error)
    text = re.sub(r"^[A-Z_]+: (\[FlightSQL\] )?", "", text)
    return re.sub(r"\s*\((Unknown|Canceled|InvalidArgument|NotFound|AlreadyExists|Unimplemented|Internal|Unavailable|[A-Z]\w+); \w+\).*", "", text, flags=re.S)


def settle(ask, want, limit=30):
    """Asks until the answer is `want` or the time is up; returns the last answer."""
    deadline = time.monotonic() + limit
    while True:
        got = ask()
        if got == want or time.monotonic() > deadline:
            return got
        time.sleep(0.05)


class Subscription:
    """Reads an unbounded statement in a thread of its own."""

    def __init__(self, server, sql):
        self.connection = server.connect()
        self.cursor = self.connection.cursor()
        self.batches, self.error, self.ended = [], None, threading.Event()
        self.cursor.execute(sql)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            for batch in self.cursor.fetch_record_batch():
                self.batches.append((time.time(), batch))
        except Exception as error:
            self.error = error
        self.ended.set()

    def rows(self):
        """All rows received so far, in order."""
        return [row for _, batch in list(self.batches) for row in batch.to_pylist()]

    def last_epoch(self):
        """The epoch of the newest row."""
        return max(row["_epoch"] for row in self.rows())

    def cancel(self, limit=15):
        """Cancels it; says whether it ended in time."""
        if not self.ended.is_set():
            self.cursor.adbc_cancel()
        ended = self.ended.wait(limit)
        self.cursor.close()
        self.connection.close()
        return ended


def fold(rows, key):
    """What a change stream amounts to: {key: row}. A change that does not fit what went before is an error."""
    state, epoch = {}, None
    for row in rows:
        row = dict(row)
        op, at = row.pop("_op"), row.pop("_epoch")
        assert epoch is None or at >= epoch, f"epoch {at} came after {epoch}"
        epoch = at
        if op == "gap":
            # Changes were left out: what is there follows.
            state.clear()
            continue
        k = tuple(row[c] for c in key)
        if op == "insert":
            assert k not in state, f"{k} was inserted twice, at epoch {at}"
            state[k] = row
        elif op == "update_after":
            assert k not in state, f"an update of {k} at epoch {at} came without the row before it"
            state[k] = row
        elif op in ("update_before", "delete"):
            assert state.pop(k, None) == row, f"{op} of {k} at epoch {at} is not the row that was there"
        else:
            raise AssertionError(f"unknown operation {op!r}")
    return state
