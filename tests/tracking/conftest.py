import shutil

import pytest
from fake_wandb import KEY
from recordings import record


@pytest.fixture
def account(monkeypatch, tmp_path_factory):
    """An environment with a key and an empty home folder, in which W&B finds nothing of the user's; the folder."""
    for name in ("WANDB_MODE", "WANDB_ENTITY", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING", "NETRC"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return home


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
