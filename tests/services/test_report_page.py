"""The page of `report` in a real browser: tables sorted by click and by key, without JavaScript, on a phone, for people who hear it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browser import chromium

from rtformer_deploy.commands.report import report_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.services

LATENCIES = {"a.json": 20.0, "b.json": 9.0, "c.json": 100.0}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of three reports of bench, one of which says no memory."""
    folder = tmp_path_factory.mktemp("results")
    for name, ms in LATENCIES.items():
        (folder / name).write_text(json.dumps(bench(ms)))
    report_folder(folder, folder / "report.html")
    return (folder / "report.html").as_uri()


def bench(ms: float) -> dict[str, Any]:
    bars = {"start_ms": ms, "width_ms": 1.0, "counts": [3, 1], "beyond": 0}
    shares = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "mean_ms", "max_ms"), ms)
    timed = shares | {"fps": 1000 / ms, "steps": 4, "histogram": bars}
    memory = None if ms == 9.0 else ms
    model = {"name": "a network", "input": [512, 1024]}
    return {"engine": timed, "end_to_end": timed, "model": model, "environment": {"cpu": "a CPU"}, "peak_memory_mb": memory}


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context()
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda line: problems.append(line.text))
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(url)
    yield opened
    context.close()
    assert problems == []
    assert asked == [url]


def order(page: Page) -> list[str]:
    """The files of the first table, in the order that is shown."""
    return list(page.locator("table.sortable").first.locator("tbody th").all_inner_texts())


def sorted_by(page: Page) -> list[tuple[str, str]]:
    heads = page.locator("th[aria-sort]")
    return [(heads.nth(index).inner_text(), str(heads.nth(index).get_attribute("aria-sort"))) for index in range(heads.count())]


def test_a_click_sorts_by_number_and_a_second_one_turns_it_round(page: Page) -> None:
    assert order(page) == ["a.json", "b.json", "c.json"]
    assert sorted_by(page) == []
    button = page.get_by_role("button", name="engine p50, ms")
    button.click()
    assert order(page) == ["b.json", "a.json", "c.json"]
    assert sorted_by(page) == [("engine p50, ms", "ascending")]
    button.click()
    assert order(page) == ["c.json", "a.json", "b.json"]
    assert sorted_by(page) == [("engine p50, ms", "descending")]


def test_keys_sort_too_and_what_is_not_known_stays_at_the_end(page: Page) -> None:
    button = page.get_by_role("button", name="memory, MiB")
    button.focus()
    page.keyboard.press("Enter")
    assert order(page) == ["a.json", "c.json", "b.json"]
    page.keyboard.press("Space")
    assert order(page) == ["c.json", "a.json", "b.json"]
    page.get_by_role("button", name="file", exact=True).first.focus()
    page.keyboard.press("Enter")
    assert order(page) == ["a.json", "b.json", "c.json"]
    assert sorted_by(page) == [("file", "ascending")]


def test_without_javascript_everything_is_there(browser: Browser, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert order(page) == ["a.json", "b.json", "c.json"]
    assert page.locator("button").count() == 0
    assert page.locator("figure svg").count() == 6
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_and_axe_finds_nothing(browser: Browser, url: str, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: make test-services").Axe()
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(url)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.get_by_role("button", name="frames a second").bounding_box() is not None
    results = axe.run(page)
    assert results.violations_count == 0, results.generate_report()
    context.close()
