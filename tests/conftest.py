import shutil
from pathlib import Path

import pytest
from commands.running import SMALL, Trained, peso
from hypothesis import HealthCheck, Phase, settings
from tracking.fake_wandb import KEY

from peso_cli.terminal import quiet_libraries

# The libraries read what they are told when they are imported, which test modules do before any command runs.
quiet_libraries()

# Mutants are tried with the same examples each time; what fails isn't made smaller, as nobody looks at it.
settings.register_profile(
    "mutation",
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow,),
)

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real data beside the project."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"needs the golden numbers and real data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """Three stages of peso, single and pretrain on the small world; only to be read."""
    output = tmp_path_factory.mktemp("trained")
    for method in ("peso", "single", "pretrain"):
        answer = peso("train", "stage=3", f"method={method}", f"output={output}", *SMALL)
        assert answer.code == 0, answer.err
    return Trained(output)


@pytest.fixture
def copied(trained, tmp_path) -> Trained:
    """A copy of `trained` that a test may change."""
    return Trained(Path(shutil.copytree(trained.output, tmp_path / "outputs")))


@pytest.fixture
def account(monkeypatch, tmp_path_factory) -> Path:
    """An environment with a key and an empty home folder, in which W&B finds nothing of the user's; the folder."""
    for name in ("WANDB_MODE", "WANDB_ENTITY", "WANDB_DATA_DIR", "WANDB_ERROR_REPORTING", "NETRC"):
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    return home


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; bash scripts/test --long runs it"))
