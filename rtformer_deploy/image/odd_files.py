"""Collects the images of a run that could not be used. The first one ends the run, or all are named at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DeployError, ImageError

_HINTS = 3  # that a message ends with


@dataclass(slots=True)
class OddFiles:
    """The errors of a run over `total` images, one per file. `stop`: the first one ends the run (--stop-on-error).

    `unit` is what they are called if they are not all images.
    """

    stop: bool = True
    errors: list[DeployError] = field(default_factory=list)
    total: int = 0
    unit: str = "images"

    def add(self, error: DeployError) -> None:
        """Keeps an error, or raises it if the run is to stop."""
        if self.stop:
            raise error
        self.errors.append(error)

    def title(self, what: str = "could not be read") -> str:
        """A line such as "2 of 9 images could not be read:"."""
        return f"{len(self.errors)} of {self.total} {self.unit} {what}:"

    def lines(self) -> list[str]:
        """A line for each error."""
        return [f"  {error.what}" for error in self.errors]

    def raise_any(self, what: str = "could not be read", then: str = "") -> None:
        """Raises an ImageError that names every file, if there are errors; `then` says what happened to the other files."""
        if self.errors:
            hints = list(dict.fromkeys(error.hint for error in self.errors if error.hint))[:_HINTS]
            raise ImageError(self.title(what), details=[*self.lines(), *filter(None, [then]), *hints])
