"""How every picture looks: the colours, light and dark, and matplotlib's settings."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import matplotlib.style

#: Colour -> its value on a light page and on a dark one. matplotlib draws with the first; in the SVG each is a CSS variable.
COLOURS = {
    "back": ("#fbfbf9", "#15191b"),
    "ink": ("#1d2326", "#e6eaeb"),
    "soft": ("#5c666b", "#9aa5aa"),
    "line": ("#d8dcdc", "#343c40"),
    "blue": ("#2f6f8f", "#6fb3d2"),
    "orange": ("#b4531f", "#f0a06c"),
    "green": ("#2e7d4f", "#72c48e"),
    "purple": ("#7a4fa3", "#bb96e0"),
    "gold": ("#8a6d00", "#d9b84a"),
    "teal": ("#148078", "#5cc7bd"),
    "pink": ("#b0508f", "#e79bcb"),
    "red": ("#b3304a", "#f0849a"),
}
BACK, INK, SOFT, LINE, BLUE, ORANGE, GREEN, *_ = (light for light, _ in COLOURS.values())
#: Colours for kinds and curves, in the order in which they are taken.
SERIES = tuple(COLOURS[name][0] for name in list(COLOURS)[4:])

#: A value that matplotlib writes -> the variable that replaces it, with that value for a page that does not define it.
VARIABLES = {light: f"var(--{name}, {light})" for name, (light, _) in COLOURS.items()}

FONT = "system-ui, sans-serif"
FONT_SIZE = 12
#: Units of an SVG are CSS pixels; matplotlib counts in inches of 72 of them.
PIXELS = 72

_SETTINGS = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "rtformer-deploy",  # the same input gives the same bytes
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "figure.dpi": PIXELS,
    "figure.facecolor": BACK,
    "font.family": "DejaVu Sans",  # comes with matplotlib; wider than a browser's font, so text that fits here fits there
    "font.size": FONT_SIZE,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.labelpad": 8,
    "axes.formatter.useoffset": False,  # numbers as they are
    "axes.formatter.limits": (-7, 7),
    "grid.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    **{f"{axis}tick.{rank}.{what}": value for axis in "xy" for rank in ("major", "minor") for what, value in (("size", 0), ("pad", 6))},
    "lines.markeredgewidth": 0,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0,
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Applies these settings to everything drawn inside and ignores any matplotlibrc; also works as a decorator."""
    with matplotlib.style.context(_SETTINGS, after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # measured as a box; the browser has its own fonts
        yield


def css_variables(dark: bool) -> str:
    """The colours of a light or a dark page as CSS declarations."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())
