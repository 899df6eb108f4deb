"""What the peers are made of, fetched once into the cache that `tests/run` uses ($TIDEGATE_CACHE, default ~/.cache/tidegate)."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE = pathlib.Path(os.environ.get("TIDEGATE_CACHE") or pathlib.Path.home() / ".cache/tidegate")


class Missing(Exception):
    """Something that a peer needs can't be had here; the message says what and why."""


def python_environment(pins, name):
    """The Python of an environment with the packages that the file `pins` names; made anew when that file changes."""
    folder = _folder(pins, name)
    if not (folder / "ready").exists():
        print(f"installing {pins.relative_to(REPOSITORY)} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _done([sys.executable, "-m", "venv", folder])
        _done([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins])
        (folder / "ready").touch()
    return folder / "bin/python"


def jars(pom, name):
    """A folder with the jars of a `pom.xml`; made anew when that file changes. `tests/run` names its own in the same way."""
    folder = _folder(pom, name)
    if not (folder / "ready").exists():
        print(f"fetching the jars of {pom.relative_to(REPOSITORY)} into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _done(["mvn", "--quiet", "--batch-mode", "-f", pom, "package", f"-Djars={folder}"])
        (folder / "ready").touch()
    return folder


def compiled(source, library):
    """A C program of ours, linked with a shared library that has no headers here."""
    program = CACHE / f"{source.stem}-{_digest(source)}-{library.name.split('.')[0]}"
    if not program.exists():
        _done(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source, library, f"-Wl,-rpath,{library.parent}"])
    return program


def last_said(text):
    """What a program said last, without the places in its source that it came from."""
    said = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("\t", " "))]
    return " / ".join(line[:300] for line in said[-2:]) or "it said nothing"


def _folder(pins, name):
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / f"{name}-{_digest(pins)}"


def _digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _done(command):
    command = [str(part) for part in command]
    try:
        ended = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Missing(f"there is no `{command[0]}` here: install it") from error
    if ended.returncode:
        raise Missing(f"`{' '.join(command)}` ended with {ended.returncode}: {last_said(ended.stdout + ended.stderr)}")
