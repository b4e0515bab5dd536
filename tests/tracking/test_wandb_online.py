"""Asking for `mode=online` where W&B can't be had. Each case trains two stages in a process of its own, all at once."""

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from wandb_files import read_run

TWO_STAGES = """
import logging, sys, time
from pathlib import Path
from types import SimpleNamespace
from peso_cli.tracking.tracker import open_tracker
started = time.monotonic()
logging.basicConfig(format="%(message)s", level=logging.INFO)
config = SimpleNamespace(name="wandb", project="peso", mode="online", entity=None, samples=2)
for stage in ("1", "2"):
    tracker = open_tracker(config, Path(stage), group="g", name=stage, settings={})
    tracker.curve(1, {"loss": int(stage) / 2})
    tracker.samples(["user"], [["u1"]])
    tracker.close()
Path("seconds").write_text(str(time.monotonic() - started))
"""
KEY = "0123456789" * 4


class Refusal(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def hanging_and_refusing():
    """The addresses of a server that accepts and never answers, one that refuses all, and one that is not there."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=50) as hanging,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as refusing,
    ):
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        with socket.create_server(("127.0.0.1", 0)) as closed:
            absent = closed.getsockname()[1]
        ports = {"hangs": hanging.getsockname()[1], "refuses": refusing.server_port, "absent": absent}
        yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        refusing.shutdown()


def start(folder, url, key):
    """Run the two stages in `folder`; return the process."""
    package = str(Path(__file__).resolve().parents[2])
    own = {"HOME": str(folder), "PYTHONPATH": package, "WANDB_BASE_URL": url, "WANDB_API_KEY": key}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, "-c", TWO_STAGES],
        cwd=folder,
        env=inherited | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """For each case its folder, exit status, stdout and stderr."""
    with hanging_and_refusing() as urls:
        cases = {name: (url, KEY) for name, url in urls.items()}
        cases |= {"no key": (urls["absent"], ""), "malformed key": (urls["absent"], "too-short")}
        folders = {name: tmp_path_factory.mktemp("online") for name in cases}
        processes = {name: start(folders[name], *case) for name, case in cases.items()}
        outputs = {name: process.communicate(timeout=60) for name, process in processes.items()}
    return {name: (folders[name], processes[name].returncode, *outputs[name]) for name in cases}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("absent", "connection refused"),
        ("hangs", "Timed out"),
        ("refuses", "CommError"),
        ("no key", "No API key"),
        ("malformed key", "WANDB_API_KEY invalid"),
    ],
)
def test_online_goes_on_offline_after_one_warning(ended, case, reason):
    folder, status, stdout, stderr = ended[case]
    assert (status, stdout) == (0, "")
    assert len(stderr.splitlines()) == 1, stderr
    assert reason in stderr
    assert "going on offline" in stderr
    for stage in ("1", "2"):
        run = read_run(folder / stage)
        assert run.points("step") == [{"step": 1, "loss": int(stage) / 2}]
        assert len(run.points("samples")) == 1
        assert run.exit_code == 0
    assert float((folder / "seconds").read_text()) < 20
    assert KEY.encode() not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
