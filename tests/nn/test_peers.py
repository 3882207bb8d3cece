"""DDRNet and STDC-Seg against the official code's outputs on seeded weights, and against PaddleSeg's networks of the same names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import load_file
from numpy.typing import NDArray
from torch import Tensor, nn

from rtformer_deploy.errors import RecipeError
from rtformer_deploy.formats.recipe import load_recipe
from rtformer_deploy.nn import architecture_row, build_network
from rtformer_deploy.nn.blocks import SameConv2d

#: name of the reference data -> a recipe of the network
PEERS = {
    "ddrnet23_slim": "ddrnet23-slim-cityscapes",
    "ddrnet23": "ddrnet23-cityscapes",
    "stdc1_seg": "stdc1-50-cityscapes",
    "stdc2_seg": "stdc2-75-cityscapes",
}
TOLERANCE = 1e-5
MOST_TIED = 4  # pixels of 131,072 whose two best classes rounding can swap
#: The names of the auxiliary outputs in the reference data, by architecture.
AUXILIARIES = {"ddrnet": ["aux"], "stdc": ["aux16", "aux32", "detail8"]}
#: In training mode, batch norm over few values magnifies the rounding of float32.
TRAIN_TOLERANCE = {"ddrnet23_slim": 3e-5, "stdc2_seg": 1e-3}
#: Small ones of each kind, for what does not depend on the size of a network.
SMALL: dict[str, dict[str, Any]] = {
    "ddrnet": {"name": "ddrnet", "planes": 8, "spp_planes": 16, "head_planes": 8},
    "stdc": {"name": "stdc", "base_channels": 8, "blocks": [1, 2, 1]},
}


@cache
def seeded(folder: Path) -> ModuleType:
    """The reference data's own maker of weights and inputs."""
    return load_file(folder / "seeded_weights.py")


@cache
def seeded_state(folder: Path, net: str) -> dict[str, Tensor]:
    """The weights of one network, those of its training heads too."""
    weights = seeded(folder).load(folder / f"keys_{net}.txt", drop=("unused", "alias"))
    return {key: torch.from_numpy(value) for key, value in weights.items()}


def network(folder: Path, net: str, *, aux: bool = False) -> nn.Module:
    arch = load_recipe(PEERS[net]).arch
    row, made = architecture_row(arch), build_network(arch, 19, aux=aux)
    state = seeded_state(folder, net)
    made.load_state_dict({key: value for key, value in state.items() if aux or not row.is_for_training(key)})
    return made.eval()


def image(folder: Path, reference: Any) -> Tensor:
    made: Tensor = torch.from_numpy(seeded(folder).make_input(reference["seed"], reference["shape"]))
    return made


def relative(given: Tensor, wanted: NDArray[Any]) -> float:
    return float(np.abs(given.detach().numpy() - wanted).max() / np.abs(wanted).max())


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("net", PEERS)
def test_keys_and_shapes_are_the_official_ones(peers: Path, net: str) -> None:
    rows = seeded(peers).read_keys(peers / f"keys_{net}.txt")
    wanted = {key: shape for key, shape, note in rows if note in ("", "aux")}
    with torch.device("meta"):
        made = build_network(load_recipe(PEERS[net]).arch, 19)
    row = architecture_row(load_recipe(PEERS[net]).arch)
    given = {key: tuple(value.shape) for key, value in made.state_dict().items()}
    assert {key for key in given.keys() - wanted.keys() if not key.endswith("num_batches_tracked")} == set()  # in-place norms count none
    assert {key: given[key] for key in wanted} == wanted
    assert {key for key, _, note in rows if note == "aux"} == {key for key in wanted if row.is_for_training(key)}
    assert wanted[row.classifier][0] == 19


@pytest.mark.parametrize("net", PEERS)
def test_inner_values_logits_and_labels_are_the_official_ones(peers: Path, net: str) -> None:
    reference, taps = np.load(peers / f"{net}_1x3x256x512.npz"), np.load(peers / f"{net}_taps_1x3x256x512.npz")
    made = network(peers, net, aux=True)
    seen: dict[str, Tensor] = {}
    for name, module in made.named_modules():
        module.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    logits = made(image(peers, reference))
    assert relative(logits, reference["logits_lowres"]) <= TOLERANCE
    corners = net.startswith("stdc")  # its evaluation aligns corners
    full = F.interpolate(logits, size=(256, 512), mode="bilinear", align_corners=corners)
    assert relative(full[:, :, ::8, ::8], reference["logits_sub8"]) <= TOLERANCE
    assert int((full.argmax(1).numpy() != reference["labels"]).sum()) <= MOST_TIED
    if corners:  # what runs while training only, and what the official code calls the ends of its stages
        seen |= _contexts(made, seen)
    differences = {}
    for tap, step in json.loads(str(taps["steps"])).items():
        differences[tap] = relative(seen[tap][..., ::step, ::step], taps[f"tap/{tap}"])
    assert len(differences) == len([name for name in taps.files if name.startswith("tap/")]) > 20
    assert {tap: value for tap, value in differences.items() if value > TOLERANCE} == {}


def _contexts(made: nn.Module, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    backbone = made.get_submodule("cp.backbone")
    ends = {f"cp.backbone.x{2 << level}": seen[f"cp.backbone.features.{end}"] for level, end in enumerate(backbone.ends)}  # type: ignore[arg-type]
    context16, context8 = seen["cp.conv_head32"], seen["cp.conv_head16"]
    heads = {"conv_out16": context8, "conv_out32": context16, "conv_out_sp8": ends["cp.backbone.x8"]}
    return ends | {name: made.get_submodule(name)(value) for name, value in heads.items()}


@pytest.mark.parametrize("net", PEERS)
def test_a_batch_of_another_size_gives_the_official_logits(peers: Path, net: str) -> None:
    reference = np.load(peers / f"{net}_2x3x360x480.npz")
    logits = network(peers, net)(image(peers, reference))
    assert relative(logits, reference["logits_lowres"]) <= TOLERANCE
    full = F.interpolate(logits, size=(360, 480), mode="bilinear", align_corners=net.startswith("stdc"))
    assert relative(full[:, :, ::16, ::16], reference["logits_sub16"]) <= TOLERANCE


@pytest.mark.parametrize("net", ["stdc1_seg", "stdc2_seg"])
def test_in_place_norms_are_batch_norms_of_the_absolute_weight(peers: Path, net: str) -> None:
    reference = np.load(peers / f"{net}_inplaceabn_1x3x256x512.npz")
    made = network(peers, net)
    for name, module in made.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not name.startswith("cp.backbone."):
            module.weight.copy_(module.weight.abs() + 1e-5)
    assert relative(made(image(peers, reference)), reference["logits_lowres"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("net", "dtype"), [*((net, torch.float64) for net in PEERS), ("ddrnet23_slim", torch.float32), ("stdc2_seg", torch.float32)]
)
def test_training_gives_the_official_outputs_and_statistics(peers: Path, net: str, dtype: torch.dtype) -> None:
    reference = np.load(peers / f"{net}_train_4x3x128x192.npz")
    exact = dtype == torch.float64
    prefix, tolerance = ("f64/", 1e-6) if exact else ("", TRAIN_TOLERANCE[net])
    made = network(peers, net, aux=True).to(dtype).train()
    outputs = made(image(peers, reference).to(dtype))
    names = ["logits", *AUXILIARIES[str(load_recipe(PEERS[net]).arch["name"])]]
    assert len(outputs) == 1 + len(architecture_row(load_recipe(PEERS[net]).arch).auxiliaries)
    differences = {name: relative(value, reference[f"{prefix}{name}_lowres"]) for name, value in zip(names, outputs, strict=True)}
    keys = [key for key, _, note in seeded(peers).read_keys(peers / f"keys_{net}.txt") if note in ("", "aux")]
    state = made.state_dict()
    for kind in ("running_mean", "running_var"):
        values = torch.cat([state[key] for key in keys if key.endswith(kind)])
        differences[kind] = relative(values, reference[f"{prefix}{kind}"])
    assert {name: value for name, value in differences.items() if value > tolerance} == {}


PUBLISHED = [
    ("ddrnet23-slim-cityscapes", 5_695_987, {(1024, 2048): 36.28, (720, 960): 12.01}),
    ("ddrnet23-cityscapes", 20_148_947, {(1024, 2048): 143.06, (720, 960): 47.35}),
    ("stdc1-50-cityscapes", 8_275_104, {(512, 1024): 16.86, (768, 1536): 37.94}),
    ("stdc2-50-cityscapes", 12_305_568, {(512, 1024): 23.46, (768, 1536): 52.78, (1024, 2048): 93.83, (720, 960): 31.03}),
]


@pytest.mark.parametrize(("recipe", "parameters", "billions"), PUBLISHED)
def test_parameters_and_multiplications_are_the_official_codes(
    recipe: str, parameters: int, billions: dict[tuple[int, int], float]
) -> None:
    with torch.device("meta"):  # shapes alone: nothing is computed
        made = build_network(load_recipe(recipe).arch, 19, aux=False).eval()
        given = {size: round(multiplications(made, size) / 1e9, 2) for size in billions}
    assert sum(parameter.numel() for parameter in made.parameters()) == parameters
    assert given == billions


def multiplications(made: nn.Module, size: tuple[int, int]) -> int:
    """Those of the convolutions and linears for one image."""
    count = 0

    def add(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal count
        weight = module.get_parameter("weight")
        count += output.numel() // weight.shape[0] * weight.numel() if isinstance(module, nn.Conv2d) else output.numel() * weight.shape[1]

    handles = [module.register_forward_hook(add) for module in made.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    made(torch.empty(1, 3, *size))
    for handle in handles:
        handle.remove()
    return count


@pytest.mark.parametrize("kind", SMALL)
def test_nothing_works_in_place(kind: str) -> None:
    """What a module reads or gives keeps its values until the end, so that it can be read again."""
    torch.manual_seed(0)
    seen: list[tuple[str, Tensor, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            seen.extend((name, value, value.clone()) for value in (*inputs, output) if isinstance(value, Tensor))

        return hook

    made = build_network(SMALL[kind], 5).train()
    for name, module in made.named_modules():
        module.register_forward_hook(note(name))
    made(torch.randn(2, 3, 64, 72))
    assert len(seen) > 100
    assert [name for name, value, before in seen if not torch.equal(value, before)] == []


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 9), (37, 53), (64, 65)])
def test_stdc_takes_every_size(size: tuple[int, int]) -> None:
    made = build_network(SMALL["stdc"], 5, aux=False).eval()
    assert made(torch.randn(1, 3, *size)).shape == (1, 5, -(-size[0] // 8), -(-size[1] // 8))


def test_ddrnet_takes_multiples_of_8() -> None:
    row = architecture_row(SMALL["ddrnet"])
    made = build_network(SMALL["ddrnet"], 5, aux=False).eval()
    for size in ((8, 8), (24, 72)):
        row.check_size(size)
        assert made(torch.randn(1, 3, *size)).shape == (1, 5, size[0] // 8, size[1] // 8)
    with pytest.raises(RecipeError, match=r"ddrnet takes heights and widths that are multiples of 8, and 375x500 is not\.\n.*376x496"):
        row.check_size((375, 500))


@pytest.mark.parametrize("length", range(1, 9))
def test_same_padding_is_paddles(length: int) -> None:
    """ceil(length / 2) values; an even length is padded behind it only, an odd one on both sides."""
    made = SameConv2d(1, 1, 3, 2, bias=False)
    made.weight.fill_(1.0)
    line = torch.arange(1.0, length + 1).expand(1, 1, 3, length)
    before = 0 if length % 2 == 0 else 1
    padded = [0.0] * before + line[0, 0, 0].tolist() + [0.0]
    wanted = [3 * sum(padded[start : start + 3]) for start in range(0, 2 * -(-length // 2), 2)]
    assert made(line)[0, 0, 0].tolist() == [2 * value / 3 for value in wanted]  # the upper row of two sees two of three rows
    assert made(line).shape[2] == 2


@pytest.mark.parametrize(
    ("net", "arch"),
    [
        ("ddrnet23", {"name": "ddrnet", "planes": 64, "head_planes": 128, "padding": "same", "count_padding": False}),
        ("stdc1", {"name": "stdc", "head_bias": True, "count_padding": False}),
    ],
)
def test_paddlesegs_networks_differ_by_their_options(peers: Path, net: str, arch: dict[str, Any]) -> None:
    """Logits of PaddleSeg d7975e7c on paddlepaddle 3.3.1 with the same seeded weights."""
    reference = np.load(Path(__file__).parent.parent / "data" / f"paddleseg_{net}.npz")
    made = build_network(arch, 19, aux=False)
    make = seeded(peers).tensor
    made.load_state_dict({key: torch.from_numpy(make(key, tuple(value.shape))) for key, value in made.state_dict().items()})
    made.eval()
    for height, width in ((64, 128), (72, 120)):
        given = made(torch.from_numpy(seeded(peers).make_input(reference[f"seed_{height}x{width}"], (1, 3, height, width))))
        assert relative(given, reference[f"logits_{height}x{width}"]) <= TOLERANCE
