"""Runs `tests/slt/**/*.slt`, each file with a server and a broker of its own."""

import pathlib

import pytest

import slt

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "slt"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.slt")), ids=lambda path: path.stem)
def test_slt(path, serve, embedded):
    text = path.read_text()
    topics, steps = slt.parse(text)
    assert steps, f"{path} holds no steps"
    broker = embedded(**topics) if topics else None
    wrong = slt.run(text, serve(), broker)
    assert not wrong, "\n".join([f"{path.name}: {len(wrong)} of {len(steps)} steps went wrong", *wrong])
