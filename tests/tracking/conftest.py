import pytest
from fake_wandb import KEY


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
