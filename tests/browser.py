"""A real browser for tests of the page: headless Chromium by its path, driven by Playwright; skipped by name where one is missing."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from served import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_ARGUMENTS = [
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",  # allows the camera
    "--use-fake-device-for-media-stream=device-count=2",
]
_PIXELS = """canvas => {
  const bytes = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (let start = 0; start < bytes.length; start += 32768) text += String.fromCharCode(...bytes.subarray(start, start + 32768));
  return [canvas.height, canvas.width, btoa(text)];
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, until the block ends."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make test-services")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Tab:
    """An open page with what it asked for and complained about; `problems` must be empty at the end."""

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def choose(self, path: Path) -> None:
        """Chooses a file as a person does, by the button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.click("#choose")
        chooser.value.set_files(path)

    def open(self, path: Path) -> None:
        """Chooses a picture and waits until it is segmented."""
        self.choose(path)
        self.wait_for_still()

    def wait_for_still(self) -> None:
        self.page.wait_for_selector("#get-labels:enabled")

    def wait_for_live(self) -> None:
        """Waits until frames of a video or a camera come back."""
        self.until("Number(document.getElementById('fps').textContent) > 0")

    def until(self, expression: str, argument: Any = None) -> None:
        """Waits until a JavaScript expression is true. Playwright's own way needs eval(), which the page's policy forbids."""
        wait_until(lambda: self.page.evaluate(f"given => Boolean({expression})", argument))

    def pixels(self, canvas: str = "#view") -> NDArray[np.uint8]:
        """What a canvas shows, RGB (H, W, 3)."""
        height, width, text = self.page.eval_on_selector(canvas, _PIXELS)
        return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3].copy()

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def set_slider(self, selector: str, key: str) -> None:
        """Moves a slider with a key: Home, End, ArrowRight …"""
        self.page.focus(selector)
        self.page.keyboard.press(key)

    def point_at(self, x: int, y: int, canvas: str = "#view") -> None:
        """Moves the pointer over a pixel of the picture."""
        left, top = self._place(x, y, canvas)
        self.page.mouse.move(left, top)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Drags from one pixel of the picture to another."""
        self.point_at(*start)
        self.page.mouse.down()
        self.point_at(*end)
        self.page.mouse.up()

    def saved(self, button: str) -> tuple[str, bytes]:
        """Clicks a button -> the name and the bytes of the file that the browser saves."""
        with self.page.expect_download() as download:
            self.page.click(button)
        return str(download.value.suggested_filename), Path(download.value.path()).read_bytes()

    def call(self, module: str, expression: str, *arguments: Any) -> Any:
        """Evaluates an expression of `module` (its exports) and `arguments` in the page."""
        source = f"async arguments_ => {{ const module = await import('/js/{module}'); return {expression}; }}"
        return self.page.evaluate(source, list(arguments))

    def _place(self, x: int, y: int, canvas: str) -> tuple[float, float]:
        box = self.page.eval_on_selector(canvas, "c => [c.width, c.height, ...Object.values(c.getBoundingClientRect().toJSON())]")
        columns, rows, left, top, width, height = box[:6]
        return left + (x + 0.5) * width / columns, top + (y + 0.5) * height / rows


@contextmanager
def tab(browser: Browser, url: str, **options: Any) -> Iterator[Tab]:
    """The page at `url` in a context of its own. At the end it must have asked only this service, and thrown nothing."""
    context = browser.new_context(**options)
    context.set_default_timeout(10_000)
    page = context.new_page()
    opened = Tab(page)
    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("pageerror", lambda error: opened.problems.append(str(error)))
    page.on("console", lambda line: opened.problems.append(line.text) if "Content Security" in line.text else None)
    page.goto(url)
    opened.until("document.getElementById('model-facts').textContent || !document.getElementById('key-form').hidden")
    yield opened
    context.close()
    assert opened.problems == []
    assert [each for each in opened.requests if not each.startswith((url, "blob:", "data:"))] == []
