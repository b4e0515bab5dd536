"""Whether W&B will know who sends: looked up where its own client looks, without a word to any server."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from peso_cli.tracking.tracker import TrackerChoice

_SERVER = "https://api.wandb.ai"


def wants_online(tracker: TrackerChoice) -> bool:
    """Return whether runs are to be sent as soon as they are finished."""
    return tracker.name == "wandb" and tracker.mode == "online" and os.environ.get("WANDB_MODE") != "disabled"


def without_account(tracker: TrackerChoice) -> str | None:
    """Return a line for a user whose online runs can't be sent for want of a key; None where nothing is amiss."""
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or _SERVER)
    if not wants_online(tracker) or _has_key(server.netloc):
        return None
    return (
        f"W&B: there is no key for {server.hostname}, so this run is only recorded; give one by `wandb login`, or in "
        "the environment as WANDB_API_KEY, and peso track sync sends it"
    )


def _has_key(host: str) -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [Path(os.environ["NETRC"])] if os.environ.get("NETRC") else [Path("~/.netrc"), Path("~/_netrc")]
    return any(_names(place.expanduser(), host) for place in places)


def _names(file: Path, host: str) -> bool:
    try:
        found = netrc.netrc(file).authenticators(host)
    except FileNotFoundError:
        return False
    except (OSError, netrc.NetrcParseError):  # W&B's client says what is wrong with it when it sends
        return True
    return bool(found and found[2])
