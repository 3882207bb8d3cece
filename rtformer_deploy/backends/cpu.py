"""What the two CPU builders share: which options mean something, and the verdict on precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..errors import BuildError
from ..types import BuildOptions, PrecisionFound, PrecisionName

#: Options of a GPU builder, as the command line spells them.
_FOREIGN = {
    "workspace_mib": "--workspace",
    "optimization_level": "--optimization-level",
    "timing_cache": "--timing-cache",
    "version_compatible": "--version-compatible",
    "hardware_compatible": "--hardware-compatible",
    "plugins": "--plugins",
}


def refuse_foreign_options(options: BuildOptions, backend: str) -> None:
    """Raises BuildError naming every option that was set and means nothing to a CPU builder."""
    defaults = {item.name: item.default for item in dataclasses.fields(BuildOptions)}
    given = [flag for name, flag in _FOREIGN.items() if getattr(options, name) != defaults[name]]
    if given:
        raise BuildError(
            f"{backend} has no {', '.join(given)}: these are options of a GPU builder.",
            f"Leave out {', '.join(given)}, or choose --backend tensorrt or tensorrt-rtx.",
        )


def judge(asked: PrecisionName, layers: Mapping[str, int]) -> PrecisionFound:
    """Counts of compute layers by precision -> PrecisionFound. On a CPU FP16 is storage, so asking for it is never met."""
    found = ", ".join(f"{count} in {name}" for name, count in sorted(layers.items())) or "none"
    if asked == "fp16":
        detail = f"on a CPU FP16 is storage; the layers run in fp32 (compute layers: {found})"
        return PrecisionFound(asked, "verified" if set(layers) == {"fp16"} else "mismatch", dict(layers), detail)
    met = layers.get("int8", 0) > 0 if asked == "int8" else set(layers) <= {"fp32"}
    return PrecisionFound(asked, "verified" if met else "mismatch", dict(layers), f"compute layers: {found}")
