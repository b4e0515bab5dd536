"""Pictures of an inspection, as SVG files that are equal for equal figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peso_cli.files import write_atomically
from peso_cli.inspection.report import short_name
from peso_cli.reports.look import METADATA, plain, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Document = Mapping[str, Any]


def write_pictures(document: Document, folder: Path) -> list[str]:
    """Write one picture for each thing that is to be seen and return the files' names."""
    for name, (draw, size) in _pictures(document).items():
        write_atomically(folder / name, partial(_write, partial(draw, document), size))
    return list(_pictures(document))


def _pictures(document: Document) -> dict[str, tuple[Callable[[Document, Axes], None], tuple[float, float]]]:
    """Return who draws what, and its (width, height) in inches; a line for each module needs its height."""
    tall = 1.6 + 0.32 * len(document["movement"]["modules"])
    return {
        "movement.svg": (_movement, (8, tall)),
        "angles.svg": (_angles, (8, tall)),
        "support.svg": (_spectrum, (7, 4.5)),
        "followed.svg": (_followed, (7, 4.5)),
    }


def _write(draw: Callable[[Axes], None], size: tuple[float, float], path: Path) -> None:
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(path, format="svg", metadata=METADATA["svg"])


def _title(document: Document, what: str) -> str:
    return f"{document['method']}, stage {document['stage']} since {document['since']}: {what}"


def _movement(document: Document, axes: Axes) -> None:
    """Draw three bars for each module: how far A, B and B A moved."""
    modules = document["movement"]["modules"]
    relative = all(m[part]["relative"] is not None for m in modules.values() for part in ("A", "B", "BA"))
    figure = "relative" if relative else "moved"
    for place, part in enumerate(("A", "B", "BA")):
        at = [row + 0.27 * (place - 1) for row in range(len(modules))]
        axes.barh(at, [m[part][figure] for m in modules.values()], 0.25, label=part)
    axes.set_xlabel("length of the change" + (", as a share of the length before" if relative else ""))
    _rows(axes, list(modules))
    axes.set_title(_title(document, "movement by module"))


def _angles(document: Document, axes: Axes) -> None:
    """Draw a dot for each principal angle of each module's A and B."""
    modules = document["movement"]["modules"]
    for place, (part, space) in enumerate((("A", "row spaces of A"), ("B", "column spaces of B"))):
        dots = [(angle, row) for row, m in enumerate(modules.values()) for angle in m[part]["angles"]]
        heights = [row + 0.3 * place - 0.15 for _, row in dots]
        axes.plot([angle for angle, _ in dots], heights, "|", markersize=9, label=space)
    axes.set_xlim(-2, 92)
    axes.set_xlabel("principal angle between before and after, degrees")
    _rows(axes, list(modules))
    axes.set_title(_title(document, "how spaces turned"))


def _rows(axes: Axes, modules: Sequence[str]) -> None:
    axes.set_yticks(range(len(modules)), [short_name(module) for module in modules])
    axes.set_ylim(len(modules) - 0.4, -0.6)
    axes.legend(frameon=False)


def _spectrum(document: Document, axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    support = [row["support"] for row in document["support"]["directions"]]
    axes.plot(range(1, len(support) + 1), support, "o-", label="data support")
    if document["support"]["pull"]:
        axes.axhline(document["support"]["pull"], color="grey", linestyle="--", label="pull of the penalty (lambda)")
    axes.set_yscale("log")
    plain(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("direction, strongest first")
    axes.set_ylabel("data support rho")
    axes.legend(frameon=False)
    axes.set_title(_title(document, "data support"))


def _followed(document: Document, axes: Axes) -> None:
    """Draw the observed share over support, beside the predicted curve."""
    rows = [row for row in document["support"]["directions"] if row["followed"] is not None]
    support = [row["support"] for row in rows]
    axes.plot(support, [row["followed"] for row in rows], "o", label="observed")
    if document["support"]["pull"] is not None:
        axes.plot(
            support, [row["predicted"] for row in rows], "-", color="grey", label="predicted, rho / (rho + lambda)"
        )
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xscale("log")
    plain(axes.xaxis)
    axes.set_xlabel("data support rho")
    axes.set_ylabel("share of the loss's own step that was followed")
    axes.legend(frameon=False)
    axes.set_title(_title(document, "followed"))
