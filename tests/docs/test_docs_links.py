"""Every link in the project's Markdown leads somewhere: to a file, and to a heading of it. Nothing is fetched."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from docs_pages import PAGES, ROOT, anchors, links, name, prose

OUTSIDE = re.compile(r"[a-z]+:")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [link for link in links(page) if not OUTSIDE.match(link) and not leads_somewhere(page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target))


def test_links_to_other_sites_are_whole() -> None:
    outside = [link for page in PAGES for link in links(page) if OUTSIDE.match(link)]
    assert len(outside) > 5
    assert [link for link in outside if not re.fullmatch(r"https://[\w.-]+\.\w+(/\S*)?", link)] == []


def test_a_broken_link_would_be_seen(tmp_path: Path) -> None:
    page = ROOT / "docs" / "int8.md"
    assert not leads_somewhere(page, "nothing.md")
    assert not leads_somewhere(page, "figures.md#nothing")
    assert not leads_somewhere(page, "../../elsewhere.md")
    assert leads_somewhere(page, "figures.md#int8")
    text = tmp_path / "page.md"
    text.write_text("# A `b` & c\n\n## 4. Two\n\n## 4. Two\n\n[x](y.md) ![z](z.webp)\n\n```\n# not a heading [n](n.md)\n```\n")
    assert anchors(text) == ["a-b--c", "4-two", "4-two-1"]
    assert list(links(text)) == ["y.md", "z.webp"]


def added_pages() -> dict[str, str]:
    """The pages outside of docs/ that docs/_site/hooks.py adds, of those that are there: path in the repository -> name on the site."""
    rows = re.findall(r'^    "([\w./-]+\.md)": "([\w-]+\.md)",$', (ROOT / "docs" / "_site" / "hooks.py").read_text(), re.MULTILINE)
    return {source: page for source, page in rows if (ROOT / source).is_file()}


def test_every_page_is_on_the_site_and_has_one_title() -> None:
    """mkdocs.yml's nav names every page of docs/ and every added one, but for those of the project itself."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r": ([\w-]+\.md)$", nav, re.MULTILINE)
    assert added_pages()["README.md"] == "index.md"
    there = {path.name for path in (ROOT / "docs").glob("*.md")} | {"help.md"}
    assert sorted(named) == sorted(
        there | {page for source, page in added_pages().items() if source == source.lower() or "README" in source}
    )
    for page in (ROOT / "docs").glob("*.md"):
        assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1, page.name


def test_links_between_pages_of_the_site_stay_on_it() -> None:
    """A link of a page to a file that is no page of the site leads nowhere there: such a path is `code`."""
    on_site = {path.resolve() for path in (ROOT / "docs").glob("*.md")} | {ROOT / source for source in added_pages()}
    wrong = []
    for page in on_site:
        targets = [link.partition("#")[0] for link in links(page) if not OUTSIDE.match(link) and not link.startswith("#")]
        places = {target: (page.parent / target).resolve() for target in targets}
        wrong += [
            f"{name(page)}: {target}"
            for target, path in places.items()
            if path not in on_site and path.parent != ROOT / "docs" / "pictures"
        ]
    assert wrong == []


def test_the_readme_is_short_and_names_what_a_newcomer_needs() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    for needed in ("make demo", "make test", "rtformer-deploy export", "rtformer-deploy build-engine --fp16", "rtformer-deploy bench"):
        assert needed in text


def test_pictures_and_samples_are_small() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "docs", "models/samples"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout
    if not listed:
        pytest.skip("not a git checkout")
    sizes = {path: (ROOT / path).stat().st_size for path in filter(None, listed.split("\0")) if not path.endswith((".md", ".py"))}
    assert {path: size for path, size in sizes.items() if size > (150_000 if path.startswith("models") else 70_000)} == {}
