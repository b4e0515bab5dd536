from pathlib import Path

import pytest
from artifact_makers import made
from reports.page.page_runs import HOSTILE, released, runs

from peso_cli.commands.report import report


@pytest.fixture(scope="session")
def whole_runs(tmp_path_factory) -> Path:
    """Runs with everything on a dataset with hostile titles, and one run with next to nothing on another dataset."""
    folder = tmp_path_factory.mktemp("page")
    runs(folder / "runs", released(folder / "data", HOSTILE), variant="<b>$x$&--\u202e")
    made(folder / "runs", "single", 2)
    return folder / "runs"


@pytest.fixture(scope="session")
def whole_page(whole_runs) -> Path:
    """The page of these runs."""
    to = whole_runs.parent / "report.html"
    report(whole_runs, [], to, "single", False)
    return to
