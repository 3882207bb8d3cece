"""What mkdocs cannot do by itself: pages that lie outside of docs/, links between them, and a page of every command's help.

The Markdown files are written for readers of the repository, so their links are paths in it. Here they become links of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from rtformer_deploy.cli.group import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
#: Files outside of docs/ -> the page that each becomes.
PAGES = {
    "README.md": "index.md",
    "models/rtformer-slim-camvid.md": "model-card.md",
    "deploy/README.md": "deploy.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
#: The last section of the site, of those that are there.
PROJECT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
HELP = "help.md"
WIDTH = 80  # of the help, in characters: what fits beside the navigation

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_config(config: Any) -> Any:
    """Adds the section about the project itself."""
    there = [name for name in PROJECT if (ROOT / name).is_file()]
    config.nav.append({"Project": [{name.removesuffix(".md").capitalize(): PAGES[name]} for name in there]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that do not lie in docs/."""
    for source, name in PAGES.items():
        if (ROOT / source).is_file():
            files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    files.append(File.generated(config, HELP, content=help_page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page with its links changed from paths in the repository to paths on the site."""
    sources = {name: source for source, name in PAGES.items()}
    place = posixpath.dirname(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    return _LINK.sub(lambda found: site_path(posixpath.normpath(posixpath.join(place, found[1]))), markdown)


def site_path(path: str) -> str:
    """A path in the repository -> that of the site's page; what is no page stays as it is, and mkdocs complains."""
    return PAGES.get(path, path.removeprefix("docs/"))


def help_page() -> str:
    """The help of every command, as a terminal shows it."""
    parts = ["# Every command's help\n\n[The commands](commands.md) says which one does what.\n"]
    for name in COMMANDS:
        context = click.Context(main, info_name="rtformer-deploy", terminal_width=WIDTH)
        command = main.get_command(context, name)
        assert command is not None
        text = command.get_help(click.Context(command, info_name=name, parent=context, terminal_width=WIDTH))
        parts.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)
