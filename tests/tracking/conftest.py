import shutil

import pytest
from recordings import record


@pytest.fixture(scope="session")
def recorded_runs(tmp_path_factory):
    """A folder with an offline and an online run, and a stage without any; only to be read."""
    output = tmp_path_factory.mktemp("recorded")
    record(output / "stage_1", "offline")
    record(output / "stage_2", "online")
    shutil.copytree(output / "stage_1", output / "stage_3", ignore=shutil.ignore_patterns("wandb"))
    return output


@pytest.fixture
def output(recorded_runs, tmp_path, account):
    """A copy of `recorded_runs`."""
    return shutil.copytree(recorded_runs, tmp_path / "outputs")
