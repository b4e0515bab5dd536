"""Pictures inside the page: named for those who can't see them, and with ids that no two pictures share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

from peso_cli.characters import cleaned
from peso_cli.reports.look import Picture
from peso_cli.reports.page.html import Html, joined, tag

_REFERENCE = re.compile(r"(?:^|(?<=url\())#([^)]+)")
"""What an attribute refers to: `#name` alone, or `url(#name)`."""

_PLACES = re.compile(r"(?<=\.\d)\d+(?![\d.]*e)")
"""Decimals beyond the first, in coordinates in points."""

_COORDINATES = frozenset(("d", "x", "y", "points"))

_PIXELS = 4 / 3
"""Pixels of a point."""

_LEGIBLE = 0.95
"""Pixels of a point below which a picture scrolls instead of shrinking."""


def charts(pictures: Sequence[Picture], anchor: str, told: str) -> Html:
    """Return pictures, each in a box of its own to scroll in.

    Args:
        pictures: what is drawn.
        anchor: an id of this page; what the ids inside begin with.
        told: what can be read off them, for those who can't see them.
    """
    return joined(_chart(picture, f"{anchor}-{number}", told) for number, picture in enumerate(pictures, start=1))


def _chart(picture: Picture, anchor: str, told: str) -> Html:
    root = ElementTree.fromstring(cleaned(picture.svg()))
    width, height = (float(value) for value in root.attrib["viewBox"].split()[2:])
    names = f"{anchor}-title {anchor}-desc"
    attributes = {
        "role": "img",
        "aria-labelledby": names,
        "viewBox": root.attrib["viewBox"],
        "width": f"{width * _PIXELS:.0f}",
        "height": f"{height * _PIXELS:.0f}",
        "style": f"min-width:{width * _LEGIBLE:.0f}px",
    }
    named = [
        tag("title", {"id": f"{anchor}-title"}, picture.name),
        tag("desc", {"id": f"{anchor}-desc"}, " ".join((told, *picture.notes))),
    ]
    drawn = tag("svg", attributes, *named, *_children(root, anchor))
    notes = [tag("figcaption", {}, note) for note in picture.notes]
    box = tag("div", {"class": "scroll", "role": "region", "aria-label": picture.name, "tabindex": "0"}, drawn)
    return tag("figure", {"class": "chart"}, box, *notes)


def _children(root: ElementTree.Element, anchor: str) -> Iterator[Html]:
    used = {name for element in root.iter() for value in element.attrib.values() for name in _REFERENCE.findall(value)}
    named = used & {element.get("id", "") for element in root.iter()}
    ids = {name: f"{anchor}-{number}" for number, name in enumerate(sorted(named), start=1)}
    for child in root:
        # A style sheet in here would be one of the whole page; the page's own holds what it says.
        if _local(child.tag) not in ("metadata", "title") and child.find("{*}style") is None:
            yield _element(child, ids)


def _element(element: ElementTree.Element, ids: Mapping[str, str]) -> Html:
    """Return an element of a picture as one of the page; ids that nothing refers to are left out."""
    attributes = {}
    for key, value in element.attrib.items():
        name = _local(key)
        if name == "id" and value not in ids:
            continue
        attributes[name] = _attribute(name, value, ids)
    inside: list[Html | str] = [element.text.strip() if element.text else ""]
    for child in element:
        inside += [_element(child, ids), child.tail.strip() if child.tail else ""]
    return tag(_local(element.tag), attributes, *inside)


def _attribute(name: str, value: str, ids: Mapping[str, str]) -> str:
    if name == "id":
        return ids[value]
    if name in _COORDINATES:
        return _PLACES.sub("", " ".join(value.split()))
    return _REFERENCE.sub(lambda found: f"#{ids.get(found[1], found[1])}", value)


def _local(name: str) -> str:
    """Return a name without its namespace, which inside a page goes without saying."""
    return name.rpartition("}")[2]
