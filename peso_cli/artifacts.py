"""The stage artifact on disk: what a stage leaves behind, marked as finished last and checked before use."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from peso_cli import processes
from peso_cli.errors import InputError, RunError
from peso_cli.files import fsync_file, fsync_folder, read_json, sha256, write_json, write_tensors, write_text
from peso_cli.locks import hold
from peso_cli.marks import is_whole, own_figures, sealed

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Version of the artifact's layout."""

ADAPTER_FOLDER = "adapter"
"""Where in an artifact an adapter lies, in PEFT format."""

WEIGHTS_FOLDER = "model"
"""Where in an artifact the weights of a whole backbone lie."""

_DEPTH = 5
"""Folders between the output folder and a stage: dataset, backbone, method, variant, seed."""

STATE_FILE = "state.safetensors"
"""Where in an artifact its method keeps what only the stages to come need, by part."""

_MARK = "DONE"
_DIVERGED = "DIVERGED"
_LEARNT = (ADAPTER_FOLDER, WEIGHTS_FOLDER, STATE_FILE)
_CHECKED = (*_LEARNT, "config.yaml", "lineage.json", "predictions.parquet", "log.jsonl")

_ASIDE = re.compile(r"\.damaged-\d+$")
"""How the folder of a damaged stage ends once it was moved aside."""

_PACKAGES = ("peso", "torch", "transformers", "peft", "accelerate", "numpy")


@dataclass(frozen=True)
class Artifact:
    """The folder of one stage of one run."""

    folder: Path

    @property
    def finished(self) -> bool:
        """Whether everything is there; only the mark that is written last says so."""
        return (self.folder / _MARK).is_file()

    @property
    def begun(self) -> bool:
        """Whether a stage has begun here, finished or not."""
        return (self.folder / "lineage.json").is_file()

    @property
    def diverged(self) -> bool:
        """Whether training stopped here because it met numbers that aren't finite."""
        return (self.folder / _DIVERGED).is_file()

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder, if the stage left one."""
        return self._part(ADAPTER_FOLDER)

    @property
    def weights(self) -> Path | None:
        """The folder of whole weights, if the stage left them."""
        return self._part(WEIGHTS_FOLDER)

    @property
    def checkpoint(self) -> Path:
        """Where the unfinished stage is kept."""
        return self.folder / "checkpoint.safetensors"

    def read_state(self, part: str) -> dict[str, Tensor]:
        """Return the tensors that a part of the method (`adapter` or `regularizer`) left for the stages to come."""
        from safetensors import safe_open

        path = self.folder / STATE_FILE
        if not path.is_file():
            return {}
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{part}:")]  # noqa: SIM118  (not a dict)
            return {name.removeprefix(f"{part}:"): file.get_tensor(name) for name in names}

    def write_state(self, **parts: Mapping[str, Tensor]) -> None:
        """Write the tensors that parts of the method leave for the stages to come; no file where there are none."""
        tensors = {f"{part}:{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
        if tensors:
            write_tensors(self.folder / STATE_FILE, tensors)

    def _part(self, name: str) -> Path | None:
        return self.folder / name if (self.folder / name).is_dir() else None

    @property
    def stored_bytes(self) -> int:
        """Bytes of what the stage learnt: adapter, weights, and what its method keeps for the stages to come."""
        learnt = (self.folder / name for name in _LEARNT)
        return sum(file.stat().st_size for path in learnt for file in _files_of(path))

    def lineage(self) -> dict[str, Any]:
        """Return lineage.json.

        Raises:
            RunError: it is missing or damaged.
        """
        return self.document("lineage.json")

    def metrics(self) -> dict[str, Any]:
        """Return metrics.json.

        Raises:
            RunError: it is missing or damaged.
        """
        return self.document("metrics.json")

    def document(self, name: str | Path) -> dict[str, Any]:
        """Return a JSON file of the artifact.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            value = read_json(self.folder / name)
        except (OSError, ValueError, RecursionError) as error:
            words = str(error).splitlines()[0]
            raise RunError(f"{self.folder / name}: can't be read ({words}); {_mend(name)}") from None
        if not isinstance(value, dict):
            raise RunError(f"{self.folder / name}: holds no JSON object; {_mend(name)}")
        return value

    def begin(self, config: dict[str, Any], lineage: dict[str, Any]) -> None:
        """Write what identifies the stage, before it trains; remove what killed processes left half-written."""
        for place in (self.folder, self.folder / ADAPTER_FOLDER, self.folder / WEIGHTS_FOLDER):
            for hidden in place.glob(".*"):
                if hidden.is_file():
                    hidden.unlink(missing_ok=True)
        write_text(self.folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        write_json(self.folder / "lineage.json", lineage)

    def discard(self) -> None:
        """Remove the artifact, and those folders of its place (dataset, ..., seed) that this leaves empty."""
        shutil.rmtree(self.folder)
        self._prune()

    @contextmanager
    def held(self, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Keep other runs from writing here while the block runs; leave no empty folders of its place behind.

        Of the processes of one run the first one does so, for all of them.

        Args:
            waiting: called once if another process is writing here, before waiting for it.
        """
        if not processes.first():
            yield
            return
        try:
            with hold(self.folder.with_name(f".{self.folder.name}.lock"), waiting):
                yield
        finally:
            self._prune()

    def _prune(self) -> None:
        for above in self.folder.parents[:_DEPTH]:
            try:
                above.rmdir()
            except OSError:  # not empty, or not there
                return

    def finish(self) -> None:
        """Mark the artifact as finished, with a checksum of all that must not change; then drop the checkpoint."""
        found = self._files(*_CHECKED)
        for path in found:
            fsync_file(path)
        for folder in sorted({path.parent for path in found}):
            fsync_folder(folder)
        files = {str(path.relative_to(self.folder)): sha256(path) for path in found}
        figures = own_figures(self.metrics())
        write_json(self.folder / _MARK, sealed({"format": FORMAT, "files": files, "figures": figures}))
        self.checkpoint.unlink(missing_ok=True)

    def mark_diverged(self, why: str, known: Mapping[str, float | str]) -> None:
        """Mark the unfinished artifact as one that goes no further: why, and what is known of it."""
        write_json(self.folder / _DIVERGED, {"format": FORMAT, "why": why, **known})

    def refuse_diverged(self) -> None:
        """Check that the stage hasn't diverged already: the same settings lead there again.

        Raises:
            RunError: it has; says where, and how to try again.
        """
        if self.diverged:
            why = self.document(_DIVERGED).get("why", "nothing more is known")
            raise RunError(
                f"{self.folder}: diverged when it was last trained, and would again; {why}; to try all the same, "
                f"remove {self.folder / _DIVERGED} (it goes on from the last good state), or {_MEND}"
            )

    def verify(self, fingerprint: str) -> None:
        """Check that a finished artifact is what its place and its mark promise.

        Raises:
            InputError: it was made from other settings or other data, or by another version of peso.
            RunError: a file is missing, has changed or was added.
        """
        mark = self._mark()
        for name, promised in mark["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise RunError(f"{path}: missing from a finished stage; {_MEND}")
            if sha256(path) != promised:
                raise RunError(f"{path}: changed since the stage was finished; {_MEND}")
        for path in self._files(*_LEARNT):
            if str(path.relative_to(self.folder)) not in mark["files"]:
                raise RunError(f"{path}: was added since the stage was finished; remove it, or {_MEND}")
        figures = own_figures(self.metrics())
        if mark.get("figures", figures) != figures:
            raise RunError(f"{self.folder / 'metrics.json'}: changed since the stage was finished; {_MEND}")
        self.match(fingerprint)

    def _mark(self) -> dict[str, Any]:
        """Return what the mark says.

        Raises:
            InputError: it is of another version.
            RunError: it is damaged.
        """
        mark = self.document(_MARK)
        if not is_whole(mark):
            raise RunError(f"{self.folder / _MARK}: is damaged; {_MEND}")
        self._check_format(_MARK, mark["format"])
        return mark

    def check_format(self) -> None:
        """Check that what has begun here has the layout that this version of peso reads.

        Raises:
            InputError: it has another; says what to do.
            RunError: lineage.json is missing or damaged.
        """
        self._check_format("lineage.json", self.lineage().get("format", FORMAT))

    def _check_format(self, name: str, found: object) -> None:
        if found != FORMAT:
            raise InputError(
                f"{self.folder / name}: is of format {found}, this version of peso ({version('peso')}) has format "
                f"{FORMAT}; use the version that made it ({self._made_by()}), or give another output="
            )

    def _made_by(self) -> str:
        try:
            versions = self.lineage().get("versions")
        except RunError:
            versions = None
        return f"peso {versions['peso']}" if isinstance(versions, dict) and "peso" in versions else "it isn't recorded"

    def match(self, fingerprint: str) -> None:
        """Check that what has begun here is the stage that is asked for.

        Raises:
            InputError: it has another fingerprint, or is of another version.
        """
        self.check_format()
        if self.lineage().get("fingerprint") != fingerprint:
            raise InputError(
                f"{self.folder}: was made from other settings or other data (see its config.yaml and lineage.json); "
                "give another output= (or, behind stage 1, another variant=), or move the folder away"
            )

    def check_log(self, size: int) -> None:
        """Check that the log holds what a checkpoint counts on: `size` bytes, the last one a line's end.

        Raises:
            RunError: it doesn't.
        """
        path = self.folder / "log.jsonl"
        if size and not (path.is_file() and path.read_bytes()[:size][size - 1 :] == b"\n"):
            raise RunError(f"{path}: lacks lines that the stage's checkpoint counts on; {_MEND}")

    def set_aside(self) -> Path:
        """Move the folder to a name of its own beside its place, where nothing takes it for an artifact; return it."""
        names = (self.folder.with_name(f"{self.folder.name}.damaged-{n}") for n in itertools.count(1))
        aside = next(path for path in names if not path.exists())
        self.folder.rename(aside)
        fsync_folder(aside.parent)
        return aside

    def _files(self, *names: str) -> list[Path]:
        return [file for name in names for file in _files_of(self.folder / name)]


def _files_of(path: Path) -> list[Path]:
    """Return the files under a folder but for hidden ones, or a file itself; none where there is neither."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return [path] * path.is_file()


_MEND = "peso train --repair trains it anew (or move the stage's folder away)"


def _mend(name: str | Path) -> str:
    """Return how to mend a damaged document: figures that were added later can be worked out again."""
    later = Path(name).parent.name == "evaluations"
    return "remove it to have its figures worked out again" if later else _MEND


def find_artifacts(output: Path) -> list[Artifact]:
    """Return all artifacts under a folder, finished or not, in order of their paths; none that was moved aside."""
    found = (path.parent for path in sorted(output.rglob("lineage.json")))
    return [Artifact(folder) for folder in found if not _ASIDE.search(folder.name)]


def provenance() -> dict[str, Any]:
    """Return what produced an artifact: package versions and, in a checkout, the git commit."""
    return {"versions": {name: version(name) for name in _PACKAGES}, "git_commit": _commit()}


def _commit() -> str | None:
    checkout = Path(__file__).resolve().parents[1]
    git = shutil.which("git")
    # An installed package may lie in somebody's repository without being part of it.
    if git is None or not (checkout / ".git").exists():
        return None
    found = subprocess.run([git, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def canonical(value: Any) -> str:
    """Return a value as JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
