"""The look of all pictures: told apart without colour, labelled, and equal bytes for equal figures.

matplotlib is imported only where something is drawn, so that what draws nothing doesn't wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

from peso_cli.reports.model import Cell
from peso_cli.reports.selection import Group

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind people can tell apart (Okabe and Ito, Color Universal Design, 2008,
https://jfly.uni-koeln.de/color/). Their yellow is left out: on white it can't be seen."""

LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
HATCHES = ("", "////", "....")
GREY = "0.45"

METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {}}
"""What each format is saved with, so that a picture's bytes don't tell when it was saved."""

_WIDTH = 44
"""Characters of a legend's line."""

_NAMED = 20
"""Most values that are named along an axis."""

_PER_INCH = 12
"""Characters of a title to an inch."""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: what it shows, its title.
        figure: what is drawn.
        notes: what it leaves out.
    """

    name: str
    figure: Figure
    notes: tuple[str, ...] = ()

    def save(self, path: Path, form: str) -> None:
        """Write the picture as one of `METADATA`, titled."""
        with styled():
            self.figure.savefig(path, format=form, metadata={**METADATA[form], "Title": self.name})

    def svg(self) -> str:
        """Return the picture as SVG for a page: without a ground of its own, its letters as text."""
        import matplotlib

        drawn = StringIO()
        with styled():
            matplotlib.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]})
            self.figure.savefig(drawn, format="svg", metadata=METADATA["svg"], transparent=True)
        return drawn.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """Draw, or save what was drawn, in this look, whatever matplotlib is set to on the user's machine."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "axes.axisbelow": True,
                "axes.grid": True,
                "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
                "axes.spines.right": False,
                "axes.spines.top": False,
                "figure.constrained_layout.wspace": 0.04,
                "font.size": 9,
                "grid.color": "0.9",
                "hatch.linewidth": 0.6,
                "legend.frameon": False,
                "lines.linewidth": 1.3,
                "lines.markersize": 4.5,
                "savefig.dpi": 150,
                # Names inside an SVG follow from its content.
                "svg.hashsalt": "peso",
                # A name may hold dollar signs, and never means mathematics.
                "text.parse_math": False,
            }
        )
        yield


def sheet(title: str, rows: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of a (width, height) in inches, and its panels row by row.

    Args:
        title: stands above all panels.
        rows, columns: of panels.
        size: the whole figure's.
        shared: which axes panels share, as `sharey="row"`.
    """
    from matplotlib.figure import Figure

    figure = Figure(size, layout="constrained")
    figure.suptitle(fill(title, int(_PER_INCH * size[0])), fontsize="large")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)


def titled(group: Group, what: str) -> str:
    """Return a title: what a picture is of, what it shows, and whether its figures may be compared."""
    return f"{group.title}: {what}{' (--mix: not all can be compared)' * bool(group.mixed)}"


def style(place: int) -> dict[str, Any]:
    """Return colour, line and marker of the series at a place; line and marker alone tell 36 series apart."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": LINES[place % len(LINES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def reference_style(place: int) -> dict[str, Any]:
    """Return the style of a line that isn't a method's: grey, without markers."""
    return {"color": GREY, "linestyle": ((0, (1, 1)), (0, (7, 2)))[place % 2], "linewidth": 1.8}


def curve(axes: Axes, at: Sequence[float], cells: Sequence[Cell], **look: Any) -> Artist:
    """Draw means as a line, broken where one is missing, with a band of ± the deviation over seeds where known."""
    means = [float("nan") if cell.mean is None else cell.mean for cell in cells]
    (line,) = axes.plot(at, means, **look)
    if len(at) == 1:
        whisker(axes, cells[0], at[0], upright=True)
    elif any(cell.std is not None for cell in cells):
        spread = [cell.std or 0.0 for cell in cells]
        low, high = ([m + sign * s for m, s in zip(means, spread, strict=True)] for sign in (-1, 1))
        axes.fill_between(at, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return line


def whisker(axes: Axes, cell: Cell, at: float, upright: bool) -> None:
    """Draw ± the deviation over seeds through a figure, where it is known; `at` is its place on the other axis."""
    if cell.mean is not None and cell.std is not None:
        along, across = [cell.mean - cell.std, cell.mean + cell.std], [at, at]
        axes.plot(*((across, along) if upright else (along, across)), color="black", linewidth=1)


def key(
    figure: Figure,
    handles: Sequence[Artist],
    seeds: Sequence[int] = (),
    spread: Literal["band", "line"] = "band",
) -> None:
    """Put a legend beside the panels; with several seeds, it says what bands (or lines) across the figures are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown = list(handles)
    if len(seeds) > 1:
        label = f"± std over seeds {', '.join(map(str, seeds))}"
        line = Line2D([], [], color="black", linewidth=1, label=label)
        shown.append(Patch(color=GREY, alpha=0.3, label=label) if spread == "band" else line)
    labels = [fill(str(handle.get_label()), _WIDTH, break_on_hyphens=False) for handle in shown]
    figure.legend(shown, labels, loc="outside right upper", fontsize="small", handlelength=3.5)


def tall(lines: int, least: float) -> float:
    """Return the height, in inches, that a legend of some lines needs."""
    return max(least, 0.8 + 0.19 * lines)


def ticks(values: Sequence[int]) -> list[int]:
    """Return those of some values that an axis has room to name: all of a few, evenly chosen ones of many."""
    return list(values[:: -(-len(values) // _NAMED)])


def plain(axis: Axis) -> None:
    """Write an axis's numbers plainly, thousands as 1k and millions as 1M, none as a power of ten."""
    from matplotlib.ticker import EngFormatter, LogFormatter

    thousands = EngFormatter(sep="")
    axis.set_major_formatter(lambda value, _: thousands(value) if abs(value) >= 1000 else f"{value:g}")
    if axis.get_scale() == "log":
        axis.set_minor_formatter(LogFormatter(labelOnlyBase=False))


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic; up to the lowest value above 0 it is linear where there is a 0."""
    if min(values) > 0:
        axes.set_xscale("log")
    else:
        least = min((value for value in values if value > 0), default=1.0)
        axes.set_xscale("symlog", linthresh=least)
        # Nothing is below 0, where the axis would go on as far as above.
        axes.set_xlim(-0.3 * least, 1.6 * max(least, *values))
