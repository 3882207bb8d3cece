"""The project's extras on this machine: for each one, what it is for and whether all that it brings works.

Imports the standard library alone, as `checks` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import metadata

from .checks import Check, Package, State

#: Extras for work on this project.
FOR_DEVELOPERS = frozenset({"dev", "docs"})


def project_extras() -> dict[str, list[str]]:
    """extra -> the libraries that it brings on this platform, by the installed project's metadata.

    Raises PackageNotFoundError in a checkout that is not installed, ImportError without `packaging`.
    """
    from packaging.requirements import Requirement

    project = metadata("rtformer-deploy")
    brought: dict[str, list[str]] = {extra: [] for extra in project.get_all("Provides-Extra") or () if extra not in FOR_DEVELOPERS}
    for requirement in map(Requirement, project.get_all("Requires-Dist") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            continue
        for extra, names in brought.items():
            if requirement.marker.evaluate({"extra": extra}):
                names.append(requirement.name.lower())
    return brought


def check_extras(
    brought: Mapping[str, Collection[str]], packages: Sequence[Package], checks: Iterable[Check], installed: Collection[str]
) -> list[Check]:
    """One Check an extra, from those of its libraries. A library that `packages` lacks is fine if it is `installed`."""
    states = {check.name: check.state for check in checks}
    known = {name: package for package in packages for name in package.distributions or (package.name,)}

    def state_of(name: str) -> State:
        if name in known:
            return states[known[name].name]
        return "ok" if name in installed else "missing"

    found = []
    for extra, names in brought.items():
        broken, missing = ([name for name in names if state_of(name) == state] for state in ("broken", "missing"))
        purposes = dict.fromkeys(known[name].purpose for name in names if name in known)
        faults = [f"{word}: {', '.join(bad)}" for word, bad in (("broken", broken), ("not installed", missing)) if bad]
        detail = "; ".join([*([", ".join(purposes)] if purposes else []), *(faults or [", ".join(names)])])
        state: State = "broken" if broken else "missing" if missing else "ok"
        found.append(Check("Extras", extra, state, detail, f"pip install 'rtformer-deploy[{extra}]'" if state == "missing" else None))
    return found
