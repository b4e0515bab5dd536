"""What a run shows while it works: lines and progress bars on standard error, so that standard output holds results."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from peso_cli import processes
from peso_cli.characters import printable

_WIDE = 160
"""Columns of output that goes to a file or a pipe."""


class _AsShown:
    """Something to print, without what a terminal would obey: titles and ids are texts of anyone's making."""

    def __init__(self, shown: ConsoleRenderable) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the segments of it; those that are control codes are the console's own."""
        for segment in console.render(self._shown, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class _Guard(RenderHook):
    """What rich asks before anything is printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed in place of what is given."""
        return [_AsShown(each) for each in renderables]


def _console(stderr: bool, width: int | None) -> Console:
    """Return a console that takes texts to the letter."""
    console = Console(
        stderr=stderr,
        width=width,
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
        quiet=not processes.first(),
    )
    console.push_render_hook(_Guard())
    return console


OUT = _console(False, None if sys.stdout.isatty() else _WIDE)
ERR = _console(True, None)


def warn(line: str) -> None:
    """Show a line beside the results."""
    ERR.print(line, markup=False)


class TerminalDisplay:
    """Progress for people; without a terminal the bars are left out and the lines remain."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=ERR,
            transient=True,
            disable=not ERR.is_terminal,
        )
        self._last: TaskID | None = None

    def __enter__(self) -> TerminalDisplay:
        handler = RichHandler(console=ERR, show_time=False, show_path=False, markup=False)
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
        quiet_libraries()
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Show a line."""
        ERR.print(text, markup=False)

    def bar(self, title: str) -> Callable[[int, int, str], None]:
        """Open a progress bar in place of the one before; call it with (done, total, note)."""
        if self._last is not None:
            self._progress.remove_task(self._last)
        task = self._last = self._progress.add_task(title, total=None, note="")

        def tick(done: int, total: int, note: str) -> None:
            self._progress.update(task, completed=done, total=total, note=note)

        return tick


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notes off the terminal."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # peft warns of adapters on tied weights; merging unties them first.
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
