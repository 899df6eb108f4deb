"""Looks at the broker and at a peer's processes while a peer works (Linux)."""

import bisect
import os
import pathlib
import threading
import time

# So often the broker's figure is read, processes are looked at, and it is found out which there are. (To look uses the machine, too.)
BROKER_EVERY = 0.01
PROCESSES_EVERY = 0.05
TREE_EVERY = 0.5
# What a broker sends beside records (metadata, answers to commits) is less than this.
MORE_THAN_TALK = 64 * 1024
TICKS = os.sysconf("SC_CLK_TCK")


class Watch:
    """What the broker had sent by when, and what a process and its descendants had used together."""

    def __init__(self, broker, process):
        self._broker, self._root = pathlib.Path(f"/proc/{broker}/io"), process
        # (moment, bytes sent so far), (moment, CPU seconds so far)
        self._sent, self._used = [], []
        self._peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def instead(self, process):
        """From now on it is this process, with its descendants, that counts."""
        self._root = process
        self._peak = 0
        self._used.clear()

    @property
    def peak(self):
        """Resident bytes at the worst moment."""
        return self._peak

    def first_read(self, began, done):
        """When the first records left the broker between two moments: it sends its log by sendfile, which the system counts as written."""
        within = [(at, sent) for at, sent in self._sent if began <= at <= done]
        return next((at for at, sent in within if sent > within[0][1] + MORE_THAN_TALK), None)

    def sent(self, began, done):
        """Bytes that the broker sent between two moments."""
        return _by(self._sent, done) - _by(self._sent, began)

    def used(self, began, done):
        """CPU seconds between two moments."""
        return _by(self._used, done) - _by(self._used, began)

    def _look(self):
        looked = found = 0.0
        root, tree = None, []
        while not self._stop.is_set():
            now = time.time()
            self._sent.append((now, _written(self._broker)))
            if now - looked > PROCESSES_EVERY:
                looked = now
                if root != self._root or now - found > TREE_EVERY:
                    root, found = self._root, now
                    tree = _tree(root)
                uses = [_use(process) for process in tree]
                if root == self._root:
                    self._used.append((now, sum(used for used, _ in uses)))
                    self._peak = max(self._peak, sum(resident for _, resident in uses))
            self._stop.wait(BROKER_EVERY)


def _by(samples, moment):
    """The figure at the first sample at a moment or after it, else the last one."""
    place = bisect.bisect_left(samples, moment, key=lambda sample: sample[0])
    return samples[min(place, len(samples) - 1)][1] if samples else 0


def _written(file):
    for line in file.read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError(f"{file} has no line 'wchar': this needs Linux")


def _tree(root):
    """A process and all its descendants."""
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        for children in pathlib.Path(f"/proc/{process}/task").glob("*/children"):
            try:
                waiting += children.read_text().split()
            except OSError:
                pass  # the thread has ended meanwhile
    return found


def _use(process):
    """The CPU seconds of a process so far, of its ended children too, and its resident bytes."""
    try:
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0  # it has ended meanwhile
    # From the third field on, as proc(5) numbers them: 14 to 17 are times, 24 is memory in pages.
    return sum(map(int, fields[11:15])) / TICKS, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
