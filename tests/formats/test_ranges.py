"""Ranges as a file: what is written comes back, files of earlier versions too, with the hash that they had then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from helpers import Batch, tiny_model, tiny_spec

from rtformer_deploy.errors import CalibrationError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.model_file import weights_sha256
from rtformer_deploy.formats.preprocessing import preprocessing
from rtformer_deploy.formats.ranges import check_ranges, load_ranges, ranges_hash, save_ranges, to_bytes
from rtformer_deploy.types import Ranges

RANGES = Ranges({"input": 2.5, "conv0": 0.0}, "mse", 3, "ab" * 32, "tiny")
OTHER = replace(RANGES, mean=(0.5, 0.5, 0.25), std=(1.0, 0.5, 0.5), resize="letterbox")
#: The hash of calibration/rtformer-slim-camvid.json, which sidecars and recipes name: no later version of the file may change it.
SHIPPED = "d847d0a8af070d76a4ccd2421e3d095d80ceb1529f7c8d07a9bf07c4d4cc3db3"


@pytest.mark.parametrize("ranges", [RANGES, OTHER])
def test_ranges_come_back_as_they_were(tmp_path: Path, ranges: Ranges) -> None:
    said: list[str] = []
    save_ranges(ranges, tmp_path / "ranges.json")
    again = load_ranges(tmp_path / "ranges.json", said.append)
    assert (again, ranges_hash(again), said) == (ranges, ranges_hash(ranges), [])
    data = json.loads((tmp_path / "ranges.json").read_text())
    assert (data["version"], data["weights_sha256"]) == (2, "ab" * 32)
    assert (data["mean"], data["resize"]) == (list(ranges.mean), ranges.resize)


def test_the_shipped_ranges_are_of_this_version_and_keep_their_hash(root: Path) -> None:
    said: list[str] = []
    path = root / "calibration" / "rtformer-slim-camvid.json"
    ranges = load_ranges(path, said.append)
    assert (said, ranges_hash(ranges)) == ([], SHIPPED)
    assert path.read_bytes() == to_bytes(ranges)


@pytest.mark.parametrize("key", ["weights_sha256", "model_sha256"])
def test_version_1_is_read_keeps_its_hash_and_says_what_is_assumed(tmp_path: Path, key: str) -> None:
    path, said = tmp_path / "ranges.json", list[str]()
    text = version_1(path, key)
    ranges = load_ranges(path, said.append)
    assert ranges == RANGES
    assert said == [
        f"{path} is of version 1, which does not record the preprocessing; "
        "mean 0.485,0.456,0.406, std 0.229,0.224,0.225 and resize stretch are assumed."
    ]
    assert (ranges_hash(ranges) == sha256(text.encode())) == (key == "model_sha256")  # the name that it had then
    save_ranges(ranges, path)
    assert load_ranges(path, said.append) == ranges
    assert len(said) == 1


def version_1(path: Path, key: str = "model_sha256") -> str:
    """Writes RANGES as version 1 did."""
    data = {"amax": dict(RANGES.amax), "method": "mse", "images": 3, key: "ab" * 32, "model": "tiny"}
    text = json.dumps(data, indent=1, sort_keys=True) + "\n"
    path.write_text(text)
    return text


def test_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "ranges.json").write_text('{"version": 4, "unknown": []}')
    with pytest.raises(CalibrationError, match=r"ranges\.json is a ranges file of version 4; this rtformer-deploy reads versions 1 to 3"):
        load_ranges(tmp_path / "ranges.json")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"weights_sha256": None}, "it has no weights_sha256"),
        ({"mean": None}, "it has no mean"),
        ({"version": "2"}, "version is '2'; expected a whole number, at least 1"),
        ({"version": True}, "version is true"),
        ({"version": 0}, "version is 0"),
        ({"std": [1, 1, 0]}, r"std\[2\] is 0; expected a number, at least 1e-06"),
        ({"mean": [1, float("nan"), 0]}, "it is not JSON: invalid character"),
        ({"mean": 0.5}, "mean is 0.5; expected a list"),
        ({"mean": [0.5]}, "mean is a list of 1 value; expected 3 values"),
        ({"resize": "crop"}, "resize is 'crop'; expected one of letterbox, stretch"),
        ({"amax": [1.0]}, "amax is a list of 1 value; expected a table"),
        ({"amax": {}}, "amax is a table of 0 keys; expected at least 1 value"),
        ({"amax": {"a": 1, "conv.1": -1, "z": 2}}, r"amax\['conv.1'\] is -1; expected a number, at least 0"),
        ({"amax": {"a": 1, "b": 1e39}}, "amax.b is 1e.39; expected a number, at most"),
        ({"images": 1.5}, "images is 1.5; expected a whole number"),
        ({"colour": 3}, "it has keys that mean nothing: colour"),
        ({"weights_sha256": "ab" * 31}, "expected 64 hexadecimal digits"),
    ],
)
def test_a_file_that_does_not_say_what_it_must_is_refused(tmp_path: Path, values: dict[str, object], why: str) -> None:
    data = {**json.loads(to_bytes(RANGES)), **values}
    (tmp_path / "ranges.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    with pytest.raises(CalibrationError, match=rf"ranges\.json is not a ranges file: .*{why}"):
        load_ranges(tmp_path / "ranges.json")


def test_ranges_belong_to_weights() -> None:
    spec = tiny_spec()
    check_ranges(RANGES, spec, "ab" * 32)
    with pytest.raises(CalibrationError, match=r"other weights or another configuration \(tiny, abababababab\); the model is tiny, cdcd"):
        check_ranges(RANGES, spec, "cd" * 32)


@pytest.mark.parametrize("values", [{"mean": (0.5, 0.5, 0.25)}, {"std": (1.0, 0.5, 0.5)}, {"resize": "letterbox"}])
def test_ranges_belong_to_a_preprocessing_and_the_message_names_both(values: dict[str, Any]) -> None:
    spec = replace(tiny_spec(), **values)
    check_ranges(replace(RANGES, **values), spec, "ab" * 32)
    assert ranges_hash(replace(RANGES, **values)) != ranges_hash(RANGES)
    with pytest.raises(CalibrationError) as caught:
        check_ranges(RANGES, spec, "ab" * 32)
    assert caught.value.what == f"These ranges were measured with {preprocessing(RANGES)}; the model tiny takes {preprocessing(spec)}."
    assert preprocessing(spec) != preprocessing(RANGES)


def test_the_hash_of_weights_is_the_specs_own_or_the_models() -> None:
    model, spec = tiny_model(), tiny_spec()
    assert weights_sha256(model, replace(spec, sha256="ef" * 32)) == "ef" * 32
    assert weights_sha256(model, spec) == weights_sha256(tiny_model(), spec)
    assert weights_sha256(model, spec) != weights_sha256(tiny_model(seed=1), spec)


def test_the_hash_of_a_model_from_elsewhere_does_not_depend_on_its_shapes_and_remarks() -> None:
    spec, hashes = tiny_spec(), set[str]()
    shapes: list[tuple[Batch, tuple[int, int]]] = [(1, (64, 96)), ("batch", (64, 96)), (2, (128, 160))]
    for batch, size in shapes:
        model = tiny_model(batch, size=size)
        model.producer_name, model.doc_string = "another tool", f"for {size}"
        hashes.add(weights_sha256(model, spec))
    assert hashes == {weights_sha256(tiny_model(), spec)}


def test_the_hash_of_a_model_from_elsewhere_depends_on_its_operators() -> None:
    spec, model = tiny_spec(), tiny_model()
    whole = weights_sha256(model, spec)
    node = next(node for node in model.graph if node.op_type == "Conv")
    node.attributes["strides"] = ir.AttrInt64s("strides", [1, 1])
    assert weights_sha256(model, spec) != whole
