"""A run records and talks to no server, whatever the server is like and whatever the run was asked for."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_wandb import KEY, absent, answer_with, hanging, serving
from wandb_files import read_run

# Two stages in a process that notes every connection it makes over a network.
TWO_STAGES = """
import logging, sys
from pathlib import Path
from types import SimpleNamespace
connected = []
sys.addaudithook(lambda event, arguments: connected.append(arguments[1]) if event == "socket.connect" else None)
from peso_cli.tracking.tracker import open_tracker
logging.basicConfig(format="%(message)s", level=logging.INFO)
config = SimpleNamespace(name="wandb", project="peso", mode=sys.argv[1], entity=None, samples=2)
for stage in ("1", "2"):
    tracker = open_tracker(config, Path(stage), group="g", name=stage, settings={})
    tracker.curve(1, {"loss": int(stage) / 2})
    tracker.samples(["user"], [["u1"]])
    tracker.close()
print(len(connected) > 0, [address for address in connected if isinstance(address, tuple)])
"""


def start(folder, mode, url, key):
    """Run the two stages in `folder`; return the process."""
    package = str(Path(__file__).resolve().parents[2])
    own = {"HOME": str(folder), "PYTHONPATH": package, "WANDB_BASE_URL": url, "WANDB_API_KEY": key}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, "-c", TWO_STAGES, mode],
        cwd=folder,
        env=inherited | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """For each case its folder, the server's requests, exit status, stdout and stderr."""
    with ExitStack() as servers:
        found = {"absent": absent(), "hangs": hanging(), "works": serving(), "refuses": serving(answer_with(401))}
        cases = {name: ("online", servers.enter_context(server), KEY) for name, server in found.items()}
        cases["offline"] = ("offline", servers.enter_context(hanging()), KEY)
        cases["no key"] = ("online", servers.enter_context(hanging()), "")
        folders = {name: tmp_path_factory.mktemp("online") for name in cases}
        processes = {name: start(folders[name], mode, server.url, key) for name, (mode, server, key) in cases.items()}
        outputs = {name: process.communicate(timeout=120) for name, process in processes.items()}
    return {
        name: (folders[name], cases[name][1].requests, processes[name].returncode, *outputs[name]) for name in cases
    }


@pytest.mark.parametrize("case", ["absent", "hangs", "works", "refuses", "offline", "no key"])
def test_a_run_records_everything_and_connects_to_nothing(ended, case):
    folder, requests, status, stdout, stderr = ended[case]
    # Its own W&B process, on the other hand, it did connect to, so the hook works.
    assert (status, stdout, stderr, requests) == (0, "True []\n", "", [])
    for stage in ("1", "2"):
        run = read_run(folder / stage)
        assert run.points("step") == [{"step": 1, "loss": int(stage) / 2}]
        assert len(run.points("samples")) == 1
        assert run.exit_code == 0
    assert KEY.encode() not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
