"""What ships beside the program, tried as far as that goes without a container engine."""

import os
import pathlib
import shutil
import subprocess

import pytest

import tidegate

ROOT = tidegate.REPOSITORY


def test_the_compose_file_is_valid():
    tools = [["docker", "compose"], ["docker-compose"]]
    tool = next((t for t in tools if shutil.which(t[0]) and subprocess.run([*t, "version"], capture_output=True).returncode == 0), None)
    if tool is None:
        pytest.skip("skipped: no compose tool (docker compose or docker-compose)")
    done = subprocess.run([*tool, "-f", str(ROOT / "docker-compose.yml"), "config"], capture_output=True, text=True, env=os.environ | {"COMPOSE_PROJECT_NAME": "tidegate"})
    assert done.returncode == 0, done.stderr
    for service in ("kafka:", "tidegate:"):
        assert service in done.stdout


def test_the_dockerfiles_steps():
    """Its RUN steps, run one by one on what the image's build would see. The folder is always the same, so that cargo finds what it built there before."""
    script, folder = ROOT / "tests/docker_build_steps.sh", tidegate.CACHE / "docker-steps"
    done = subprocess.run(["bash", str(script), str(folder)], capture_output=True, text=True, cwd=ROOT)
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_scripts_are_executable_or_run_by_bash():
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_what_a_checkout_needs_is_there():
    for name in ("README.md", "LICENSE", "Dockerfile", "docker-compose.yml", ".gitignore", "docs/architecture.md", "Cargo.lock"):
        assert (ROOT / name).is_file(), name


def test_nothing_of_statsbombs_is_in_the_repository():
    """Their user agreement forbids redistribution: a real event's id is a UUID beside a StatsBomb type id, ours are made up."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split("\0") if name] if listed.returncode == 0 else []
    data = os.environ.get("TIDEGATE_STATSBOMB")
    if not files or not data:
        pytest.skip("skipped: no git checkout, or no StatsBomb matches to compare with")
    names = {path.name for path in pathlib.Path(data).rglob("*.json*")}
    copied = [str(path) for path in files if path.name in names or path.name.removesuffix(".gz") in {name.removesuffix(".gz") for name in names}]
    assert not copied, copied
