"""A confusion matrix -> an SVG picture: one row for each true class, with the share of its pixels in each predicted class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

from ..evaluation.metrics import Matrix
from .style import BACK, BLUE, INK, LINE, house_style
from .svg import Finish, add_axes, add_heading, alone, new_figure
from .text import clean, shorten_middle

_FEW = 20  # classes whose cells are large enough for a number
_LARGE, _SMALL = 40, 12  # pixels of a cell
_LONGEST = 30  # characters of a name
_NAMED = 0.005  # a smaller share has no number and no tip
_VISIBLE = 0.02  # a cell of less opacity is not drawn
_STRONG = 0.5  # on a larger share the number is light


@house_style()
def draw_confusion(matrix: Matrix, names: Sequence[str], title: str, finish: Finish = alone) -> str:
    """A matrix of pixel counts (rows: true, columns: predicted) -> SVG text; each row is in percent of its true pixels."""
    count = len(names)
    cell = _LARGE if count <= _FEW else _SMALL
    figure = new_figure(cell * count, cell * count)
    axes = add_axes(figure, 0, 0, *figure.bbox.size)
    _frame(axes, [shorten_middle(clean(name), _LONGEST) for name in names], size=12 if count <= _FEW else 10)
    shares = _shares(matrix)
    _faint_cells(axes, shares)
    tips = _cells(axes, shares, names, numbers=count <= _FEW)
    add_heading(figure, title)
    return finish(figure, title, tips)


def _shares(matrix: Matrix) -> NDArray[np.float64]:
    """Each row as parts of its sum; a class without pixels has a row of zeros."""
    total = matrix.sum(1, keepdims=True)
    shares = np.zeros(matrix.shape)
    np.divide(matrix, total, out=shares, where=total > 0)
    return shares


def _frame(axes: Axes, names: Sequence[str], size: int) -> None:
    """The names beside the rows and over the columns, and lines between the cells."""
    count = len(names)
    axes.set(xlim=(0, count), ylim=(count, 0))
    axes.spines[:].set_visible(True)
    axes.xaxis.tick_top()
    middles = np.arange(count) + 0.5
    axes.set_xticks(middles, names, rotation=90, rotation_mode="anchor", ha="left", va="center", size=size)
    axes.set_yticks(middles, names, size=size)
    axes.hlines(range(1, count), 0, count, LINE, linewidth=0.8, zorder=0.5)
    axes.vlines(range(1, count), 0, count, LINE, linewidth=0.8, zorder=0.5)


def _cells(axes: Axes, shares: NDArray[np.float64], names: Sequence[str], numbers: bool) -> dict[str, str]:
    """Draws the cells that have a tip, the stronger the larger their share; returns the tips."""
    tips = {}
    for row, column in np.argwhere(shares >= _NAMED).tolist():
        share, gid = float(shares[row, column]), f"cell {row} {column}"
        tips[gid] = f"{names[row]} taken for {names[column]}: {100 * share:.1f} %"
        axes.add_artist(Rectangle((column, row), 1, 1, facecolor=BLUE, alpha=share**0.5, gid=gid, in_layout=False))
        if numbers:
            colour = BACK if share > _STRONG else INK
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", color=colour, ha="center", va="center", in_layout=False)
    return tips


def _faint_cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    """Draws the other visible cells. There may be thousands, so all cells of one opacity are one path."""
    opacities = np.where(shares < _NAMED, np.sqrt(shares).round(2), 0)
    for opacity in np.unique(opacities[opacities >= _VISIBLE]).tolist():
        corners = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1), (x, y)] for y, x in np.argwhere(opacities == opacity).tolist()]
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
        axes.add_artist(PathPatch(Path(np.reshape(corners, (-1, 2)), codes), facecolor=BLUE, alpha=opacity, in_layout=False))
