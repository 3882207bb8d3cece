"""/v1 over a real uvicorn: what `segment` writes comes back, and everything that is wrong is refused in one way."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from helpers import frames, tiny_spec
from PIL import Image
from segmenting import segment
from served import Served, jpeg, open_tiny, pixels, served

from rtformer_deploy.commands.segment import plan_jobs
from rtformer_deploy.image.confidence import confidence_map
from rtformer_deploy.image.decode import decode_image
from rtformer_deploy.image.legend import draw_legend
from rtformer_deploy.serve.engine_host import EngineHost

PICTURE = jpeg(frames((70, 90))[0])
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served() as running:
        yield running


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `segment` writes for the picture."""
    folder = tmp_path_factory.mktemp("segment")
    (folder / "a.jpg").write_bytes(PICTURE)
    with open_tiny() as runner:
        list(segment(runner, plan_jobs([folder / "a.jpg"], folder), folder))
    return folder


def post(service: Served, body: bytes = PICTURE, query: str = "", headers: dict[str, str] | None = None) -> httpx.Response:
    return service.client.post(f"/v1/segment{query}", content=body, headers=JPEG if headers is None else headers)


def refused(answer: httpx.Response, status: int, error: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert error in answer.json()["error"]


@pytest.mark.parametrize(("output", "name"), [("labels", "a_labels.png"), ("overlay", "a_overlay.png")])
def test_the_answer_is_what_segment_writes(service: Served, written: Path, output: str, name: str) -> None:
    answer = post(service, query=f"?output={output}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(pixels(answer.content), pixels((written / name).read_bytes()))
    if output == "labels":
        assert post(service).content == answer.content
    assert b"rtformer-deploy" in answer.content[:200]  # marked, so that folders of pictures are read without it
    assert {"queue", "compute_infer"} <= {part.split(";")[0].strip() for part in answer.headers["server-timing"].split(",")}


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "application/octet-stream", "IMAGE/JPEG; x=1", None])
def test_the_body_may_have_any_pictures_type_or_none(service: Served, written: Path, kind: str | None) -> None:
    answer = post(service, headers={} if kind is None else {"Content-Type": kind})
    np.testing.assert_array_equal(pixels(answer.content), pixels((written / "a_labels.png").read_bytes()))


def test_a_form_brings_the_picture_as_its_field_image(service: Served, written: Path) -> None:
    answer = service.client.post("/v1/segment", files={"image": ("../../etc/passwd", PICTURE, "text/plain")})
    np.testing.assert_array_equal(pixels(answer.content), pixels((written / "a_labels.png").read_bytes()))


def test_a_turned_photograph_is_segmented_upright(service: Served, root: Path) -> None:
    data = (root / "models" / "samples" / "street.jpg").read_bytes()
    with Image.open(root / "models" / "samples" / "street.jpg") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        turned = io.BytesIO()
        image.resize((64, 40)).save(turned, "JPEG", exif=exif)
    assert pixels(post(service, turned.getvalue()).content).shape == (64, 40)
    assert pixels(post(service, data).content).shape == (600, 800)


def test_json_tells_each_class_share_and_what_is_asked_for_beside(service: Served, written: Path) -> None:
    labels = pixels((written / "a_labels.png").read_bytes())
    answer = post(service, query="?output=json&include=polygons&include=confidence&include=labels").json()
    assert (answer["model"], answer["height"], answer["width"]) == ("tiny", 70, 90)
    assert [each["name"] for each in answer["classes"]] == list(tiny_spec().classes)
    assert [each["pixels"] for each in answer["classes"]] == np.bincount(labels.ravel(), minlength=5).tolist()
    assert sum(each["share"] for each in answer["classes"]) == pytest.approx(1)
    assert sum(each["properties"]["area"] for each in answer["polygons"]["features"]) == 70 * 90
    np.testing.assert_array_equal(pixels(base64.b64decode(answer["labels"])), labels)
    assert "overlay" not in answer
    frame = decode_image(PICTURE)
    with open_tiny() as runner:
        levels = confidence_map(runner.logits([frame])[0], (70, 90), runner.spec.size)
    np.testing.assert_array_equal(pixels(base64.b64decode(answer["confidence"])), levels)
    np.testing.assert_array_equal(pixels(post(service, query="?output=confidence").content), levels)


def test_an_overlay_may_have_a_legend_and_another_weight(service: Served, written: Path) -> None:
    frame, labels = decode_image(PICTURE), pixels((written / "a_labels.png").read_bytes())
    np.testing.assert_array_equal(pixels(post(service, query="?output=overlay&alpha=0").content), frame)
    spec = tiny_spec()
    drawn = draw_legend(pixels((written / "a_overlay.png").read_bytes()), labels, spec.classes, spec.palette)
    np.testing.assert_array_equal(pixels(post(service, query="?output=overlay&legend=true").content), drawn)


def test_an_overlay_may_leave_classes_out(service: Served, written: Path) -> None:
    frame, labels = decode_image(PICTURE), pixels((written / "a_labels.png").read_bytes())
    ids = np.unique(labels).tolist()
    hidden = ids[:2]
    shown = pixels(post(service, query=f"?output=overlay&hide={hidden[0]}&hide={hidden[1]}").content)
    there = np.isin(labels, hidden)
    np.testing.assert_array_equal(shown[there], frame[there])
    np.testing.assert_array_equal(shown[~there], pixels((written / "a_overlay.png").read_bytes())[~there])
    refused(post(service, query="?output=overlay&hide=5"), 400, "There is no class 5 to hide.")
    refused(post(service, query="?output=overlay&hide=-1"), 400, "hide")


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and holds no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I4s", 0, b"IDAT")


BOMB = png_of(100_000, 100_000)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "The body is empty"),
        (b"just a line of text", 400, "The image is not an image that can be read"),
        (PICTURE[: len(PICTURE) // 2], 400, "The image is damaged or cut off"),
        (b"GIF89a" + bytes(50), 400, "it is GIF"),
        (bytes.fromhex("1f8b0800000000000203") + bytes(100), 400, "not an image that can be read"),
        (BOMB, 413, "at most 33,554,432 pixels are decoded"),
    ],
    ids=["empty", "text", "cut off", "gif", "gzip file", "100,000 x 100,000 pixels"],
)
def test_a_body_that_is_no_picture(service: Served, body: bytes, status: int, error: str) -> None:
    refused(post(service, body), status, error)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/svg+xml", "application/json", "odd"])
def test_a_body_of_another_type(service: Served, kind: str) -> None:
    refused(post(service, headers={"Content-Type": kind}), 415, "not of a type that a picture has")


@pytest.mark.parametrize(
    ("body", "kind", "error"),
    [
        (b"", "multipart/form-data", "The form cannot be read"),
        (b"--x--", "multipart/form-data; boundary=x", "The form has no file image"),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\ntext\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "has no file image",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "is empty",
        ),
        (b"\xff" * 50, "multipart/form-data; boundary=x", "The form cannot be read"),
    ],
    ids=["no boundary", "nothing", "a field that is no file", "an empty file", "not a form"],
)
def test_a_form_without_a_picture(service: Served, body: bytes, kind: str, error: str) -> None:
    refused(post(service, body, headers={"Content-Type": kind}), 400, error)


@pytest.mark.parametrize("query", ["?output=logits", "?alpha=2", "?alpha=nan", "?legend=maybe", "?include=everything"])
def test_a_wrong_parameter(service: Served, query: str) -> None:
    refused(post(service, query=query), 400, f"The request is wrong: {query[1:].split('=')[0]}")


def test_wrong_addresses_and_methods(service: Served) -> None:
    refused(service.client.get("/nowhere"), 404, "nothing at this address")
    refused(service.client.get("/v1/../../etc/passwd"), 404, "nothing at this address")
    refused(service.client.get("/%2e%2e/%2e%2e/etc/passwd"), 404, "nothing at this address")
    refused(service.client.post("/v1/segment/other", content=PICTURE, headers=JPEG), 404, "no model of that name")
    answer = service.client.get("/v1/segment")
    refused(answer, 405, "does not take this method")
    assert answer.headers["allow"] == "POST"


def test_several_models_have_addresses_of_their_own(written: Path) -> None:
    hosts = EngineHost("one", open_tiny), EngineHost("two", lambda: open_tiny("labels"))
    with served(*hosts) as service:
        refused(post(service), 404, "Several models are served here")
        assert post(service).json()["hint"] == "Use /v1/segment/one, /v1/segment/two."
        one, two = (post(service, query=f"/{name}") for name in ("one", "two"))
        np.testing.assert_array_equal(pixels(one.content), pixels((written / "a_labels.png").read_bytes()))
        assert two.status_code == 200
        refused(post(service, query="/two?output=confidence"), 400, "gives labels only")
        models = service.client.get("/v1/models").json()
        assert [(model["name"], model["confidence"]) for model in models] == [("one", True), ("two", False)]
        assert models[0]["classes"][1] == {"id": 1, "name": "class1", "colour": [0, 128, 0]}


def test_the_openapi_document_describes_every_answer(service: Served) -> None:
    document = service.client.get("/openapi.json").json()
    segment = document["paths"]["/v1/segment"]["post"]
    assert {"200", "400", "408", "413", "415", "429", "503", "504"} <= segment["responses"].keys()
    assert "422" not in json.dumps(document["paths"])
    assert {"image/jpeg", "multipart/form-data"} <= segment["requestBody"]["content"].keys()
    for reference in set(_references(document)):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_the_page_and_its_files_are_served_with_headers_that_allow_nothing_else(service: Served) -> None:
    page = service.client.get("/")
    assert page.status_code == 200
    assert '<script type="module" src="js/main.js">' in page.text
    for name in ("js/main.js", "icon.svg", "style.css", "index.html"):
        assert service.client.get(f"/{name}").status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "img-src 'self' blob: data:" in policy
    assert "http" not in policy
    for answer in (page, post(service), service.client.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    again = service.client.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
