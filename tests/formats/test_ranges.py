"""Ranges as a file: what is written comes back, files of earlier versions too, with the hash that they had then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import tiny_model, tiny_spec

from rtformer_deploy.errors import CalibrationError
from rtformer_deploy.files import sha256
from rtformer_deploy.formats.model_file import serialize_model, weights_sha256
from rtformer_deploy.formats.ranges import check_ranges, load_ranges, ranges_hash, save_ranges
from rtformer_deploy.types import Ranges

RANGES = Ranges({"input": 2.5, "conv0": 0.0}, "mse", 3, "ab" * 32, "tiny")


def test_ranges_come_back_under_the_new_name_of_the_field(tmp_path: Path) -> None:
    save_ranges(RANGES, tmp_path / "ranges.json")
    assert load_ranges(tmp_path / "ranges.json") == RANGES
    data = json.loads((tmp_path / "ranges.json").read_text())
    assert data["weights_sha256"] == "ab" * 32
    assert "model_sha256" not in data


def test_a_file_of_an_earlier_version_is_read_and_keeps_its_hash(root: Path, tmp_path: Path) -> None:
    shipped = root / "calibration" / "rtformer-slim-camvid.json"
    assert '"model_sha256"' in shipped.read_text()
    ranges = load_ranges(shipped)
    assert ranges_hash(ranges) == sha256(shipped.read_bytes())
    save_ranges(ranges, tmp_path / "ranges.json")
    again = load_ranges(tmp_path / "ranges.json")
    assert again == ranges
    assert ranges_hash(again) == ranges_hash(ranges)


def test_a_file_that_names_no_weights_is_refused(tmp_path: Path) -> None:
    data = RANGES.to_json()
    del data["weights_sha256"]
    (tmp_path / "ranges.json").write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match=r"ranges\.json is not a ranges file"):
        load_ranges(tmp_path / "ranges.json")


def test_ranges_belong_to_weights(tmp_path: Path) -> None:
    check_ranges(RANGES, "tiny", "ab" * 32)
    with pytest.raises(CalibrationError, match=r"other weights or another configuration \(tiny, abababababab\); the model is large, cdcd"):
        check_ranges(RANGES, "large", "cd" * 32)


def test_the_hash_of_weights_is_the_specs_own_or_the_models() -> None:
    model, spec = tiny_model(), tiny_spec()
    assert weights_sha256(model, spec) == sha256(serialize_model(model))
    assert weights_sha256(model, replace(spec, sha256="ef" * 32)) == "ef" * 32
