"""SegFormer (Xie et al., NeurIPS 2021, arXiv 2105.15203): the modules of the package transformers, with its keys.

The package is an extra and is imported when a network is built, so that every other network works without it. Nothing is downloaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta
from torch import Tensor, nn

from ..errors import DeployError, first_line
from ..formats.documents import DocumentError
from ..machine import require
from .architecture import Architecture
from .segformer_keys import translate

_INSTALL = "pip install --upgrade 'rtformer-deploy[segformer]'"
_MOST_PARAMETERS = 200_000_000  # SegFormer-B5 has 85 million
_LEAST = 32  # pixels
_Count = Annotated[int, Meta(ge=1, le=64)]
_Counts = tuple[_Count, _Count, _Count, _Count]
_Channels = Annotated[int, Meta(ge=1, le=2048)]


@dataclass(frozen=True, slots=True)
class SegFormerConfig:
    """A recipe's [architecture]: the options of SegFormer, with their bounds. The defaults are those of SegFormer-B0.

    The lists have one value for each of the four stages; the names are those of the package's own configuration.
    """

    hidden_sizes: tuple[_Channels, _Channels, _Channels, _Channels] = (32, 64, 160, 256)
    depths: _Counts = (2, 2, 2, 2)
    num_attention_heads: _Counts = (1, 2, 5, 8)
    sr_ratios: _Counts = (8, 4, 2, 1)
    mlp_ratios: _Counts = (4, 4, 4, 4)
    decoder_hidden_size: _Channels = 256
    drop_path: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1

    def check(self) -> None:
        """Raises DocumentError if heads do not divide their channels, or if the network would be too large."""
        for stage, (heads, channels, reduction) in enumerate(zip(self.num_attention_heads, self.hidden_sizes, self.sr_ratios, strict=True)):
            if channels % heads:
                raise DocumentError(f"num_attention_heads[{stage}] is {heads}, which does not divide hidden_sizes[{stage}] = {channels}")
            most = _LEAST // (4 * 2**stage)  # the stage's height and width for the smallest input
            if reduction > most:
                raise DocumentError(f"sr_ratios[{stage}] is {reduction}; expected at most {most}")
        if self.parameters() > _MOST_PARAMETERS:
            raise DocumentError(f"the network would have {self.parameters():,} parameters; expected at most {_MOST_PARAMETERS:,}")

    def parameters(self) -> int:
        """How many numbers the matrices and kernels hold, without biases, norms and the classifier."""
        total, inputs, kernel = self.decoder_hidden_size**2 * 4, 3, 7
        for channels, depth, reduction, ratio in zip(self.hidden_sizes, self.depths, self.sr_ratios, self.mlp_ratios, strict=True):
            shrink = channels**2 * reduction**2 if reduction > 1 else 0
            block = 4 * channels**2 + shrink + 2 * ratio * channels**2 + 9 * ratio * channels
            total += kernel**2 * inputs * channels + depth * block + channels * self.decoder_hidden_size
            inputs, kernel = channels, 3
        return total


class SegFormer(nn.Module):
    """Normalised RGB (N, 3, H, W), 32 pixels or more a side -> logits (N, classes, H/4, W/4), also while training.

    `aux` means nothing, because there is no auxiliary head. Raises MissingPackageError without the package transformers, and DeployError
    if its version does not fit.
    """

    stride = 4

    def __init__(
        self,
        classes: int,
        *,
        hidden_sizes: Sequence[int] = (32, 64, 160, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_attention_heads: Sequence[int] = (1, 2, 5, 8),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        mlp_ratios: Sequence[int] = (4, 4, 4, 4),
        decoder_hidden_size: int = 256,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        aux: bool = True,
    ) -> None:
        super().__init__()
        model = _package_model(
            num_labels=classes,
            hidden_sizes=tuple(hidden_sizes),
            depths=tuple(depths),
            num_attention_heads=tuple(num_attention_heads),
            sr_ratios=tuple(sr_ratios),
            mlp_ratios=tuple(mlp_ratios),
            decoder_hidden_size=decoder_hidden_size,
            drop_path_rate=drop_path,
            classifier_dropout_prob=dropout,
            attn_implementation="eager",  # two products and a softmax, which every builder knows
        )
        self.segformer: nn.Module = model.segformer
        self.decode_head: nn.Module = model.decode_head

    def forward(self, x: Tensor) -> Tensor:
        features = []  # (N, c, 1/4), then 1/8, 1/16, 1/32
        for stage in self.segformer.get_submodule("stages").children():
            x = stage(x)
            features.append(x)
        logits: Tensor = self.decode_head(features)
        return logits


def _package_model(**options: Any) -> Any:
    """SegformerForSemanticSegmentation with fresh weights, from the values of its configuration."""
    require("transformers", "segformer", "SegFormer")
    with _usable_package():
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        model = SegformerForSemanticSegmentation(SegformerConfig(**options))
        model.segformer.get_submodule("stages")  # before 5.9 its layers had other names
    return model


@contextlib.contextmanager
def _usable_package() -> Iterator[None]:
    """Raises DeployError if the installed transformers is not one whose SegFormer this is."""
    try:
        yield
    except (ImportError, AttributeError, RuntimeError) as error:  # RuntimeError: an ImportError in one of its own files
        raise DeployError(f"The installed package transformers cannot be used: {first_line(error)}", f"Run: {_INSTALL}") from error


ARCHITECTURE = Architecture(
    name="segformer",
    network=SegFormer,
    config=SegFormerConfig,
    classifier="decode_head.classifier.weight",
    training_only=frozenset({"drop_path", "dropout"}),
    stride=SegFormer.stride,
    least=_LEAST,
    translate=translate,
)
