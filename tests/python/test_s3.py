"""Checkpoints on S3: what holds on a disk holds there. Conditional creation, fencing, restarts, damage, a store that is away, errors."""

import itertools
import json
import signal

import pytest

import kafka as kafka_module
import s3 as s3_module
import tidegate
from test_recovery import SOURCE, VIEW, Readings, check, start, view

URL = f"s3://{s3_module.BUCKET}/here/below"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    store = s3_module.Store(tmp_path_factory.mktemp("s3"))
    yield store
    store.close()


@pytest.fixture
def store(process, monkeypatch):
    """A store that holds nothing; servers find it by their environment."""
    for name, value in (s3_module.KEYS | {"AWS_ENDPOINT_URL": process.endpoint}).items():
        monkeypatch.setenv(name, value)
    process.clear()
    return process


@pytest.fixture
def readings(embedded):
    return Readings(embedded(readings=2))


SETTINGS = {"checkpoint_interval": "100ms", "checkpoint_url": URL}


def checkpointed(server, store):
    """Waits until a checkpoint holds all that the view shows; the manifests there are then."""
    epoch = view(server)["epoch"]
    assert tidegate.settle(lambda: (server.value("SELECT checkpoint_epoch FROM system.pipelines") or 0) >= epoch, True, 20)
    return store.keys("/manifest-")


def packs_of(store, manifest):
    """The packs that a manifest needs."""
    _, body = store.read(manifest).decode().split("\n", 1)
    numbers = {segment["place"]["pack"] for segments in json.loads(body)["logs"].values() for segment in segments}
    return {f"{manifest.rsplit('/', 1)[0]}/pack-{number:012}.arrows" for number in numbers}


def test_a_restart_goes_on_at_the_newest_checkpoint(serve, readings, store):
    server = start(serve(**SETTINGS), readings)
    checkpointed(server, store)
    assert not list((server.data / "pipelines").glob("*/checkpoints"))
    for _ in range(4):
        server.kill()
        readings.send()
        server.start()
        check(server, readings)
        checkpointed(server, store)
    # Few manifests stay, only the packs that they need, and few generations.
    assert len(store.keys("/manifest-")) == 3
    assert store.keys("/pack-") == sorted(set().union(*(packs_of(store, key) for key in store.keys("/manifest-"))))
    assert 1 < len(store.keys("/generation-")) <= 6
    assert all(key.startswith("here/below/") for key in store.keys())


def test_a_second_server_fences_the_first(serve, readings, store):
    first = start(serve(**SETTINGS), readings)
    checkpointed(first, store)
    second = serve(**SETTINGS)
    second.query(SOURCE.format(readings.broker.bootstrap))
    second.query(VIEW)
    readings.send()
    assert tidegate.settle(lambda: view(first)["state"], "failed", 20) == "failed"
    assert f"another server has taken over the checkpoints at {URL}" in view(first)["message"]
    check(second, readings)
    second.restart()
    check(second, readings)


def test_nothing_is_ever_replaced(serve, readings, store):
    server = start(serve(**SETTINGS), readings)
    newest = checkpointed(server, store)[-1]
    server.process.child.send_signal(signal.SIGSTOP)
    try:
        # What another writer would have left where this one goes next.
        number = int(newest.split("-")[-1].split(".")[0])
        foreign = (newest.replace(f"{number:012}", f"{number + i:012}") for i in itertools.count(1))
        taken = next(key for key in foreign if store.create(key, b"another writer's"))
    finally:
        server.process.child.send_signal(signal.SIGCONT)
    readings.send()
    check(server, readings)
    assert tidegate.settle(lambda: store.keys("/manifest-")[-1] > taken, True, 20), store.keys()
    server.restart()
    readings.send()
    check(server, readings)
    checkpointed(server, store)
    written = store.written()
    assert taken in written and set(written.values()) == {1}, written


def test_damage_falls_back(serve, readings, store):
    server = start(serve(**SETTINGS), readings)

    def three():
        for _ in range(3):
            readings.send()
            check(server, readings)
            manifests = checkpointed(server, store)
        server.kill()
        return manifests[-3:]

    def goes_on():
        server.start()
        assert "is damaged and skipped" in server.process.said()
        check(server, readings)

    _, second, third = three()
    torn, flipped = store.read(third), bytearray(store.read(second))
    store.write(third, torn[: len(torn) // 2])
    flipped[len(flipped) // 2] ^= 1
    store.write(second, bytes(flipped))
    goes_on()
    # Likewise a pack that only the newest need.
    first, _, third = three()
    pack = max(packs_of(store, third) - packs_of(store, first))
    store.write(pack, store.read(pack)[:-10])
    goes_on()


def test_a_store_that_is_away_for_a_while(serve, readings, store):
    server = start(serve(**SETTINGS), readings)
    checkpointed(server, store)
    store.signal(signal.SIGSTOP)
    try:
        # Views go on without it.
        readings.send()
        check(server, readings)
        assert view(server)["state"] == "running"
    finally:
        store.signal(signal.SIGCONT)
    checkpointed(server, store)
    server.restart()
    check(server, readings)


def test_a_dropped_view_leaves_nothing(serve, readings, store):
    server = start(serve(**SETTINGS), readings)
    checkpointed(server, store)
    server.query("PAUSE VIEW by_place")
    assert store.keys("/paused-")
    readings.send()
    server.query("RESUME VIEW by_place")
    check(server, readings)
    assert tidegate.settle(lambda: store.keys("/paused-"), [], 20) == []
    server.query("DROP VIEW by_place")
    assert store.keys("/manifest-") == store.keys("/pack-") == []


def test_errors_are_sentences(serve, store, monkeypatch):
    def said(**settings):
        with pytest.raises(RuntimeError) as refused:
            serve(**settings)
        return str(refused.value)

    assert "the store knows no such bucket (NoSuchBucket)" in said(checkpoint_url="s3://nowhere/here")
    assert "write s3://BUCKET/PREFIX" in said(checkpoint_url="s3:///here")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{kafka_module.free_ports(1)[0]}")
        assert "the store does not answer: check AWS_ENDPOINT_URL" in said(checkpoint_url=URL)
    store.refuse(everyone=True)
    try:
        assert "the store refuses the credentials (InvalidAccessKeyId)" in said(checkpoint_url=URL)
    finally:
        store.refuse(everyone=False)
