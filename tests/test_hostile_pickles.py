"""Files that would run code if anything opened them as pickles: nothing does."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from commands.running import peso, refused
from hostile import harmless

from peso_cli.errors import RunError
from peso_cli.files import sha256
from peso_cli.training.checkpoints import load_checkpoint


class _Payload:
    """What runs a command once it is unpickled."""

    def __init__(self, tell_tale: Path) -> None:
        self.tell_tale = tell_tale

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.tell_tale),)


def pickles(tell_tale: Path) -> dict[str, bytes]:
    """The payload as a plain pickle, as torch packs one, and as an .npy file of objects."""
    plain = pickle.dumps(_Payload(tell_tale))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", plain)
        archive.writestr("archive/version", "3\n")
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }".ljust(117) + b"\n"
    return {"plain": plain, "torch": packed.getvalue(), "npy": b"\x93NUMPY\x01\x00" + b"\x76\x00" + head + plain}


def vouch_for(folder: Path) -> None:
    """Have the mark of a finished stage vouch for its files as they are now, in the form that old marks have."""
    names = ("adapter", "model")
    files = [path for name in names if (folder / name).is_dir() for path in (folder / name).iterdir()]
    files += [folder / name for name in ("state.safetensors", "predictions.parquet") if (folder / name).is_file()]
    mark = {"format": 1, "files": {str(path.relative_to(folder)): sha256(path) for path in files}}
    (folder / "DONE").write_text(json.dumps(mark))


def test_the_payload_tells_when_it_runs(tmp_path):
    pickle.loads(pickles(tmp_path / "ran")["plain"])
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("form", ["plain", "torch", "npy"])
@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "adapter/adapter_model.bin"])
def test_artifacts_with_pickled_weights_are_refused_even_where_their_mark_vouches_for_them(
    copied, tmp_path, name, form
):
    folder = copied.folder("peso", 3)
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    (folder / name).write_bytes(pickles(tmp_path / "ran")[form])
    vouch_for(folder)
    for words in (("recommend", "--user", "user2"), ("inspect", "--output", tmp_path / "shown")):
        answer = peso(*words, *copied.arguments("stage=3", "method=peso"))
        assert answer.code == 1
        harmless(answer)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["plain", "torch", "npy"])
def test_a_pickled_checkpoint_is_refused(tmp_path, form):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(pickles(tmp_path / "ran")[form])
    with pytest.raises(RunError, match="checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["plain", "torch", "npy"])
def test_pickled_embeddings_are_refused(tmp_path, form):
    (tmp_path / "vectors.npy").write_bytes(pickles(tmp_path / "ran")[form])
    (tmp_path / "toy.item.json").write_text('{"a": {"title": "one"}}')
    words = ("--items", tmp_path / "toy.item.json", "--output", tmp_path / "index.json", "embedding=array")
    refused(peso("tokenize", *words, f"embedding.path={tmp_path / 'vectors.npy'}"), "vectors.npy")
    assert not (tmp_path / "ran").exists()
