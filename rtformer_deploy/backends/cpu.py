"""What the two CPU builders share: which options mean something."""

from __future__ import annotations

import dataclasses

from ..errors import BuildError
from ..types import BuildOptions

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
