"""SegFormer is the package transformers' own network: its logits, its keys in both forms, its size; and what is said without it."""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import hide
from torch import Tensor, nn

import rtformer_deploy
from rtformer_deploy.commands.import_weights import import_weights
from rtformer_deploy.errors import DeployError, MissingPackageError, RecipeError, WeightsError
from rtformer_deploy.export.weights_choice import choose_network, network_in
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.formats.weights_file import recipe_in
from rtformer_deploy.nn import architecture_row, build_network
from rtformer_deploy.nn.segformer import SegFormer, SegFormerConfig
from rtformer_deploy.nn.weights import load_weights, read_metadata
from rtformer_deploy.pipeline import export_model

CLASSES = 19
SMALL = {
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 3, 4],
    "decoder_hidden_size": 16,
}
RECIPE = "name = 'small'\ndataset = 'cityscapes'\n[architecture]\nname = 'segformer'\n{}\n[input]\nsize = [64, 96]\n"

installed = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed: the extra segformer")


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format("\n".join(f"{key} = {value}" for key, value in SMALL.items())))
    return str(path)


def package_model(**options: Any) -> Any:
    """The package's network with seeded weights, none of them at its first value, in evaluation mode."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(5)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES, attn_implementation="eager", **SMALL, **options))
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(0.2 * torch.rand_like(value))
    return model.eval()


def macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiplications of all convolutions and linear layers for one image, counted on tensors without memory."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output.numel() * weight[0].numel()

    hooks = [each.register_forward_hook(count) for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network.eval()(torch.empty(1, 3, *size, device="meta"))
    for hook in hooks:
        hook.remove()
    return total


@installed
def test_the_logits_are_the_packages_bit_for_bit() -> None:
    model = package_model()
    network = build_network({"name": "segformer", **SMALL}, CLASSES).eval()
    network.load_state_dict(model.state_dict())
    image = torch.randn(2, 3, 70, 101, generator=torch.Generator().manual_seed(1))  # no multiple of a stride
    with torch.no_grad():
        given, wanted = network(image), model(image).logits
    assert given.shape == (2, CLASSES, 18, 26)
    assert torch.equal(given, wanted)
    model.set_attn_implementation("sdpa")  # the package's default; a fused kernel rounds otherwise
    with torch.no_grad():
        assert (given - model(image).logits).abs().max() < 1e-5 * given.abs().max()


@installed
def test_parameters_and_multiplications_are_those_of_b0() -> None:
    with torch.device("meta"):
        network = build_network(load_recipe("segformer-b0-cityscapes").arch, CLASSES)
    count = sum(value.numel() for value in network.parameters())
    assert count == 3_719_027
    assert 0.98 * count < SegFormerConfig().parameters() < count
    assert round(macs(network, (512, 1024)) / 1e9, 2) == 13.60
    assert round(macs(network, (1024, 2048)) / 1e9, 2) == 54.39


@installed
def test_checkpoints_with_old_and_new_keys_give_the_same_weights(tmp_path: Path, recipe: str) -> None:
    """The package saves the keys of its versions before 5.9, and loads both."""
    from transformers import SegformerForSemanticSegmentation

    model = package_model()
    state = model.state_dict()
    model.save_pretrained(tmp_path / "old")
    new = tmp_path / "new"
    new.mkdir()
    (new / "config.json").write_bytes((tmp_path / "old" / "config.json").read_bytes())
    safetensors.torch.save_file(state, new / "model.safetensors", {"format": "pt"})
    torch.save(load_weights(tmp_path / "old" / "model.safetensors"), tmp_path / "pytorch_model.bin")
    assert "segformer.encoder.block.1.0.attention.self.sr.weight" in load_weights(tmp_path / "old" / "model.safetensors")
    for folder in (tmp_path / "old", new):
        own = SegformerForSemanticSegmentation.from_pretrained(folder).state_dict()
        imported = import_weights(folder / "model.safetensors", recipe)
        assert imported.parameters == sum(value.numel() for value in model.parameters())
        assert {key: value for key, value in imported.weights.items() if key not in own or not torch.equal(value, own[key])} == {}
        assert own.keys() == imported.weights.keys()
    assert import_weights(tmp_path / "pytorch_model.bin", recipe).weights.keys() == state.keys()


@installed
def test_imported_weights_say_what_they_are_and_open_without_a_recipe(tmp_path: Path, recipe: str) -> None:
    package_model().save_pretrained(tmp_path / "old")
    path = tmp_path / "imported.safetensors"
    import_weights(tmp_path / "old" / "model.safetensors", recipe).save(path)
    described = recipe_in(read_metadata(path), "imported")
    assert described is not None
    assert described.arch["name"] == "segformer"
    assert '"shape":[1,19,16,24]' in read_metadata(path)["rtformer_deploy.spec"]
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(network_in(path).network(image), package_model()(image).logits)


@installed
def test_an_export_gives_logits_at_a_quarter(recipe: str) -> None:
    choice = choose_network(recipe=recipe, random_seed=0)
    made = export_model(choice.network, choice.spec())
    assert made.parity.difference < 1e-5
    assert made.spec.output.shape == (1, CLASSES, 16, 24)
    assert not {node.domain for node in made.model.graph} - {""}
    names = {node.name for node in made.model.graph}
    assert {"segformer.stages.1.blocks.0.mlp.dwconv.dwconv", "segformer.stages.0.blocks.0.attention/Softmax"} <= names


@installed
def test_keys_that_are_missing_are_listed_as_the_file_would_name_them(tmp_path: Path, recipe: str) -> None:
    """As in a backbone alone, pretrained on ImageNet, with one more key gone."""
    package_model().save_pretrained(tmp_path)
    state = load_weights(tmp_path / "model.safetensors")
    gone = "segformer.encoder.block.3.0.attention.self.key.bias"
    backbone = {key: value for key, value in state.items() if key.startswith("segformer.") and key != gone}
    safetensors.torch.save_file(backbone, tmp_path / "backbone.safetensors")
    with pytest.raises(WeightsError) as caught:
        import_weights(tmp_path / "backbone.safetensors", recipe)
    assert caught.value.details[0] == "  missing (16):"
    assert {f"    {gone}", "    decode_head.linear_c.0.proj.bias", "    decode_head.classifier.weight"} <= set(caught.value.details)


def test_no_file_imports_the_package_before_a_function_needs_it() -> None:
    package = Path(rtformer_deploy.__file__).parent
    early = [
        path.name
        for path in package.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "transformers" in ast.unparse(node)
    ]
    assert early == []


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide(monkeypatch, "transformers")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    needs: list[Callable[[], object]] = [
        lambda: build_network({"name": "segformer"}, CLASSES),
        lambda: choose_network(recipe="segformer-b0-cityscapes", random_seed=0),
        lambda: import_weights(tmp_path / "w.safetensors", "segformer-b0-cityscapes"),
    ]
    for need in needs:
        with pytest.raises(MissingPackageError, match=r"transformers.*not installed") as caught:
            need()
        assert caught.value.hint == "Run: pip install 'rtformer-deploy[segformer]'"


@pytest.mark.parametrize("content", ["raise ImportError('tokenizers is too old')", "", "raise RuntimeError('Failed to import')"])
def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text(content)
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeployError, match="installed package transformers cannot be used") as caught:
        SegFormer(CLASSES)
    assert caught.value.hint == "Run: pip install --upgrade 'rtformer-deploy[segformer]'"
    monkeypatch.delitem(sys.modules, "transformers", raising=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_attention_heads": [1, 2, 5, 7]}, r"num_attention_heads\[3\] is 7, which does not divide hidden_sizes\[3\] = 256"),
        ({"sr_ratios": [8, 8, 2, 1]}, r"sr_ratios\[1\] is 8; expected at most 4"),
        ({"hidden_sizes": [2048] * 4, "num_attention_heads": [1] * 4}, "expected at most 200,000,000"),
        ({"depths": [2, 2, 2]}, "depths"),
        ({"patch_sizes": [7, 3, 3, 3]}, "patch_sizes"),
    ],
)
def test_configurations_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_network({"name": "segformer", **options}, CLASSES)


def test_the_published_sizes_are_accepted() -> None:
    b5 = {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 6, 40, 3], "decoder_hidden_size": 768}
    config = architecture_row({"name": "segformer"}).options(b5)
    assert isinstance(config, SegFormerConfig)
    assert 80e6 < config.parameters() < 85e6


def test_inputs_that_are_too_small_are_refused() -> None:
    row = architecture_row({"name": "segformer"})
    row.check_size((32, 33))
    with pytest.raises(RecipeError, match="are at least 32, and 31x200 is not") as caught:
        row.check_size((31, 200))
    assert caught.value.hint == "The nearest size is 32x200."
    assert dataclasses.replace(row, step=8, least=64).nearest_size((20, 203)) == (64, 200)
