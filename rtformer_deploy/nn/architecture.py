"""What the rest of the project knows of a network: one row for each family, at the end of its own file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from ..errors import RecipeError
from ..formats.conversion import convert_known
from ..formats.documents import DocumentError
from .foreign import Translated

#: Tensors by name, as `nn.Module.state_dict` gives them.
StateDict = dict[str, Tensor]


class Configuration(Protocol):
    """A recipe's [architecture] without its name: a frozen dataclass whose field types have bounds that keep the network within memory."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def check(self) -> None:
        """Raises DocumentError for what the types do not say."""


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """One of the outputs that a network gives behind its logits while training.

    `predicts` says what it is compared with: the `classes` of the labels (N, C, h, w), or where they change, the `boundary`
    (N, 1, h, w). `weight` is its share of the published training's loss; the logits' own is 1. `option` is the option of the network
    that switches it on (None: it is always there).
    """

    name: str
    predicts: Literal["classes", "boundary"] = "classes"
    weight: float = 1.0
    option: str | None = None


def _as_they_are(state: StateDict, config: Any) -> StateDict:
    return state


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of networks. No other file knows a network by its name, its modules' names or its sizes.

    name           its name in a recipe's [architecture]
    network        the module's type: `network(classes, aux=..., **options)` maps normalised RGB (N, 3, H, W) to logits
                   (N, classes, ceil(H / stride), ceil(W / stride)), and while training with `aux` to (logits, *auxiliaries)
    config         the type of its options
    classifier     the key of the tensor whose first axis is the number of classes
    auxiliaries    what the outputs behind the logits are for, in their order; `auxiliaries_of` leaves out what is not switched on
    aux            how the keys begin that only training uses
    training_only  the options that do not change inference
    stride         how much smaller the logits are than the input
    step           height and width of the input are multiples of it
    least          height and width of the input are at least this; a multiple of `step`
    translate      (tensors by the keys of another project's checkpoint, options) -> the same by this network's keys; what already
                   has these keys, or fits neither, comes back as it is. A `Translated` says more, such as what was left out
    inplace_norms  weights that were trained with InPlaceABNSync -> the same for plain batch norms, and how many norms changed;
                   None: the network is not trained so
    """

    name: str
    network: Callable[..., nn.Module]
    config: type[Configuration]
    classifier: str
    auxiliaries: tuple[Auxiliary, ...] = ()
    aux: tuple[str, ...] = ()
    training_only: frozenset[str] = frozenset()
    stride: int = 8
    step: int = 1
    least: int = 1
    translate: Callable[[StateDict, Any], StateDict | Translated] = _as_they_are
    inplace_norms: Callable[[Mapping[str, Tensor]], tuple[StateDict, int]] | None = None

    def options(self, values: Mapping[str, Any]) -> Configuration:
        """The values of a recipe's [architecture], without the name -> the network's options. Raises RecipeError."""
        try:
            config = convert_known(values, self.config)
            config.check()
        except DocumentError as error:
            raise RecipeError(f"The architecture {self.name} does not take this configuration: {error}.") from error
        return config

    def build(self, classes: int, config: Configuration, *, aux: bool) -> nn.Module:
        """The network with fresh weights; `aux` False leaves out what only training uses."""
        options = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
        return self.network(classes, aux=aux, **options)

    def auxiliaries_of(self, config: Configuration) -> tuple[Auxiliary, ...]:
        """What the outputs behind the logits of a network with these options are for, in their order."""
        return tuple(each for each in self.auxiliaries if each.option is None or getattr(config, each.option))

    def is_for_training(self, key: str) -> bool:
        """Whether a tensor of the network is used while training only."""
        return key.startswith(self.aux)

    def classes_of(self, state: Mapping[str, Tensor]) -> int | None:
        """The number of classes that weights were trained for; None if the tensor that tells is missing."""
        last = state.get(self.classifier)
        return None if last is None or not last.dim() else int(last.shape[0])

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises RecipeError unless the network takes inputs of this height and width."""
        if self.nearest_size(size) == tuple(size):
            return
        bounds = [f"are multiples of {self.step}"] * (self.step > 1) + [f"are at least {self.least}"] * (self.least > self.step)
        nearest = "x".join(map(str, self.nearest_size(size)))
        raise RecipeError(
            f"{self.name} takes heights and widths that {' and '.join(bounds)}, and {size[0]}x{size[1]} is not.",
            f"The nearest size is {nearest}.",
        )

    def nearest_size(self, size: tuple[float, float]) -> tuple[int, int]:
        """The size nearest to (H, W) that the network takes."""
        height, width = (max(self.step, self.least, round(side / self.step) * self.step) for side in size)
        return height, width
