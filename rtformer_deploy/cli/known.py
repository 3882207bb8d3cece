"""Options that take the name of something that comes with the project: a shell completes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem


class Known(click.ParamType[str]):
    """A name that a command looks up itself. `names` gives those that a shell offers; with `files` it offers files too."""

    name = "text"

    def __init__(self, names: Callable[[], Iterable[str]], files: bool = True) -> None:
        self.names = names
        self.files = files

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]
        return found + [CompletionItem(incomplete, type="file")] * (self.files and not found)


def _stems(folder: str) -> list[str]:
    from ..content import content_dir

    return sorted(path.stem for path in (content_dir("models") / folder).glob("*.toml"))


def _variants() -> list[str]:
    from ..formats.recipe import variants

    return variants()


RECIPE = Known(lambda: _stems("."))
DATASET = Known(lambda: _stems("datasets"))
SUITE = Known(lambda: _stems("suites"), files=False)
VARIANT = Known(_variants, files=False)
