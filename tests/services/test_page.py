"""The page in a real browser, over a real uvicorn: everything on it is used, and its effect looked at."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from browser import Tab, chromium, tab
from helpers import frames, tiny_spec
from numpy.typing import NDArray
from PIL import Image, ImageCms
from segmenting import segment
from served import Served, SlowRunner, open_tiny, pixels, served

from rtformer_deploy.commands.segment import plan_jobs
from rtformer_deploy.image.areas import ClassArea, area_header, area_rows, class_areas
from rtformer_deploy.image.confidence import confidence_map
from rtformer_deploy.image.frames import overlay
from rtformer_deploy.image.geojson import feature_collection
from rtformer_deploy.image.png import encode_png
from rtformer_deploy.image.polygons import polygons_of
from rtformer_deploy.serve.engine_host import EngineHost
from rtformer_deploy.serve.settings import Access
from rtformer_deploy.types import LabelMap, Ticket

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.services

SPEC = tiny_spec()
KEY = "a-key-for-the-page-0123456789"
SIZE = (70, 90)
FRAME = frames(SIZE)[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture
def page(browser: Browser, service: Served) -> Iterator[Tab]:
    with tab(browser, f"{service.url}/") as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture, street.png, and beside it what `segment` writes for it."""
    folder = tmp_path_factory.mktemp("segment")
    Image.fromarray(FRAME).save(folder / "street.png")
    with open_tiny() as runner:
        list(segment(runner, plan_jobs([folder / "street.png"], folder), folder))
    return folder


@pytest.fixture(scope="module")
def picture(written: Path) -> Path:
    return written / "street.png"


@pytest.fixture(scope="module")
def labels(written: Path) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = pixels((written / "street_labels.png").read_bytes())
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 4 s that grows brighter."""
    path = tmp_path_factory.mktemp("video") / "drive.webm"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 10, (96, 64))
    assert writer.isOpened()
    for level in range(40):
        writer.write(np.full((64, 96, 3), 6 * level, np.uint8))
    writer.release()
    return path


def drawn(labels: NDArray[np.uint8], alpha: float = 0.5) -> NDArray[np.uint8]:
    return overlay(FRAME, labels, SPEC.palette, alpha)


def close(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    """Equal but for how a canvas rounds."""
    assert found.shape == wanted.shape
    assert int(np.abs(found.astype(int) - wanted.astype(int)).max()) <= 2


def in_palette(found: NDArray[np.uint8]) -> bool:
    return {tuple(colour) for colour in np.unique(found.reshape(-1, 3), axis=0).tolist()} <= set(SPEC.palette)


# Getting a picture in


def test_a_chosen_picture_shows_its_colours_and_its_classes_shares(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.open(picture)
    close(page.pixels(), drawn(labels))
    areas = sorted(class_areas(labels, SPEC.classes), key=lambda area: -area.share)
    rows = page.page.locator("#legend button").all_inner_texts()
    assert [row.split("\n") for row in rows] == [[area.name, f"{100 * area.share:.1f} %"] for area in areas if area.pixels]
    assert page.text("#status").startswith(f"street.png: {areas[0].name} {100 * areas[0].share:.1f} %")
    assert page.text("#latency").endswith(" ms")
    assert page.text("#engine").endswith(" ms")
    assert page.text("#size").split(" \N{MULTIPLICATION SIGN} ") == ["90", "70"]
    assert not page.page.is_visible("#fps")


def test_a_dropped_picture(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    session = page.page.context.new_cdp_session(page.page)
    for kind in ("dragEnter", "dragOver"):
        session.send("Input.dispatchDragEvent", _drag(kind, picture))
    assert page.page.locator("body.dropping").count() == 1
    session.send("Input.dispatchDragEvent", _drag("drop", picture))
    page.wait_for_still()
    close(page.pixels(), drawn(labels))
    assert page.page.locator("body.dropping").count() == 0


def _drag(kind: str, path: Path) -> dict[str, Any]:
    return {"type": kind, "x": 300, "y": 300, "data": {"items": [], "files": [str(path)], "dragOperationsMask": 1}}


def test_a_pasted_picture(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.page.evaluate(
        """async text => {
          const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
          await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
        }""",
        base64.b64encode(picture.read_bytes()).decode(),
    )
    page.page.keyboard.press("Control+V")
    page.wait_for_still()
    close(page.pixels(), drawn(labels))


def test_a_picture_that_the_browser_cannot_read_is_shown_as_the_service_reads_it(
    page: Tab, labels: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(FRAME).save(tmp_path / "street.tif")
    page.open(tmp_path / "street.tif")
    close(page.pixels(), drawn(labels))


def test_a_clear_picture_is_shown_as_the_network_gets_it(page: Tab, tmp_path: Path) -> None:
    clear = np.linspace(0, 255, FRAME.shape[1]).astype(np.uint8)
    Image.fromarray(np.dstack([FRAME, np.broadcast_to(clear, SIZE)])).save(tmp_path / "clear.png")
    page.open(tmp_path / "clear.png")
    page.set_slider("#opacity", "Home")
    np.testing.assert_array_equal(page.pixels(), FRAME)


@pytest.mark.parametrize("profile", ["srgb", "swapped"])
def test_a_colour_profile_changes_nothing(page: Tab, tmp_path: Path, profile: str) -> None:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if profile == "swapped":  # red and blue primaries change places, so a browser that applies it shows other colours
        red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
        data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    Image.fromarray(FRAME).save(tmp_path / "profile.png", icc_profile=bytes(data))
    page.open(tmp_path / "profile.png")
    page.set_slider("#opacity", "Home")
    np.testing.assert_array_equal(page.pixels(), FRAME)


def test_a_turned_photograph_is_shown_upright(page: Tab, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(FRAME).save(tmp_path / "turned.png", exif=exif)
    page.open(tmp_path / "turned.png")
    page.set_slider("#opacity", "Home")
    close(page.pixels(), np.rot90(FRAME, -1))


def test_the_second_picture_wins_though_the_first_is_still_under_way(browser: Browser, picture: Path, tmp_path: Path) -> None:
    runner = SlowRunner(0.6)
    runner.spec = tiny_spec(head="labels")
    Image.fromarray(FRAME[:20, :30]).save(tmp_path / "small.png")
    with served(EngineHost("slow", runner.as_runner)) as service, tab(browser, f"{service.url}/") as page:
        page.choose(picture)
        page.page.wait_for_timeout(100)
        page.open(tmp_path / "small.png")
        page.page.wait_for_timeout(800)
        assert page.pixels().shape == (20, 30, 3)
        assert page.text("#status").startswith("small.png")


# Looking at it


def test_opacity_needs_no_round_trip(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.open(picture)
    asked = len(page.requests)
    page.set_slider("#opacity", "End")
    np.testing.assert_array_equal(page.pixels(), np.asarray(SPEC.palette, np.uint8)[labels])
    assert page.text("#opacity-value") == "100 %"
    page.set_slider("#opacity", "Home")
    np.testing.assert_array_equal(page.pixels(), FRAME)
    assert len(page.requests) == asked


def test_swipe_by_pointer_and_by_key(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.open(picture)
    assert not page.page.is_visible("#swipe")
    page.page.check("input[value=swipe]")
    page.drag((45, 30), (60, 30))
    split = round(float(page.page.input_value("#swipe")) / 100 * SIZE[1])
    assert abs(split - 60) <= 1
    shown = page.pixels()
    np.testing.assert_array_equal(shown[:, : split - 1], FRAME[:, : split - 1])
    close(shown[:, split + 1 :], drawn(labels)[:, split + 1 :])
    page.set_slider("#swipe", "Home")
    close(page.pixels(), drawn(labels))
    page.page.check("input[value=over]")
    page.set_slider("#opacity", "End")
    np.testing.assert_array_equal(page.pixels(), np.asarray(SPEC.palette, np.uint8)[labels])


def test_beside_shows_the_photograph_and_the_overlay(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.open(picture)
    assert not page.page.is_visible("#photo")
    page.page.check("input[value=beside]")
    np.testing.assert_array_equal(page.pixels("#photo"), FRAME)
    close(page.pixels(), drawn(labels))
    left, right = (page.page.locator(canvas).bounding_box() for canvas in ("#photo", "#view"))
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"]
    page.point_at(10, 20, "#photo")  # both of them can be read
    assert page.text("#tip").startswith(SPEC.classes[labels[20, 10]])


def test_a_click_hides_a_class_and_shows_it_again(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.open(picture)
    asked = len(page.requests)
    first = page.page.locator("#legend button").first
    hidden = SPEC.classes.index(first.locator(".name").inner_text())
    first.click()
    assert first.get_attribute("aria-pressed") == "false"
    shown, there = page.pixels(), labels == hidden
    np.testing.assert_array_equal(shown[there], FRAME[there])
    close(shown[~there][None], drawn(labels)[~there][None])
    page.page.click("#hide-all")
    np.testing.assert_array_equal(page.pixels(), FRAME)
    page.page.click("#show-all")
    close(page.pixels(), drawn(labels))
    assert first.get_attribute("aria-pressed") == "true"
    assert len(page.requests) == asked


def test_the_pointer_reads_class_and_confidence(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    with open_tiny() as runner:
        levels = confidence_map(runner.logits([FRAME])[0], SIZE, SPEC.size)
    page.open(picture)
    for x, y in ((0, 0), (45, 33), (89, 69), (13, 60)):
        page.point_at(x, y)
        assert page.text("#tip") == f"{SPEC.classes[labels[y, x]]} {int(100 * int(levels[y, x]) / 255 + 0.5)} %"
    page.page.mouse.move(5, 5)
    assert not page.page.is_visible("#tip")


# Saving it


def test_downloads_are_what_segment_writes(page: Tab, picture: Path, written: Path, labels: NDArray[np.uint8], service: Served) -> None:
    page.open(picture)
    name, data = page.saved("#get-labels")
    assert name == "street_labels.png"
    assert data == service.client.post("/v1/segment", content=picture.read_bytes(), headers={"Content-Type": "image/png"}).content
    np.testing.assert_array_equal(pixels(data), labels)
    assert page.saved("#get-overlay") == ("street_overlay.png", (written / "street_overlay.png").read_bytes())
    name, data = page.saved("#get-polygons")
    assert name == "street_polygons.geojson"
    assert json.loads(data) == feature_collection(polygons_of(labels), SPEC.classes, {"frame": "street.png"})
    name, data = page.saved("#get-csv")
    assert name == "street_areas.csv"
    assert data.decode() == area_header() + area_rows("street.png", None, class_areas(labels, SPEC.classes))


def test_an_overlay_is_saved_as_it_is_seen(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    page.open(picture)
    page.set_slider("#opacity", "End")
    first = page.page.locator("#legend button").first
    hidden = SPEC.classes.index(first.locator(".name").inner_text())
    first.click()
    wanted = np.where((labels == hidden)[..., None], FRAME, drawn(labels, 1))
    np.testing.assert_array_equal(pixels(page.saved("#get-overlay")[1]), wanted)


@pytest.mark.parametrize("counts", [[1, 127, 0, 0, 0], [3, 125, 0, 0, 0], [1, 2, 0, 0, 3], [0, 0, 0, 0, 0], [1, 33_000_000, 0, 7, 0]])
def test_csv_rounds_and_quotes_as_segment_does(page: Tab, counts: list[int]) -> None:
    names = ["plain", "with, comma", 'with "quotes"', "ä", "e"]
    total = sum(counts)
    areas = [ClassArea(i, name, count, count / total if total else 0.0) for i, (name, count) in enumerate(zip(names, counts, strict=True))]
    classes = [{"id": index, "name": name} for index, name in enumerate(names)]
    for at in (None, 1.25):
        frame = {"name": "a, b.png", "time": at, "counts": counts}
        found = page.call("csv.js", "module.areaTable([arguments_[0]], arguments_[1])", frame, classes)
        assert found == area_header() + area_rows("a, b.png", at, areas)


def test_every_filter_of_a_png_is_undone(page: Tab) -> None:
    random = np.random.default_rng(0)
    noise, ramp = random.integers(0, 256, (37, 53), np.uint8), np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    for values in (noise, ramp, np.cumsum(noise % 3, axis=0, dtype=np.uint8), noise[:1, :1]):
        data = base64.b64encode(encode_png(values)).decode()
        unpack = "module.readGrey(Uint8Array.from(atob(arguments_[0]), (c) => c.charCodeAt(0))).then((png) => [...png.values])"
        assert page.call("png.js", unpack, data) == values.ravel().tolist()
    for bad in (b"not a png", encode_png(FRAME), encode_png(noise)[:-40]):
        unpack = "module.readGrey(Uint8Array.from(atob(arguments_[0]), (c) => c.charCodeAt(0))).then(() => '', (e) => e.message)"
        assert page.call("png.js", unpack, base64.b64encode(bad).decode())


# Videos and cameras


def test_the_webcam_is_segmented_live_and_read_when_it_is_paused(page: Tab) -> None:
    page.page.click("#webcam")
    page.wait_for_live()
    page.set_slider("#opacity", "End")
    page.page.wait_for_timeout(300)
    assert in_palette(page.pixels())
    before = page.pixels()
    page.until("document.getElementById('fps').textContent !== given", page.text("#fps"))
    assert page.text("#latency").endswith(" ms")
    assert page.page.is_disabled("#get-labels")
    page.set_slider("#opacity", "Home")
    first = page.pixels()
    page.page.wait_for_timeout(500)
    assert before.shape == first.shape == (480, 640, 3)
    assert (page.pixels() != first).any()  # the picture of a fake camera moves

    page.page.click("#play")
    page.wait_for_still()
    assert page.text("#play") == "Play"
    page.point_at(320, 240)
    assert page.text("#tip").endswith(" %")
    still = page.pixels()
    name, data = page.saved("#get-labels")
    assert name.startswith("webcam_")
    with open_tiny() as runner:
        np.testing.assert_array_equal(pixels(data), runner.run([still])[0])
    rows = page.saved("#get-csv")[1].decode().splitlines()[1:]
    times = [float(row.split(",")[1]) for row in rows]
    assert len(set(times)) > 2
    assert times == sorted(times)

    page.page.click("#play")
    page.page.wait_for_selector("#get-labels:disabled")
    page.wait_for_live()
    page.page.click("#stop")
    assert page.page.is_visible("#empty")
    assert page.page.locator("video").count() == 0


def test_another_camera_can_be_chosen(page: Tab) -> None:
    page.page.click("#webcam")
    page.page.wait_for_selector("#camera")
    names = page.page.locator("#camera option").all_inner_texts()
    assert len(names) == 2
    now = page.page.eval_on_selector("#camera", "select => select.selectedIndex")
    page.page.select_option("#camera", index=1 - now)
    page.until("document.querySelector('video')?.srcObject")
    page.wait_for_live()
    label = page.page.evaluate("document.querySelector('video').srcObject.getVideoTracks()[0].label")
    assert label == names[1 - now]


def test_a_slow_engine_gets_the_newest_frame(browser: Browser) -> None:
    with (
        served(EngineHost("slow", SlowRunner(0.25).as_runner)) as service,
        tab(browser, f"{service.url}/") as page,
    ):
        page.page.click("#webcam")
        page.wait_for_live()
        page.page.wait_for_timeout(2500)
        assert float(page.text("#fps")) < 5
        assert float(page.text("#latency").removesuffix(" ms")) < 1200  # it does not grow with time: two frames are under way at most


class BrightnessRunner(SlowRunner):
    """Takes its time and gives every pixel of a frame the class of the frame's brightness."""

    def result(self, ticket: Ticket) -> list[LabelMap]:
        levels = [int(frame.mean()) // 64 for frame in self._waiting[ticket.number]]
        return [np.full_like(labels, level) for labels, level in zip(super().result(ticket), levels, strict=True)]


def test_colours_lie_over_the_very_frame_that_they_belong_to(browser: Browser, clip: Path) -> None:
    """The clip grows brighter, so a label map of another frame would show."""
    seen = set()
    with served(EngineHost("slow", BrightnessRunner(0.1).as_runner)) as service, tab(browser, f"{service.url}/") as page:
        page.set_slider("#opacity", "End")
        page.page.check("input[value=swipe]")
        page.choose(clip)
        page.wait_for_live()
        while page.text("#play") == "Pause":
            shown = page.pixels()
            photo, colour = int(shown[32, 10].mean()), tuple(shown[32, 80].tolist())
            assert SPEC.palette.index(colour) in {(photo - 3) // 64, (photo + 3) // 64}  # JPEG changes a level a little
            seen.add(colour)
    assert len(seen) == 4


def test_a_video_plays_pauses_and_is_sought(page: Tab, clip: Path) -> None:
    page.choose(clip)
    page.wait_for_live()
    page.page.click("#play")
    page.wait_for_still()
    page.set_slider("#opacity", "Home")
    dark = page.pixels().mean()
    page.set_slider("#seek", "End")
    page.until("document.getElementById('clock').textContent.startsWith('0:04')")
    page.wait_for_still()
    page.page.wait_for_timeout(300)
    assert page.pixels().mean() > dark + 40
    assert page.pixels().shape == (64, 96, 3)
    name, data = page.saved("#get-labels")
    assert name.startswith("drive_")
    assert pixels(data).shape == (64, 96)
    assert page.saved("#get-csv")[0] == "drive_areas.csv"


def test_a_video_at_its_end_stands_at_its_last_frame(page: Tab, clip: Path) -> None:
    page.choose(clip)
    page.wait_for_still()  # after its 4 s
    page.set_slider("#opacity", "Home")
    assert page.pixels().mean() > 200
    assert page.text("#play") == "Play"


# Keys, models, errors


def test_a_key_is_asked_for_and_sent_with_pictures_and_streams(browser: Browser, picture: Path, labels: NDArray[np.uint8]) -> None:
    with served(access=Access((KEY,), local=False)) as service, tab(browser, f"{service.url}/") as page:
        assert page.page.evaluate("document.activeElement.id") == "key"
        page.page.fill("#key", "a key of ümlauts")
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("text=A key is made of ASCII characters without spaces.")
        page.page.fill("#key", "wrong")
        page.page.click("text=Use this key")
        page.page.wait_for_selector("text=The API key is not one of the service's.")
        page.choose(picture)  # before there is a key: it is segmented once there is one
        page.page.wait_for_timeout(200)
        page.page.fill("#key", KEY)
        page.page.keyboard.press("Enter")
        page.wait_for_still()
        close(page.pixels(), drawn(labels))
        assert not page.page.is_visible("#key-form")
        page.page.click("#webcam")
        page.wait_for_live()
        page.page.reload()
        page.until("document.getElementById('model-facts').textContent")
        assert not page.page.is_visible("#key-form")  # kept in this tab
        assert not any(KEY in each for each in page.requests)


def test_one_of_several_models_is_chosen(browser: Browser, picture: Path, labels: NDArray[np.uint8]) -> None:
    hosts = EngineHost("first", open_tiny), EngineHost("second", lambda: open_tiny("labels"))
    with served(*hosts) as service, tab(browser, f"{service.url}/") as page:
        page.open(picture)
        page.point_at(45, 33)
        assert page.text("#tip").endswith(" %")
        page.page.select_option("#model", "second")
        page.until("document.getElementById('tip').hidden || !document.getElementById('tip').textContent.includes('%')")
        page.wait_for_still()
        page.point_at(44, 33)
        assert page.text("#tip") in SPEC.classes  # an engine that gives labels only has no confidence
        assert any("/v1/segment/second" in each for each in page.requests)


@pytest.mark.parametrize(
    ("name", "content", "text", "again"),
    [
        ("notes.txt", b"just a line of text", "The image is not an image that can be read", False),
        ("empty.png", b"", "The body is empty", False),
        ("broken.mp4", b"no video at all", "This browser cannot play broken.mp4.", True),
    ],
)
def test_a_file_that_is_neither_is_refused_in_words(
    page: Tab, picture: Path, tmp_path: Path, name: str, content: bytes, text: str, again: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    page.choose(tmp_path / name)
    page.page.wait_for_selector("#problem:not([hidden])")
    assert text in page.text("#problem-text")
    assert page.page.is_visible("#again") == again
    page.open(picture)  # and the next one works
    assert not page.page.is_visible("#problem")


def test_a_service_that_has_gone_is_said_and_tried_again(browser: Browser, picture: Path) -> None:
    with served() as service, tab(browser, f"{service.url}/") as page:
        page.open(picture)
        page.page.context.set_offline(True)
        page.choose(picture)
        page.page.wait_for_selector("text=The service did not answer. Is it still running?")
        page.page.context.set_offline(False)
        page.page.click("#again")
        page.wait_for_still()
        assert not page.page.is_visible("#problem")


def test_a_lost_stream_is_said(browser: Browser) -> None:
    with served() as service, tab(browser, f"{service.url}/") as page:
        page.page.click("#webcam")
        page.wait_for_live()
        service.server.should_exit = True
        page.page.wait_for_selector("#problem:not([hidden])")
        assert page.text("#problem-text")


# People


def test_everything_is_reached_and_used_by_keys_alone(page: Tab, picture: Path, labels: NDArray[np.uint8]) -> None:
    keyboard = page.page.keyboard
    page.page.on("filechooser", lambda chooser: chooser.set_files(picture))

    def walk_to(wanted: str) -> None:
        for _ in range(60):
            keyboard.press("Tab")
            if page.page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
                return
        raise AssertionError(f"Tab never comes to {wanted}")

    walk_to("#choose")
    keyboard.press("Enter")
    page.wait_for_still()
    walk_to("#view")
    keyboard.press("ArrowRight")
    keyboard.press("Shift+ArrowDown")
    assert page.text("#tip").startswith(SPEC.classes[labels[36, 47]])
    keyboard.press("Escape")
    assert not page.page.is_visible("#tip")
    walk_to("input[name=mode]")
    keyboard.press("ArrowRight")
    assert page.page.is_visible("#photo")
    keyboard.press("ArrowRight")
    walk_to("#opacity")
    keyboard.press("End")
    walk_to("#swipe")
    keyboard.press("Home")
    np.testing.assert_array_equal(page.pixels(), np.asarray(SPEC.palette, np.uint8)[labels])
    walk_to("#legend button")
    keyboard.press("Space")
    assert (page.pixels() == FRAME).all(axis=2).any()
    for button in ("#get-labels", "#get-overlay", "#get-polygons", "#get-csv"):
        walk_to(button)
        with page.page.expect_download():
            keyboard.press("Enter")


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_phone_need_not_scroll_sideways(browser: Browser, service: Served, picture: Path, width: int) -> None:
    with tab(browser, f"{service.url}/", viewport={"width": width, "height": 800}, has_touch=True) as page:
        for step in (lambda: None, lambda: page.open(picture), lambda: page.page.check("input[value=beside]")):
            step()
            assert page.page.evaluate("document.documentElement.scrollWidth") == width
        page.page.check("input[value=swipe]")
        page.page.click("#webcam")
        page.wait_for_live()
        assert page.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, picture: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: make test-services").Axe()

    def check(page: Tab) -> None:
        found = axe.run(page.page).response["violations"]
        assert [(each["id"], each["impact"], [node["target"] for node in each["nodes"]]) for each in found] == []

    options = {"color_scheme": scheme, "bypass_csp": True, "reduced_motion": "reduce"}  # axe's script is not one of the service's
    with served(access=Access((KEY,), local=False)) as service, tab(browser, f"{service.url}/", **options) as page:
        check(page)
        page.page.fill("#key", KEY)
        page.page.keyboard.press("Enter")
        page.page.wait_for_selector("#key-form", state="hidden")
        page.open(picture)
        page.page.locator("#legend button").first.click()
        page.page.check("input[value=swipe]")
        page.point_at(40, 30)
        check(page)
        page.page.check("input[value=beside]")
        page.page.click("#webcam")
        page.wait_for_live()
        check(page)


def test_the_page_follows_the_dark_scheme(browser: Browser, service: Served) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        with tab(browser, f"{service.url}/", color_scheme=scheme) as page:
            colour = page.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            grounds.append(sum(map(int, colour[4:-1].split(","))))
    assert grounds[0] > 600 > 150 > grounds[1]
