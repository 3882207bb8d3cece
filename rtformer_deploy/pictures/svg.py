"""A matplotlib figure -> SVG text: small, without ids, its colours CSS variables, so that it follows a light or a dark page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from . import SVG_MARK
from .style import FONT, FONT_SIZE, PIXELS, SOFT, VARIABLES, css_variables
from .text import clean

Tips = Mapping[str, str]  # an artist's gid -> the text that a browser shows when the pointer rests on it
#: Makes SVG text of a figure, the words that describe it, and its tips: `alone`, `embedded` or `cropped`.
Finish = Callable[[Figure, str, Tips], str]

_MARGIN = 16
_FRACTION = re.compile(r"-?\d+\.\d+")
_HREF = "{http://www.w3.org/1999/xlink}href"
_STYLE = f"svg {{ {css_variables(dark=False)} }} @media (prefers-color-scheme: dark) {{ svg {{ {css_variables(dark=True)} }} }}"


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in pixels."""
    return Figure((width / PIXELS, height / PIXELS))


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes of a size at a place in a figure, in pixels from its upper left corner."""
    across, down = figure.bbox.size
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def add_heading(figure: Figure, title: str, note: str = "") -> None:
    """A title and a smaller note over everything that the figure holds so far, aligned with its left edge."""
    box, (across, down) = figure.get_tightbbox(), figure.get_size_inches()
    left, bottom = box.x0 / across, (box.y1 + 14 / PIXELS) / down
    if note:
        figure.text(left, bottom, clean(note), color=SOFT)
        bottom += 20 / PIXELS / down
    figure.text(left, bottom, clean(title), size=15)


def alone(figure: Figure, label: str, tips: Tips) -> str:
    """A figure as a separate file, light or dark as the viewer prefers, cropped to its content."""
    root = _cropped(figure, label, tips)
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "font-family": FONT}
    style = Element("style")
    style.text = _STYLE
    root.insert(0, style)
    root.insert(0, ElementTree.Comment(f" {SVG_MARK} "))
    return _text(root) + "\n"


def embedded(figure: Figure, label: str, tips: Tips) -> str:
    """A figure as an element of an HTML page that defines the colours; it is as wide as the page allows."""
    return _text(_svg(figure, label, tips, None))


def cropped(figure: Figure, label: str, tips: Tips) -> str:
    """As `embedded`, but cropped to the content and in its own size."""
    return _text(_cropped(figure, label, tips))


def _cropped(figure: Figure, label: str, tips: Tips) -> Element:
    root = _svg(figure, label, tips, figure.get_tightbbox().padded(_MARGIN / PIXELS))
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"width": width, "height": height}
    return root


def _svg(figure: Figure, label: str, tips: Tips, box: Bbox | None) -> Element:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches=box, metadata={"Date": None})
    source = ElementTree.fromstring(buffer.getvalue())
    attributes = {"viewBox": _rounded(source.attrib["viewBox"]), "role": "img", "aria-label": clean(label)}
    root = Element("svg", attributes | {"font-size": str(FONT_SIZE), "stroke-linejoin": "round"})
    marks = {path.attrib["id"]: path.attrib["d"] for path in source.iter() if "id" in path.attrib and "d" in path.attrib}
    root.extend(_rewritten(source, tips, marks))
    return root


def _text(root: Element) -> str:
    ElementTree.indent(root, "")
    return ElementTree.tostring(root, encoding="unicode")


def _rewritten(parent: Element, tips: Tips, marks: Mapping[str, str]) -> Iterator[Element]:
    """The children of a matplotlib element, without ids and namespaces; a group is kept only if it has a tip."""
    for element in parent:
        name = element.tag.rpartition("}")[2]
        if name in ("defs", "metadata"):
            continue
        if name == "g":
            yield from _group(element, tips, marks)
        elif name == "use":
            place = f"translate({element.attrib['x']} {element.attrib['y']})"
            shape = {"d": marks[element.attrib[_HREF].removeprefix("#")], "transform": place, "style": element.attrib["style"]}
            yield Element("path", _attributes(shape))
        else:
            plain = Element(name, _attributes(element.attrib))
            plain.text = element.text
            if plain.get("fill") != "none" or plain.get("stroke") is not None:
                yield plain


def _group(element: Element, tips: Tips, marks: Mapping[str, str]) -> Iterator[Element]:
    content = list(_rewritten(element, tips, marks))
    tip = tips.get(element.attrib.get("id", ""))
    if tip is None:
        yield from content
        return
    group, title = Element("g"), Element("title")
    title.text = clean(tip)
    group.extend([title, *content])
    yield group


def _attributes(source: Mapping[str, str]) -> dict[str, str]:
    """The attributes of one element. Each part of matplotlib's `style` becomes an attribute, which a page may override.

    A colour is both: the variable in `style`, and the value it has on a light page for a viewer that does not know variables.
    """
    result = {key: _rounded(source[key]) for key in ("d", "x", "y", "width", "height", "transform") if key in source}
    if result.get("transform", "").startswith("rotate(-0 "):
        del result["transform"]
    variables = []
    for name, value in (part.split(": ") for part in source.get("style", "").split("; ") if part):
        if value in VARIABLES:
            variables.append(f"{name}: {VARIABLES[value]}")
        if name != "font-family" and value != f"{FONT_SIZE}px":
            result[name] = _rounded(value.removesuffix("px"))
    return result | ({"style": "; ".join(variables)} if variables else {})


def _rounded(text: str) -> str:
    """A text with its numbers rounded to hundredths of a pixel, its lines joined."""
    return _FRACTION.sub(lambda number: f"{round(float(number[0]), 2) + 0.0:g}", " ".join(text.split()))
