"""DataFusion's own SQL logic tests, over the wire: every file but those that `tests/slt-datafusion/skip.txt` gives a reason for."""

import os
import pathlib

import pytest

import datafusion_slt

SERVERS = 3


def test_datafusions_own(serve, capsys):
    folder = os.environ.get("TIDEGATE_DATAFUSION_SLT")
    if not folder:
        pytest.skip("skipped: TIDEGATE_DATAFUSION_SLT does not name the test_files of the crate datafusion-sqllogictest; `bash tests/run slt` fetches it")
    outcomes, skipped, unmatched = datafusion_slt.run_all(pathlib.Path(folder), [serve() for _ in range(SERVERS)])
    with capsys.disabled():
        print(f"\n{datafusion_slt.summary(outcomes, skipped)}")
    wrong = [f"{place}: {sentence}" for outcome in outcomes for place, sentence in outcome.wrong]
    stale = [f"{place} is listed in {datafusion_slt.LIST.name}, and passes: take it out" for outcome in outcomes for place in outcome.stale]
    stale += [f"{name} is listed in {datafusion_slt.LIST.name}, and there is no such file or record" for name in unmatched]
    assert not wrong + stale, "\n\n".join([f"{len(wrong)} records went wrong, {len(stale)} are listed in vain", *wrong, *stale])
