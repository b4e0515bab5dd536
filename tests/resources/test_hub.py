import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from peso_cli.resources.hub import hub_answers, hub_reason


class Refusing(BaseHTTPRequestHandler):
    """A server that is there and has nothing."""

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """The address of a server on this machine."""
    with HTTPServer(("127.0.0.1", 0), Refusing) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{here.server_port}"
        here.shutdown()


def test_a_hub_that_answers_is_there_whatever_it_answers(monkeypatch, server):
    monkeypatch.setattr(constants, "ENDPOINT", server)
    assert hub_answers()


def test_a_hub_that_does_not_answer_is_not_there(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub_answers()


def test_what_the_hub_says_is_one_line():
    assert hub_reason(OSError("no\n  such\tmodel " + "x" * 500)) == f"no such model {'x' * 186}"
