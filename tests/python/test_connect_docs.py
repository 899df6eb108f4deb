"""What docs/connect.md shows works as it stands there, with the clients that it names."""

import os
import re
import shutil
import subprocess

import pytest
import tidegate

PAGE = (tidegate.REPOSITORY / "docs" / "connect.md").read_text()
PYTHON = os.environ.get("TIDEGATE_CLIENTS_PYTHON")
GO = shutil.which("go")
if GO:
    version = re.search(r"go(\d+)\.(\d+)", subprocess.run([GO, "version"], capture_output=True, text=True, check=True).stdout)
    GO = GO if tuple(map(int, version.groups())) >= (1, 25) else None
BLOCKS = [(heading, language, text) for heading, language, text in [
    (PAGE[: match.start()].rsplit("\n#", 1)[-1].splitlines()[0].strip("# ✓"), match.group(1), match.group(2))
    for match in re.finditer(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
]]


@pytest.fixture
def demo(serve, embedded, tmp_path):
    """A server with the demo's view, and some events in it."""
    broker = embedded(**{"statsbomb-events": 1})
    broker.simulate("statsbomb-events", "--for", "2s", "--rate", "500")
    script = tmp_path / "matches.sql"
    script.write_text((tidegate.REPOSITORY / "sql" / "matches.sql").read_text().replace("localhost:9092", broker.bootstrap))
    server = serve("--init", script)
    assert tidegate.settle(lambda: server.value("SELECT count(*) FROM team_minute") > 0, True)
    return server


def test_it_names_the_clients():
    for client in ["DBeaver", "Python", "pandas", "polars", "JupySQL", "SQLAlchemy", "Superset", "Grafana", "Rust", "Go", "Java", "R"]:
        assert re.search(rf"^##+ .*\b{client}\b", PAGE, re.M), f"docs/connect.md has no section on {client}"
    assert sum(language in ("python", "ipython") for _, language, _ in BLOCKS) >= 7


@pytest.mark.skipif(not GO, reason="the Go program wants go 1.25 or later")
def test_its_go_program_runs(demo, tmp_path):
    [text] = [text for _, language, text in BLOCKS if language == "go"]
    (tmp_path / "main.go").write_text(text.replace("127.0.0.1:50051", demo.url.removeprefix("grpc://")))
    for name in ["go.mod", "go.sum"]:
        shutil.copy(tidegate.REPOSITORY / "tests" / "go" / name, tmp_path)
    done = subprocess.run([GO, "run", "."], capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path)
    assert done.returncode == 0 and "events" in done.stdout, f"{done.stdout}\n{done.stderr}"
    assert tidegate.settle(lambda: demo.value("SELECT count(*) FROM system.queries WHERE sql LIKE 'SELECT team, events%'"), 0) == 0


@pytest.mark.skipif(not PYTHON, reason="no TIDEGATE_CLIENTS_PYTHON")
def test_its_programs_run(demo, tmp_path):
    address = demo.url.removeprefix("grpc://")
    failed = []
    for heading, language, text in BLOCKS:
        text = text.replace("127.0.0.1:50051", address)
        if language == "python":
            command = [PYTHON, "-c", text]
        elif language == "ipython":
            (tmp_path / "cell.ipy").write_text(text)
            command = [PYTHON, "-m", "IPython", "--no-banner", "--colors=NoColor", tmp_path / "cell.ipy"]
        else:
            continue
        environment = {**os.environ, "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env=environment)
        # IPython ends well when a cell does not.
        if done.returncode or not done.stdout.strip() or "Traceback" in done.stdout + done.stderr or "Error:" in done.stdout:
            failed.append(f"{heading}: {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    assert not failed, "\n\n".join(failed)
    shell = next(text for heading, _, text in BLOCKS if "command line" in heading)
    arguments = re.fullmatch(r"tidegate sql -c '(.*)'\n", shell).group(1)
    assert "window_start" in tidegate.run(tmp_path, "sql", "--url", demo.url, "-c", arguments)
