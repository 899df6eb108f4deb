"""What is kept and what comes back: one store and two servers, full and read-only disks, damaged files, paused and replaced views."""

import json
import os
import re
import subprocess
import threading
import time

import pytest

import tidegate

SOURCE = """CREATE SOURCE readings (id BIGINT, place TEXT) WITH (connector = 'kafka', topic = 'readings', 'bootstrap.servers' = '{}', format = 'json')"""
VIEW = "CREATE CONTINUOUS VIEW by_place WITH (unbounded_state = true) AS SELECT place, count(*) AS n, max(id) AS newest FROM readings GROUP BY place EMIT CHANGES"


class Readings:
    """Readings with rising ids at five places, and what a view of them holds."""

    def __init__(self, broker):
        self.broker, self.sent = broker, 0

    def send(self, count=50):
        ids = range(self.sent, self.sent + count)
        self.broker.send("readings", [(i % 2, json.dumps({"id": i, "place": f"place {i % 5}"}).encode()) for i in ids])
        self.sent += count

    def rows(self):
        return [{"place": f"place {p}", "n": len(ids), "newest": ids[-1]} for p in range(5) if (ids := range(p, self.sent, 5))]


def rows(server, view="by_place"):
    return server.query(f"SELECT place, n, newest FROM {view} ORDER BY place")


def check(server, readings, view="by_place"):
    assert tidegate.settle(lambda: rows(server, view), readings.rows()) == readings.rows()


def view(server, name="by_place"):
    """The row of SHOW VIEWS."""
    [row] = [row for row in server.query("SHOW VIEWS") if row["name"] == name]
    return row


def checkpointed(server, folder=None):
    """Waits until a checkpoint holds all that the view shows: the second manifest from now on does."""
    manifests = lambda: sorted((folder or server.data / "pipelines").glob("*/checkpoints/manifest-*.json"))
    before = manifests()[-1:]
    assert tidegate.settle(lambda: manifests()[-1:] != before or bool(before) and time.sleep(0.3) is None, True, 20)
    return manifests()


@pytest.fixture
def readings(embedded):
    return Readings(embedded(readings=2))


def start(server, readings):
    server.query(SOURCE.format(readings.broker.bootstrap))
    server.query(VIEW)
    readings.send()
    check(server, readings)
    return server


# --- one store, two servers -----------------------------------------------------------------------------------------


def test_a_second_server_on_the_store_fences_the_first(serve, readings, tmp_path):
    settings = {"checkpoint_interval": "100ms", "checkpoint_url": f"file://{tmp_path}/store"}
    first = start(serve(**settings), readings)
    checkpointed(first, tmp_path / "store")
    epoch = view(first)["epoch"]
    second = serve(**settings)
    second.query(SOURCE.format(readings.broker.bootstrap))
    second.query(VIEW)
    readings.send()
    state = tidegate.settle(lambda: view(first)["state"], "failed", 20)
    assert state == "failed" and "another server has taken over" in view(first)["message"]
    check(second, readings)
    assert view(second)["state"] == "running"
    # It does not know how far the first one's numbers went, so it is far above them.
    assert view(second)["epoch"] > epoch + 1_000_000
    # What stands still says so to followers too, and the newer one's state is what counts.
    readings.send()
    second.restart()
    check(second, readings)


def test_a_data_directory_remembers_where_its_checkpoints_are(serve, readings, tmp_path):
    server = start(serve(checkpoint_interval="100ms"), readings)
    checkpointed(server)
    server.stop()
    server.settings["checkpoint_url"] = f"file://{tmp_path}/elsewhere"
    with pytest.raises(RuntimeError, match="copy everything there to the second"):
        server.start()
    # As it says.
    subprocess.run(["cp", "-r", server.data / "pipelines", tmp_path / "elsewhere"], check=True)
    (server.data / "checkpoints.at").write_text(server.settings["checkpoint_url"])
    server.start()
    assert rows(server) == readings.rows()
    readings.send()
    check(server, readings)


def test_a_moved_data_directory_goes_on(serve, readings):
    server = start(serve(), readings)
    server.stop()
    server.data = server.data.rename(server.folder / "moved")
    server.start()
    assert rows(server) == readings.rows()
    readings.send()
    check(server, readings)


# --- disks ----------------------------------------------------------------------------------------------------------


def mount(*arguments):
    if os.geteuid() != 0:
        pytest.skip("skipped: mounting a small disk needs root")
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"skipped: nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def unmount():
    """Folders to unmount at the end."""
    folders = []
    yield folders
    for folder in reversed(folders):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(serve, readings, tmp_path, unmount):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", disk)
    unmount.append(disk)
    server = start(on(serve, disk), readings)
    with open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass  # it is full
    before = rows(server)
    readings.send()
    said = tidegate.settle(lambda: "No space left" in view(server)["message"], True, 20)
    assert said, view(server)
    # It serves on: what it held before, or more where the log still had room.
    assert view(server)["state"] == "running" and len(rows(server)) == len(before)
    (disk / "filler").unlink()
    check(server, readings)
    assert tidegate.settle(lambda: view(server)["message"], "", 20) == ""
    readings.send()
    check(server, readings)
    server.restart()
    assert tidegate.settle(lambda: rows(server), readings.rows()) == readings.rows()


def on(serve, disk):
    """A server whose data directory is on this disk."""
    server = serve(checkpoint_interval="100ms")
    server.stop()
    server.data = disk / "data"
    return server.start()


def test_a_checkpoint_folder_that_becomes_read_only(serve, readings, unmount):
    server = start(serve(checkpoint_interval="100ms"), readings)
    [folder] = (server.data / "pipelines").glob("*/checkpoints")
    mount("--bind", folder, folder)
    unmount.append(folder)
    mount("-o", "remount,bind,ro", folder)
    readings.send()
    check(server, readings)
    said = tidegate.settle(lambda: "Read-only file system" in view(server)["message"], True, 20)
    assert said, view(server)
    assert view(server)["state"] == "running"
    mount("-o", "remount,bind,rw", folder)
    assert tidegate.settle(lambda: view(server)["message"], "", 20) == ""
    server.restart()
    check(server, readings)


def test_a_read_only_data_directory_is_refused(serve, readings, unmount):
    server = start(serve(), readings)
    server.stop()
    mount("--bind", server.data, server.data)
    unmount.append(server.data)
    mount("-o", "remount,bind,ro", server.data)
    with pytest.raises(RuntimeError, match="Read-only file system"):
        server.start()
    mount("-o", "remount,bind,rw", server.data)
    server.start()
    check(server, readings)


def test_a_pause_that_can_not_be_stored_is_none(serve, readings, unmount):
    server = start(serve(checkpoint_interval="100ms"), readings)
    folder = server.data / "pipelines"
    mount("--bind", folder, folder)
    unmount.append(folder)
    mount("-o", "remount,bind,ro", folder)
    assert "was not paused and goes on" in server.refusal("PAUSE VIEW by_place")
    readings.send()
    check(server, readings)
    assert view(server)["state"] == "running"
    mount("-o", "remount,bind,rw", folder)
    server.query("PAUSE VIEW by_place")
    assert view(server)["state"] == "paused"


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_falls_back_and_reads_on(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    for _ in range(3):
        readings.send()
        check(server, readings)
        checkpointed(server)
    server.kill()
    manifests = sorted((server.data / "pipelines").glob("*/checkpoints/manifest-*.json"))
    assert len(manifests) == 3
    newest = bytearray(manifests[-1].read_bytes())
    newest[len(newest) // 2] ^= 1
    manifests[-1].write_bytes(newest)
    manifests[-2].write_bytes(manifests[-2].read_bytes()[:100])
    server.start()
    assert "is damaged and skipped" in server.process.said()
    check(server, readings)


def test_without_any_checkpoint_that_verifies_it_says_so(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    checkpointed(server)
    server.kill()
    for manifest in (server.data / "pipelines").glob("*/checkpoints/manifest-*.json"):
        manifest.write_bytes(b"")
    server.start()
    row = view(server)
    assert row["state"] == "stopped" and "none of them verifies" in row["message"], row
    assert "none of them verifies" in server.refusal("SELECT * FROM by_place") or "not running" in server.refusal("SELECT * FROM by_place")
    # As it says: without the checkpoints the topic is read anew.
    server.kill()
    for manifest in (server.data / "pipelines").glob("*/checkpoints/*"):
        manifest.unlink()
    server.start()
    check(server, readings)


# --- PAUSE and RESUME -----------------------------------------------------------------------------------------------


def test_a_paused_view_stands_still_and_comes_back(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    server.query(VIEW.replace("by_place", "other"))
    check(server, readings, "other")
    server.query("PAUSE VIEW by_place")
    server.query("PAUSE VIEW by_place")
    stood, row = rows(server), view(server)
    assert stood == readings.rows() and row["state"] == "paused" and f"stands at epoch {row['epoch']}" in row["message"]
    readings.send()
    check(server, readings, "other")
    assert rows(server) == stood and view(server)["epoch"] == row["epoch"] < view(server, "other")["epoch"]
    assert "different epochs" in server.refusal("SELECT * FROM by_place JOIN other USING (place)")
    # It outlives kills, and stands where it stood.
    for restart in (server.restart, lambda: server.stop() == 0 and server.start()):
        restart()
        assert rows(server) == stood and view(server)["state"] == "paused" and view(server)["epoch"] == row["epoch"]
        readings.send()
        check(server, readings, "other")
    server.query("RESUME VIEW by_place")
    check(server, readings)
    assert view(server)["state"] == "running"
    assert server.query("SELECT a.n FROM by_place a JOIN other b USING (place, n, newest)") != []
    server.query("RESUME VIEW by_place")
    assert tidegate.settle(lambda: list((server.data / "pipelines").glob("paused-*/**/*.json")), [], 20) == []
    readings.send()
    server.restart()
    check(server, readings)
    check(server, readings, "other")


def test_what_can_not_be_paused(serve, readings):
    server = start(serve(), readings)
    server.query("CREATE VIEW plain AS SELECT * FROM by_place")
    assert "only a continuous view" in server.refusal("PAUSE VIEW plain")
    assert "only a continuous view" in server.refusal("RESUME VIEW readings")
    assert "there is no view nothing" in server.refusal("PAUSE VIEW nothing")


def test_a_paused_view_can_be_dropped_and_is_not_replaced(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    server.query("PAUSE VIEW by_place")
    readings.send()
    assert "RESUME VIEW by_place first" in server.refusal(VIEW.replace("CREATE", "CREATE OR REPLACE"))
    server.query("DROP VIEW by_place")
    assert list((server.data / "pipelines").glob("paused-*/**/*.json")) == []
    server.query(VIEW)
    check(server, readings)


def test_kills_around_pauses(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    for delay in (0, 0.01, 0.03, 0.1):
        for statement in ("PAUSE VIEW by_place", "RESUME VIEW by_place"):
            def run():
                try:
                    with server.connect() as connection, connection.cursor() as cursor:
                        cursor.execute(statement)
                except Exception:
                    pass  # the server is gone

            thread = threading.Thread(target=run)
            thread.start()
            time.sleep(0.05 + delay)
            server.kill()
            thread.join()
            readings.send()
            server.start()
            assert tidegate.settle(lambda: view(server)["state"] in ("running", "paused"), True, 20), view(server)
    server.query("RESUME VIEW by_place")
    check(server, readings)


def test_a_view_that_catches_up_says_how_far_it_is(serve, readings):
    server = start(serve(max_epoch_rows=100), readings)
    readings.send(20_000)
    check(server, readings)
    said, done = set(), threading.Event()

    def watch():
        with server.connect() as connection, connection.cursor() as cursor:
            while not done.is_set():
                cursor.execute("SHOW VIEWS")
                said.update(row["message"] for row in cursor.fetch_arrow_table().to_pylist() if row["state"] == "catching up")

    thread = threading.Thread(target=watch)
    thread.start()
    server.query(VIEW.replace("by_place", "late"))
    check(server, readings, "late")
    done.set()
    thread.join()
    progress = [(int(m[1]), int(m[2])) for message in said if (m := re.fullmatch(r"has read (\d+) of (\d+) records", message))]
    assert progress and all(0 <= read <= of == readings.sent for read, of in progress), said


# --- OR REPLACE -----------------------------------------------------------------------------------------------------


def test_kills_while_a_view_is_replaced(serve, readings):
    server = start(serve(checkpoint_interval="100ms"), readings)
    for delay in (0.1, 0.2, 0.4):
        def replace():
            try:
                with server.connect() as connection, connection.cursor() as cursor:
                    # The same answer by what is there, and by what is read again.
                    for query in ["FROM readings GROUP BY place HAVING count(*) > 0", "FROM readings WHERE id >= 0 GROUP BY place", "FROM readings GROUP BY place"] * 300:
                        cursor.execute(VIEW.replace("CREATE", "CREATE OR REPLACE").replace("FROM readings GROUP BY place", query))
            except Exception:
                pass  # the server is gone

        thread = threading.Thread(target=replace)
        thread.start()
        time.sleep(delay)
        server.kill()
        thread.join()
        server.start()
        # The old one or the new one: never none.
        check(server, readings)
