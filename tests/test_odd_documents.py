"""Mutated documents of every kind, seeded: each is read as a valid value or refused with one DeployError, quickly; never anything else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import tiny_model, tiny_spec
from hypothesis import given
from odd_documents import bounded, other_text, other_values
from PIL import Image

from rtformer_deploy.datasets import open_dataset
from rtformer_deploy.errors import DeployError
from rtformer_deploy.formats.engine_file import load_info, save_info, sidecar
from rtformer_deploy.formats.model_file import SPEC_KEY, read_spec, stamp_notes, stamp_spec
from rtformer_deploy.formats.names import is_name
from rtformer_deploy.formats.ranges import load_ranges, save_ranges, to_bytes
from rtformer_deploy.formats.recipe import load_labels, load_recipe
from rtformer_deploy.formats.suite_file import load_suite
from rtformer_deploy.formats.weights_file import recipe_in, weights_metadata
from rtformer_deploy.image.reader import ImageReader
from rtformer_deploy.nn import build_network
from rtformer_deploy.training.checkpoint import KEY, read
from rtformer_deploy.training.log import read_log
from rtformer_deploy.tuning.journal import Journal
from rtformer_deploy.types import Candidate, EngineInfo, ModelSpec, PrecisionFound, Ranges

SECONDS = 5
MODEL = tiny_model("batch")
SPEC = tiny_spec("batch")
INFO = EngineInfo(
    spec=SPEC,
    backend="openvino",
    inputs=(SPEC.input,),
    outputs=(SPEC.output,),
    batch=(1, 2, 4),
    precision=PrecisionFound("fp16", "verified", {"fp16": 3}, "read from the layers"),
    builder_version="2026.1",
    gpu=None,
    plan_sha256="ab" * 32,
    model_sha256="cd" * 32,
    flips=0.01,
    options={"strict": True, "workspace_mib": None},
    notes=("a note",),
    candidates=(Candidate("fp32", "kept", "1.50 times FP16's time", 3.0, 0.0), Candidate("fp16", "chosen", "the fastest", 2.0, 0.01)),
)
RANGES = Ranges({"input": 2.5, "conv0": 0.0}, "mse", 3, "ab" * 32, "tiny")
JOURNAL = [
    {"kind": "run", "identity": {"model": "1", "limit": 8}},
    {"kind": "point", "key": "0123456789ab", "name": "FP32", "levels": {"a": "fp32", "rest": "fp32"}, "miou": 0.7},
    {"kind": "error", "block": "a", "level": "int8", "error": 0.3, "flips": 0.01},
    {"kind": "round", "latencies": {"0123456789ab": [10.5, 12.0]}},
]
LOG = [
    {"kind": "start", "step": 0, "recipe": "small", "time": "2026-01-01T00:00:00Z"},
    {"kind": "step", "step": 1, "loss": 1.5, "lr": 0.01},
    {"kind": "scores", "step": 1, "scores": {"val": {"miou": 0.5, "iou": {"sky": None}}}},
]
WEIGHTS = {"version": 1, **json.loads(json.dumps(SPEC.to_json())), "dataset": "camvid", "ignore_index": 255}
RECIPE = {
    "version": 1,
    "name": "mine",
    "dataset": "camvid",
    "architecture": {"name": "rtformer", "base_channels": 32, "injection": [True, True], "drop_path": 0.2},
    "input": {"size": [48, 64], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize": "letterbox"},
    "weights": {"file": "w.safetensors", "sha256": "ab" * 32},
    "build": {"precision": "int8", "keep": ["a.*"], "fp32": ["b"], "ranges": "r.json", "backend": "openvino", "weights_sha256": "cd" * 32},
    "published": {"article": {"miou": 81.4}},
}
DATASET = {
    "name": "own",
    "ignore_index": 7,
    "classes": ["no", "yes"],
    "palette": [[0, 0, 0], [255, 0, 0]],
    "label_pixels": "ids",
    "ignored_colour": [1, 2, 3],
    "layout": {"images": "images/{split}/{name}.png", "labels": "labels/{split}/{name}.png", "splits": {"val": "valid"}},
    "label_map": {"0": 1, "255": 0},
}
ARCH = {
    "name": "rtformer",
    "base_channels": 4,
    "head_channels": 8,
    "spp_channels": 4,
    "heads": 4,
    "cross_size": 4,
    "injection": [True, False],
}

SUITE: dict[str, Any] = {
    "version": 1,
    "title": "Two",
    "labels": "CamVid",
    "size": [64, 128],
    "reference": "a",
    "network": [
        {"name": "a", "recipe": "rtformer-slim-camvid"},
        {"name": "b", "recipe": "rtformer-slim-camvid", "architecture": {"attention": "ea"}},
    ],
}


def check_spec(spec: ModelSpec) -> None:
    assert is_name(spec.name)
    assert 1 <= len(spec.classes) == len(spec.palette) <= 255
    assert all(0 <= value <= 255 for colour in spec.palette for value in colour)
    height, width = spec.size
    assert 0 < height * width <= 2**26
    assert all(0 < value < float("inf") for value in spec.std)


def read_sidecar(folder: Path, text: str) -> None:
    sidecar(folder / "e.plan").write_text(text)
    info = load_info(folder / "e.plan")
    check_spec(info.spec)
    assert 1 <= info.batch[0] <= info.batch[1] <= info.batch[2]
    save_info(info, folder / "e.plan")
    assert load_info(folder / "e.plan") == info


def read_stamp(folder: Path, text: str) -> None:
    MODEL.metadata_props[SPEC_KEY] = text
    spec = read_spec(MODEL)
    assert spec is not None
    assert len(stamp_notes(MODEL)) <= 1
    check_spec(spec)
    stamp_spec(MODEL, spec)
    assert read_spec(MODEL) == spec


def read_ranges(folder: Path, text: str) -> None:
    (folder / "r.json").write_text(text)
    ranges = load_ranges(folder / "r.json", lambda line: None)
    assert ranges.amax
    assert all(0 <= value < float("inf") for value in ranges.amax.values())
    save_ranges(ranges, folder / "r.json")
    assert load_ranges(folder / "r.json") == ranges


def read_journal(folder: Path, text: str) -> None:
    (folder / "journal.jsonl").write_text(text)
    first = Journal(folder / "journal.jsonl", {"model": "1", "limit": 8}, True)
    assert Journal(folder / "journal.jsonl", {"model": "1", "limit": 8}, True).records == first.records


def read_training_log(folder: Path, text: str) -> None:
    (folder / "log.jsonl").write_text(text)
    assert all(record["step"] >= 0 for record in read_log(folder / "log.jsonl") if "step" in record)


def make_network(folder: Path, text: str) -> None:
    values = json.loads(text)
    build_network(values if isinstance(values, dict) else {"name": values}, 3, aux=False)


def read_recipe(folder: Path, text: str) -> None:
    (folder / "recipe.toml").write_text(text)
    recipe = load_recipe(str(folder / "recipe.toml"))
    check_spec(recipe.spec())
    assert recipe.labels == load_labels(recipe.dataset)


def read_dataset(folder: Path, text: str) -> None:
    (folder / "own.toml").write_text(text)
    dataset = open_dataset(str(folder / "own.toml"), folder / "data", "val", ImageReader(say=lambda line: None))
    assert is_name(dataset.name)
    assert 1 <= len(dataset.labels.names) == len(dataset.labels.palette) <= dataset.labels.ignore_index
    assert all(path.resolve().is_relative_to(folder / "data") for sample in dataset.samples for path in (sample.image, sample.label))
    for index in range(len(dataset)):
        dataset.load(index)


def read_suite(folder: Path, text: str) -> None:
    (folder / "suite.toml").write_text(text)
    suite = load_suite(str(folder / "suite.toml"))
    names = [network.name for network in suite.networks]
    assert all(is_name(name) for name in names)
    assert suite.reference in names
    assert len({name.casefold() for name in names}) == len(names)


def read_weights(folder: Path, text: str) -> None:
    recipe = recipe_in({SPEC_KEY: text}, "w.safetensors")
    assert recipe is not None
    check_spec(recipe.spec())
    assert len(recipe.labels.names) <= recipe.labels.ignore_index <= 255
    assert recipe_in(weights_metadata(recipe), "w") == recipe


def read_checkpoint(folder: Path, text: str) -> None:
    (folder / "c.safetensors").write_bytes(safetensors.torch.save({"network/a": torch.ones(1)}, {KEY: text}))
    tensors, meta = read(folder / "c.safetensors")
    assert (list(tensors), meta.step >= 0) == (["network/a"], True)


def toml(values: Any) -> str:
    """A key to a line; JSON's texts and numbers are TOML's. (tomlkit takes minutes for a list of lists.)"""
    table = values if isinstance(values, dict) else {"values": values}
    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in table.items())


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(each)}" for key, each in value.items()) + "}"
    return "[" + ", ".join(map(inline, value)) + "]" if isinstance(value, list) else json.dumps(value)


Reader = Callable[[Path, str], None]
#: kind -> a valid document as plain values, their text, and what reads the text
KINDS: dict[str, tuple[Any, Callable[[Any], str], Reader]] = {
    "sidecar": ({"version": 1, **json.loads(json.dumps(INFO.to_json()))}, json.dumps, read_sidecar),
    "stamp": ({"version": 1, **json.loads(json.dumps(SPEC.to_json()))}, json.dumps, read_stamp),
    "ranges": (json.loads(to_bytes(RANGES)), json.dumps, read_ranges),
    "journal": (JOURNAL, lambda lines: "".join(json.dumps(line) + "\n" for line in lines), read_journal),
    "log": (LOG, lambda lines: "".join(json.dumps(line) + "\n" for line in lines), read_training_log),
    "recipe": (RECIPE, toml, read_recipe),
    "dataset": (DATASET, toml, read_dataset),
    "suite": (SUITE, toml, read_suite),
    "weights": (WEIGHTS, json.dumps, read_weights),
    "checkpoint": ({"version": 1, "step": 3, "run": {"seed": 1}}, json.dumps, read_checkpoint),
    "architecture": (ARCH, json.dumps, make_network),
}
#: What reads its text through another parser than documents have.
VALUES_ONLY = {"architecture"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where documents are written; beside them lie a dataset of one pair, and a picture that no dataset may reach."""
    for name in ("data/images/valid/a.png", "data/labels/valid/a.png", "x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / name)
    return tmp_path


def accepts(kind: str, folder: Path, text: str) -> bool:
    """Whether the document is accepted."""
    begin = time.process_time()
    refused = ""
    try:
        KINDS[kind][2](folder, text)
    except DeployError as error:
        refused = str(error)
    assert time.process_time() - begin < SECONDS
    assert len(refused) < 1500
    assert "Expected `" not in refused
    return not refused


@pytest.mark.parametrize("kind", KINDS)
def test_the_document_itself_is_read(folder: Path, kind: str) -> None:
    document, written, _ = KINDS[kind]
    assert accepts(kind, folder, written(document))


@pytest.mark.parametrize("kind", KINDS)
def test_other_values_are_read_or_refused(folder: Path, kind: str) -> None:
    document, written, _ = KINDS[kind]
    outcomes = set()

    @bounded(90)
    @given(other_values(document))
    def check(values: Any) -> None:
        text = written(values if isinstance(document, dict) or isinstance(values, list) else [values])
        outcomes.add(accepts(kind, folder, text))

    check()
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - VALUES_ONLY))
def test_other_text_is_read_or_refused(folder: Path, kind: str) -> None:
    document, written, _ = KINDS[kind]

    @bounded(50)
    @given(other_text(written(document)))
    def check(text: str) -> None:
        accepts(kind, folder, text)

    check()
