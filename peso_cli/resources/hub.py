"""Files from the model hub."""

from __future__ import annotations

from pathlib import Path


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
