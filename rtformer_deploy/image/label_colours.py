"""A dataset's colours -> its classes, by exact colour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Colours = NDArray[np.uint8]  # (..., 3) RGB
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class ColourTable:
    """Packed colours, sorted, and what each means: a class id, the ignored id, or -1 for one that two classes share."""

    keys: NDArray[np.uint32]
    meanings: NDArray[np.int16]

    @classmethod
    def of(cls, palette: Iterable[Colour], ignored: Colour, ignored_id: int) -> Self:
        """From one colour for each class, and the colour that is ignored unless a class has it."""
        means = {_key(ignored): ignored_id}
        class_keys: set[int] = set()
        for index, colour in enumerate(palette):
            means[_key(colour)] = -1 if _key(colour) in class_keys else index
            class_keys.add(_key(colour))
        keys = sorted(means)
        return cls(np.array(keys, np.uint32), np.array([means[key] for key in keys], np.int16))

    def classes_of(self, colours: Colours) -> NDArray[np.int16]:
        """Colours (..., 3) -> class ids (...), -1 for a colour of no class or of several."""
        wanted = packed(colours)
        at = np.searchsorted(self.keys, wanted).clip(0, len(self.keys) - 1)
        return np.where(self.keys[at] == wanted, self.meanings[at], np.int16(-1))


def packed(colours: Colours) -> NDArray[np.uint32]:
    """Colours (..., 3) -> one number each (...)."""
    wide = colours.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], np.uint32)


def _key(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue
