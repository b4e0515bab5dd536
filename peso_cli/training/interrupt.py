"""Stopping between two steps: a signal asks, the loop saves, then the program ends as if it had been interrupted."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from peso_cli import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """While open, SIGINT and SIGTERM only set `requested`; a second one interrupts at once.

    A request that nobody has heeded by the end of the block interrupts there: none is ever lost.
    Of several processes each gets what the terminal sends and once more what their launcher passes on; it is the
    launcher that then ends those which take too long.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        # Python lets only the main thread take signals; elsewhere the default handlers stay.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.requested and error is None:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested and processes.count() == 1:
            raise KeyboardInterrupt
        self.requested = True
