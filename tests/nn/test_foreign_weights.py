"""Checkpoints of DDRNet and STDC from elsewhere: every form of their keys becomes ours, and the outputs are the official code's.

The golden outputs are of weights that follow from the official keys. A form of a file is right if the imported tensors have the golden
weights' hash; the outputs of each hash are computed once.
"""

from __future__ import annotations

import pickle
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import Tensor

from rtformer_deploy.cli import main
from rtformer_deploy.commands.import_weights import Imported, import_weights
from rtformer_deploy.content import content_dir
from rtformer_deploy.errors import RecipeError, WeightsError
from rtformer_deploy.export.weights_choice import choose_network
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import build_network, ddrnet_keys, stdc_keys, translate
from rtformer_deploy.nn.foreign import Renaming, unwrap
from rtformer_deploy.nn.weights import load_into, weights_hash

Arrays = dict[str, NDArray[Any]]
RECIPES = {
    "ddrnet23_slim": "ddrnet23-slim-cityscapes",
    "ddrnet23": "ddrnet23-cityscapes",
    "stdc1_seg": "stdc1-50-cityscapes",
    "stdc2_seg": "stdc2-75-cityscapes",
}
COUNTER = "num_batches_tracked"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Golden:
    """The reference data of the peers: seeded weights by official keys, and what the official code gives for them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seeded = folder, runpy.run_path(str(folder / "seeded_weights.py"))
        self._official: dict[str, Arrays] = {}
        self._errors: dict[tuple[str, str], float] = {}

    def official(self, net: str, *drop: str) -> Arrays:
        """The official checkpoint; `drop` leaves out rows of the keys file: aux, unused, alias."""
        if net not in self._official:
            self._official[net] = self.seeded["load"](str(self.folder / f"keys_{net}.txt"))
        notes = {key: note for key, _, note in self.seeded["read_keys"](str(self.folder / f"keys_{net}.txt"))}
        kind = {key: "alias" if note.startswith("=") else note for key, note in notes.items()}
        return {key: value for key, value in self._official[net].items() if kind[key] not in drop}

    def error(self, net: str, imported: Imported, rule: str = "") -> float:
        """The largest difference of the imported network's logits to the golden ones, relative to the largest logit."""
        recipe = load_recipe(RECIPES[net])
        network = build_network(recipe.arch, 19, aux=False).eval()
        load_into(network, imported.weights, "imported")
        place = weights_hash(network, recipe.arch), rule
        if place not in self._errors:
            golden = np.load(self.folder / f"{net}{rule}_1x3x256x512.npz")
            with torch.inference_mode():
                logits = network(torch.from_numpy(self.seeded["make_input"](golden["seed"], golden["shape"]))).numpy()
            self._errors[place] = float(np.abs(logits - golden["logits_lowres"]).max() / np.abs(golden["logits_lowres"]).max())
        return self._errors[place]


@pytest.fixture(scope="module")
def golden(peers: Path) -> Golden:
    return Golden(peers)


def write(arrays: Mapping[str, NDArray[Any]], path: Path, wrap: str | None = None) -> Path:
    """A checkpoint of the kind that the suffix says. An array with two keys is one tensor of a .pth, as torch.save has it."""
    if path.suffix == ".pdparams":
        path.write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": {key: key for key in arrays}}, 4))
        return path
    once: dict[int, Tensor] = {}
    state = {key: once.setdefault(id(value), torch.from_numpy(value)) for key, value in arrays.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({key: value.clone() for key, value in state.items()}, path)
    else:
        torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    return path


def shared_copies(arrays: Arrays) -> Arrays:
    """The same arrays, where a second copy in the backbone is the array of its first."""
    first = {}
    for key in arrays:
        match = stdc_keys._COPY.fullmatch(key)
        first[key] = key if match is None else f"cp.backbone.features.{match[2]}.{match[3]}"
    return {key: arrays[first[key]] for key in arrays}


def recipe_with(tmp_path: Path, name: str, **options: object) -> str:
    """A recipe of the project with other options of its architecture, as a file."""
    text = (content_dir("models") / f"{name}.toml").read_text()
    lines = [f"{key} = {'true' if value is True else 'false' if value is False else repr(value)}\n" for key, value in options.items()]
    kept = [line for line in text.splitlines(keepends=True) if line.split(" = ")[0] not in options]
    kept.insert(kept.index("[architecture]\n") + 1, "".join(lines).replace("'", '"'))
    path = tmp_path / "other.toml"
    path.write_text("".join(kept))
    return str(path)


#: name of the file -> whether it has the auxiliary head, what is in front of its keys, what it lies in
OFFICIAL_DDRNET: dict[str, tuple[bool, str, str | None]] = {
    "plain.pth": (True, "", None),
    "wrapped.pth": (True, "model.", "state_dict"),
    "parallel.pth": (True, "module.model.", None),
    "evaluation.safetensors": (False, "model.", None),
}


@pytest.mark.parametrize("name", OFFICIAL_DDRNET)
def test_official_checkpoints_of_ddrnet(golden: Golden, tmp_path: Path, name: str) -> None:
    aux, prefix, wrap = OFFICIAL_DDRNET[name]
    arrays = {prefix + key: value for key, value in golden.official("ddrnet23_slim", *(() if aux else ("aux",))).items()}
    if "model." in prefix:  # the trainer's module holds the loss too
        arrays[f"{prefix.removesuffix('model.')}loss.criterion.weight"] = np.ones(19, np.float32)
    imported = import_weights(write(arrays, tmp_path / name, wrap), RECIPES["ddrnet23_slim"])
    assert golden.error("ddrnet23_slim", imported) <= 1e-5
    assert imported.parameters == 5_695_987
    assert [note for note in imported.notes if "loss" in note] == list(imported.notes)
    assert len(imported.notes) == ("model." in prefix)


STDC_FORMS: dict[str, tuple[str, ...]] = {
    "model_maxmIOU50.pth": (),
    "evaluation.pth": ("aux",),
    "canonical.safetensors": ("alias", "unused"),
}
#: Of STDC2 one form: its keys differ in their numbers alone.


@pytest.mark.parametrize(("net", "name"), [*(("stdc1_seg", name) for name in STDC_FORMS), ("stdc2_seg", "model_maxmIOU75.pth")])
def test_official_checkpoints_of_stdc(golden: Golden, tmp_path: Path, net: str, name: str) -> None:
    drop = STDC_FORMS.get(name, ())
    arrays = shared_copies(golden.official(net, *drop))
    imported = import_weights(write(arrays, tmp_path / name), RECIPES[net])
    assert golden.error(net, imported, "_inplaceabn") <= 1e-5
    assert f"{9 if 'aux' in drop else 15} norms of the heads got |weight| + 0.00001" in imported.notes[-1]
    left_out = [note for note in imported.notes if note.startswith("Left out")]
    assert left_out == ([] if "alias" in drop else [f"Left out: {len(golden.official(net)) - CANONICAL[net]} " + LEFT_OUT])


LEFT_OUT = "second copies of the backbone's tensors and 13 tensors of the ImageNet classifier."
CANONICAL = {"stdc1_seg": 222 + 36 + 13, "stdc2_seg": 366 + 36 + 13}


def test_norms_that_count_their_batches_are_plain(golden: Golden, tmp_path: Path) -> None:
    """As the official TensorRT model has them, and whoever trains without InPlaceABNSync."""
    arrays = golden.official("stdc1_seg", "alias", "unused")
    arrays |= {key.replace("running_mean", COUNTER): np.full((), 5) for key in arrays if key.endswith("running_mean")}
    imported = import_weights(write(arrays, tmp_path / "plain.pth"), RECIPES["stdc1_seg"])
    assert golden.error("stdc1_seg", imported) <= 1e-5
    assert "stay as they are" in imported.notes[-1]


def test_an_imported_file_is_not_changed_again(golden: Golden, tmp_path: Path) -> None:
    arrays = golden.official("stdc1_seg", "alias", "unused")
    first = import_weights(write(arrays, tmp_path / "a.pth"), RECIPES["stdc1_seg"])
    first.save(tmp_path / "b.safetensors")
    second = import_weights(tmp_path / "b.safetensors", RECIPES["stdc1_seg"])
    assert not second.notes
    assert all(torch.equal(value, first.weights[key]) for key, value in second.weights.items())


@pytest.mark.parametrize("net", ["ddrnet23", "stdc1"])
def test_paddlesegs_checkpoints_give_paddlesegs_outputs(golden: Golden, tmp_path: Path, net: str) -> None:
    """Values by PaddleSeg's own keys, and what PaddleSeg d7975e7c gives for them on paddlepaddle 3.3.1 at 72x128."""
    arrays = {key: golden.seeded["tensor"](in_torch(key), shape) for key, shape in paddle_keys(net).items()}
    recipe = recipe_with(tmp_path, PADDLE[net][0], **PADDLE[net][1])
    imported = import_weights(write(arrays, tmp_path / "model.pdparams"), recipe)
    assert not imported.notes
    network = build_network(load_recipe(recipe).arch, 19, aux=False).eval()
    load_into(network, imported.weights, "imported")
    with torch.inference_mode():
        logits = network(torch.from_numpy(golden.seeded["make_input"](15, (1, 3, 72, 128)))).numpy()
    wanted = np.load(DATA / "paddleseg_checkpoints.npz")[net]
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert all(torch.equal(imported.weights[ours], torch.from_numpy(arrays[theirs])) for ours, theirs in PADDLE[net][2].items())


PADDLE: dict[str, tuple[str, dict[str, object], dict[str, str]]] = {
    "ddrnet23": (
        "ddrnet23-cityscapes",
        {"padding": "same", "count_padding": False},
        {"seghead_extra.bn2.running_mean": "aux_head.conv_bn_relu._batch_norm._mean", "seghead_extra.conv2.bias": "aux_head.conv.bias"},
    ),
    "stdc1": (
        "stdc1-50-cityscapes",
        {"head_bias": True, "count_padding": False},
        {"conv_out16.conv.bn.bias": "conv_out8.conv._batch_norm.bias", "conv_out32.conv.conv.bias": "conv_out16.conv._conv.bias"},
    ),
}
DATA = Path(__file__).parent.parent / "data"


def paddle_keys(net: str) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of PaddleSeg's network, as its state_dict lists them; the auxiliary head is there."""
    rows = [line.split("\t") for line in (DATA / f"paddleseg_keys_{net}.txt").read_text().splitlines()]
    return {key: tuple(map(int, shape.split(","))) for key, shape in rows}


def in_torch(key: str) -> str:
    """A running statistic's name as torch has it, by which seeded values are made."""
    return key.replace("._mean", ".running_mean").replace("._variance", ".running_var")


@pytest.mark.parametrize("net", ["ddrnet23_slim", "stdc1_seg"])
def test_official_weights_under_paddlesegs_keys(golden: Golden, tmp_path: Path, net: str) -> None:
    """The recipe's word counts: it has the official padding, so the outputs are the official ones, and a note says what PaddleSeg has."""
    theirs = (ddrnet_keys if net.startswith("ddrnet") else stdc_keys).PADDLE.theirs
    official = golden.official(net, "aux", "alias", "unused")
    arrays = {theirs(key): value for key, value in official.items() if not key.endswith(COUNTER)}
    imported = import_weights(write(arrays, tmp_path / "model.pdparams"), RECIPES[net])
    assert golden.error(net, imported) <= 1e-5
    assert len(imported.notes) == 1
    assert "count_padding = false" in imported.notes[0]


def test_paddlesegs_older_names_and_second_copies_of_stdc() -> None:
    """Until November 2021 two heads were called as the official ones are; until June 2022 stages had copies that count from 0 in each."""
    state = small(SMALL_STDC | {"head_bias": True})
    theirs = {stdc_keys.PADDLE_BEFORE.theirs(key): value for key, value in state.items()}
    assert "conv_out32.conv._conv.weight" in theirs
    front = "cp.backbone.features."
    stages = {"0": "x2.0.0", "1": "x4.0.0", "2": "x8.0.0", "3": "x16.0.0", "4": "x16.0.1", "5": "x32.0.0"}
    copies = {}
    for key in (key for key in theirs if key.startswith(front)):
        number, _, rest = key.removeprefix(front).partition(".")
        copies[f"cp.backbone.{stages[number]}.{rest}"] = theirs[key].clone()
    translated = translate(theirs | copies, SMALL_STDC | {"head_bias": True})
    assert translated.weights.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in translated.weights.items())
    assert not translated.differing


def small(arch: Mapping[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {key: value for key, value in build_network(arch, 5).state_dict().items() if not key.endswith(COUNTER)}


SMALL_DDRNET = {"name": "ddrnet", "planes": 8, "spp_planes": 8, "head_planes": 8}
SMALL_STDC = {"name": "stdc", "base_channels": 8, "blocks": [1, 2, 1]}


def test_every_key_that_does_not_fit_is_named_as_in_the_file() -> None:
    state = {f"model.{ddrnet_keys.PADDLE.theirs(key)}": value for key, value in small(SMALL_DDRNET).items()}
    del state["model.conv1.1._conv.weight"], state["model.spp.scale1.1._mean"]
    state["model.down3._conv.weight"] = torch.zeros(1)
    state["model.down4.2._conv.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        load_into(build_network(SMALL_DDRNET, 5), translate(state, SMALL_DDRNET), "theirs.pdparams")
    assert "\n".join(error.value.lines[:-1]) == (
        "theirs.pdparams does not fit this network:\n"
        "  missing (2):\n    model.conv1.1._conv.weight\n    model.spp.scale1.1._mean\n"
        "  unexpected (1):\n    model.down4.2._conv.weight\n"
        "  misshapen (1):\n    model.down3._conv.weight is [1], not [32, 16, 3, 3]"
    )


def test_second_copies_that_differ_are_listed() -> None:
    state = small(SMALL_STDC)
    copies = {f"cp.backbone.x16.0.3{key.removeprefix('cp.backbone.features.3')}": key for key in state if "features.3." in key}
    state |= {copy: state[key].clone() for copy, key in copies.items()}
    assert not translate(state, SMALL_STDC).differing
    changed = sorted(copies)[:2]
    for copy in changed:
        state[copy] = state[copy] + 1
    del state["cp.backbone.features.4.conv_list.0.conv.weight"]
    with pytest.raises(WeightsError) as error:
        load_into(build_network(SMALL_STDC, 5), translate(state, SMALL_STDC), "mine.pth")
    listed = f"  second copies with other values (2):\n    {changed[0]}\n    {changed[1]}\n  missing (1):\n    cp.backbone.features.4."
    assert listed in str(error.value)


def test_a_file_with_the_copies_alone_is_whole() -> None:
    state = small(SMALL_STDC)
    stages = {"0": "x2", "1": "x4", "2": "x8", "3": "x16", "4": "x16", "5": "x32"}
    front = "cp.backbone.features."

    def copy(key: str) -> str:
        number, _, rest = key.removeprefix(front).partition(".")
        return f"cp.backbone.{stages[number]}.0.{number}.{rest}" if key.startswith(front) else key

    translated = translate({copy(key): value for key, value in state.items()}, SMALL_STDC)
    assert translated.weights.keys() == state.keys()


@pytest.mark.parametrize("biased", [True, False])
def test_biases_tell_which_stdc_it_is(biased: bool) -> None:
    state, arch = small(SMALL_STDC | {"head_bias": biased}), SMALL_STDC | {"head_bias": not biased}
    with pytest.raises(WeightsError, match="unexpected" if biased else "missing") as error:
        load_into(build_network(arch, 5), translate(state, arch), "mine.pth")
    assert error.value.hint is not None
    assert ("say head_bias = true" if biased else "leave head_bias = true out") in error.value.hint


def test_the_other_network_is_named(golden: Golden, tmp_path: Path) -> None:
    file = write(golden.official("ddrnet23_slim", "aux"), tmp_path / "best_val_smaller.pth")
    with pytest.raises(WeightsError) as error:
        import_weights(file, RECIPES["ddrnet23"])
    named = "its keys and shapes are those of ddrnet23-slim-cityscapes (ddrnet23-slim)"
    assert error.value.what == f"{file} does not fit this network: {named}. Beside ddrnet23-cityscapes:"
    assert error.value.hint == "Name the recipe they belong to: --recipe ddrnet23-slim-cityscapes"
    assert error.value.details[0] == "  misshapen (253):"


def test_an_export_takes_a_checkpoint_as_import_weights_does(golden: Golden, tmp_path: Path) -> None:
    said: list[str] = []
    file = write(golden.official("stdc1_seg", "alias", "unused"), tmp_path / "model_maxmIOU50.pth")
    choice = choose_network(recipe=RECIPES["stdc1_seg"], weights=file, say=said.append)
    imported = import_weights(file, RECIPES["stdc1_seg"])
    assert tuple(said) == imported.notes
    state = choice.network.state_dict()
    assert all(torch.equal(value, imported.weights[key]) for key, value in state.items() if not key.endswith(COUNTER))


def test_weights_of_no_known_network_are_listed(tmp_path: Path) -> None:
    file = write({"a.weight": np.ones(2, np.float32)}, tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match=r"(?s)does not fit this network:\n  missing .*\n  unexpected \(1\):\n    a\.weight"):
        import_weights(file, RECIPES["stdc1_seg"])


def test_the_command_tells_what_it_did(golden: Golden, tmp_path: Path) -> None:
    file = write(golden.official("stdc1_seg"), tmp_path / "model_maxmIOU50.safetensors")
    call = ["import-weights", str(file), "--recipe", RECIPES["stdc1_seg"], "-o", str(tmp_path / "out.safetensors")]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 0, result.output
    assert "8,275,104 parameters" in result.output
    assert LEFT_OUT in " ".join(result.output.split())
    assert "15 norms of the heads" in result.output


def test_wrappers_come_off_only_if_every_key_has_them() -> None:
    one = torch.ones(1)
    assert unwrap({"module.model.a": one, "module.model.b": one}).weights.keys() == {"a", "b"}
    assert unwrap({"model.a": one, "b": one}).weights.keys() == {"model.a", "b"}
    read = unwrap({"module.model.a": one, "module.loss.b": one})
    assert read.weights.keys() == {"a"}
    assert read.in_file("c") == "module.model.c"
    assert not unwrap({}).weights


def test_a_key_whose_new_name_is_taken_stays() -> None:
    renaming = Renaming([("x*._conv", "x*.0")])
    one = torch.ones(1)
    assert renaming.apply({"x1.0.weight": one, "x1._conv.weight": one, "x2._conv._mean": one}).keys() == {
        "x1.0.weight",
        "x1._conv.weight",
        "x2.0.running_mean",
    }
    assert renaming.theirs("x2.0.running_mean") == "x2._conv._mean"


def test_in_place_norms_are_stdcs_alone() -> None:
    with pytest.raises(RecipeError, match="No checkpoint of ddrnet was trained with in-place norms"):
        translate(small(SMALL_DDRNET), SMALL_DDRNET, inplace_norms=True)


def test_training_begins_from_the_backbone_alone() -> None:
    state = small(SMALL_STDC)
    backbone = {key.removeprefix("cp.backbone."): value for key, value in state.items() if key.startswith("cp.backbone.")}
    translated = translate({f"module.{key}": value for key, value in (backbone | {"linear.weight": torch.ones(1)}).items()}, SMALL_STDC)
    assert translated.weights.keys() == {key for key in state if key.startswith("cp.backbone.")}
    assert translated.in_file("cp.backbone.features.0.conv.weight") == "module.features.0.conv.weight"
