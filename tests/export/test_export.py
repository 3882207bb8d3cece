"""Exports agree with the network, at the sizes where other converters do not; those that do not agree are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from exports import exported, network
from onnx_parts import constant, run_model

from rtformer_deploy.errors import ModelError, UsageError, WeightsError
from rtformer_deploy.export.parity import check_export
from rtformer_deploy.export.weights_choice import choose_network
from rtformer_deploy.formats.model_file import parse_model, read_spec, serialize_model
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.pipeline import export_model
from rtformer_deploy.types import Head


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "size"), [("slim", (512, 1024)), ("slim", (1024, 2048)), ("base", (512, 1024))])
def test_agrees_at_the_sizes_where_a_fixed_stride_pool_does_not(variant: str, size: tuple[int, int]) -> None:
    assert exported(variant, size).parity.difference <= 1e-4


@pytest.mark.parametrize("size", [(360, 480), (96, 160), (100, 150)])
def test_agrees_at_sizes_that_divide_by_little(size: tuple[int, int]) -> None:
    made = exported(size=size)
    assert made.parity.difference <= 1e-4
    assert made.spec.output.shape == (1, 19, -(-size[0] // 8), -(-size[1] // 8))
    assert tuple(made.model.graph.outputs[0].shape or ()) == made.spec.output.shape


def test_the_golden_weights_give_the_golden_logits_through_the_file(shared: Path) -> None:
    choice = choose_network(recipe="rtformer-slim-cityscapes", weights=shared / "golden" / "slim.pdparams")
    reference = np.load(shared / "golden" / "slim_1x3x256x512.npz")
    made = export_model(choice.network, choice.recipe.spec(size=(256, 512)))
    logits = run_model(made.model, reference["input"])
    assert np.abs(logits - reference["logits_lowres"]).max() < 3e-5 * np.abs(logits).max()


def test_a_dynamic_batch_runs_one_and_three() -> None:
    made = exported(batch="batch")
    images = np.random.default_rng(0).standard_normal((3, 3, 128, 256)).astype(np.float32)
    together = run_model(made.model, images)
    assert together.shape == (3, 19, 16, 32)
    apart = np.concatenate([run_model(made.model, images[index : index + 1]) for index in range(3)])
    assert np.abs(together - apart).max() < 1e-4 * np.abs(together).max()


@pytest.mark.parametrize(("head", "shape", "dtype"), [("logits", (1, 19, 128, 256), np.float32), ("labels", (1, 128, 256), np.uint8)])
def test_heads(head: Head, shape: tuple[int, ...], dtype: type) -> None:
    made = exported(head=head)
    image = np.random.default_rng(0).standard_normal((1, 3, 128, 256)).astype(np.float32)
    given = run_model(made.model, image)
    assert given.shape == shape
    assert given.dtype == dtype
    assert (made.spec.output.shape, made.spec.output.name) == (shape, head)


def test_the_spec_travels_in_the_file() -> None:
    made = exported()
    assert read_spec(parse_model(serialize_model(made.model))) == made.spec
    assert made.spec.arch["cross_size"] == 12
    assert made.spec.sha256 == network().sha256


def test_an_export_that_differs_is_refused_and_says_where() -> None:
    made = exported()
    broken = parse_model(serialize_model(made.model))
    name = "layer4.compression.2.weight"
    array = constant(broken.graph.initializers[name])
    broken.graph.initializers[name].const_value = ir.tensor(array * 1.01, name=name)
    with pytest.raises(ModelError, match=r"first differ at layer4\.compression\.2"):
        check_export(network().network, broken, made.spec)


@pytest.mark.parametrize("attention", ["ea", "mhea"])
def test_the_other_attentions_export(attention: str, tmp_path: Path, root: Path) -> None:
    text = (root / "models" / "rtformer-slim-camvid.toml").read_text().replace('attention = "gfa"', f'attention = "{attention}"')
    text = text.replace('dataset = "camvid"', f'dataset = "{(root / "models" / "datasets" / "camvid.toml").as_posix()}"')
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("[weights]", "file =", "sha256 =")))
    (tmp_path / "mine.toml").write_text(text)
    choice = choose_network(recipe=str(tmp_path / "mine.toml"), random_seed=0)
    made = export_model(choice.network, choice.recipe.spec(size=(96, 160)))
    assert made.parity.difference <= 1e-4


def test_random_weights_are_seeded() -> None:
    hashes = [choose_network(recipe="rtformer-slim-cityscapes", random_seed=seed).sha256 for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_choices_that_exclude_each_other() -> None:
    with pytest.raises(UsageError):
        choose_network(recipe="rtformer-slim-camvid", variant="slim", random_seed=0)
    with pytest.raises(UsageError):
        choose_network(variant="slim", weights=Path("x.safetensors"), random_seed=0)


def test_weights_with_other_classes_say_how_many(shared: Path) -> None:
    with pytest.raises(WeightsError, match=r"gives 19 classes; 150 were asked for") as error:
        choose_network(recipe="rtformer-slim-ade20k", weights=shared / "golden" / "slim.pdparams")
    assert "--num-classes 19" in str(error.value)


def test_num_classes_gives_numbered_labels() -> None:
    choice = choose_network(recipe="rtformer-slim-cityscapes", classes=4, random_seed=0)
    assert choice.labels.names == ("class0", "class1", "class2", "class3")
    with torch.no_grad():
        assert choice.network(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 8, 8)


def test_a_variant_takes_the_recipe_whose_weights_are_shipped_and_says_so() -> None:
    said: list[str] = []
    choice = choose_network(variant="slim", say=said.append)
    assert choice.recipe.name == "rtformer-slim-camvid"
    assert choice.origin == "rtformer-slim-camvid.safetensors.xz"
    assert said == ["Taking the recipe rtformer-slim-camvid, whose weights are shipped."]


def test_random_weights_only_where_they_are_asked_for() -> None:
    with pytest.raises(WeightsError, match="No weights are shipped for rtformer-base-cityscapes") as error:
        choose_network(variant="base")
    assert "--random-weights" in str(error.value)
    assert choose_network(variant="slim", random_seed=0).recipe.name == "rtformer-slim-cityscapes"


def test_shipped_weights_that_were_changed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(load_recipe("rtformer-slim-camvid"), weights_sha256="0" * 64)
    monkeypatch.setattr("rtformer_deploy.export.weights_choice.load_recipe", lambda _name: recipe)
    with pytest.raises(WeightsError, match="its SHA-256 differs"):
        choose_network(recipe="rtformer-slim-camvid")
