"""The benchmark of public models: its list, its pictures, and that the kept results are of the models that it names."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rtformer_deploy.errors import ModelError
from rtformer_deploy.files import sha256


@pytest.fixture
def foreign(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(root / "benchmarks")
    yield importlib.import_module("foreign")
    for name in ("foreign", "public_models", "harness"):
        sys.modules.pop(name, None)


def test_the_kept_rows_are_of_the_models_that_are_named(foreign: ModuleType, root: Path) -> None:
    named = {model.name: model for model in foreign.MODELS}
    assert len(named) == len(foreign.MODELS)
    assert all(re.fullmatch("[0-9a-f]{64}", model.sha256) and model.source and model.licence for model in foreign.MODELS)
    rows = json.loads((root / "benchmarks" / "results" / "foreign.json").read_text())["models"]
    assert {(name, row["sha256"]) for name, row in rows.items()} <= {(model.name, model.sha256) for model in foreign.MODELS}
    built = [row for row in rows.values() if "engines" in row]
    assert len(built) >= 10
    assert {name for row in built for name in row["engines"]} == {f"{b} {p}" for b in foreign.BACKENDS for p in foreign.PRECISIONS}


def test_a_file_that_is_not_the_one_named_is_an_error(foreign: ModuleType, tmp_path: Path) -> None:
    model = foreign.MODELS[0]
    assert not foreign.is_there(tmp_path / "m.onnx", model)
    (tmp_path / "m.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match="is not the file of"):
        foreign.is_there(tmp_path / "m.onnx", model)
    assert foreign.is_there(tmp_path / "m.onnx", replace(model, sha256=sha256(b"another")))


def test_pages_are_drawn_and_pictures_are_shared_out(foreign: ModuleType, tmp_path: Path) -> None:
    page = foreign.drawn_page((160, 120), 3)
    np.testing.assert_array_equal(page, foreign.drawn_page((160, 120), 3))
    assert (page.min() < 120) & (page.max() >= 200)
    reading = next(model for model in foreign.MODELS if model.pictures == "pages")
    measured, compared = foreign.lay_pictures(reading, tmp_path, tmp_path)
    assert (len(list(measured.iterdir())), len(list(compared.iterdir()))) == (foreign.MEASURED, foreign.COMPARED)
