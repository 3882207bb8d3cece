"""How `doctor` checks a library: it imports and calls the library in a separate process. The result is a Check.

Imports the standard library alone, so that it answers even if everything else is damaged. A library that crashes or hangs becomes
one Check that says so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. "missing" is something optional that is not there; `fix` is a command or a sentence."""

    group: str
    name: str
    state: State
    detail: str
    fix: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Package:
    """A library: its name, its module, its purpose, and how to try it.

    `trial` is Python code that prints the version on one line and details, if any, on a second. `distributions` are the names
    that pip knows it by, if they are not its own.
    """

    name: str
    module: str
    purpose: str
    trial: str
    distributions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Need:
    """What the project asks of a library: the requirement, and the extra that brings it (None: every install)."""

    requirement: Requirement
    extra: str | None = None

    @property
    def text(self) -> str:
        """The requirement as pip takes it, such as "cuda-core[cu13]>=1.0"."""
        extras = f"[{','.join(sorted(self.requirement.extras))}]" if self.requirement.extras else ""
        return f"{self.requirement.name}{extras}{self.requirement.specifier}"

    @property
    def install(self) -> str:
        return "pip install rtformer-deploy" if self.extra is None else f"pip install 'rtformer-deploy[{self.extra}]'"


class Answer(NamedTuple):
    """What a trial printed or, if it failed, why in one line."""

    ok: bool
    text: str


def project_needs() -> dict[str, Need]:
    """What the installed rtformer-deploy requires on this platform: library -> Need. If several extras bring it, the first one counts.

    Raises PackageNotFoundError in a checkout that is not installed, ImportError without `packaging`.
    """
    from packaging.requirements import Requirement

    project = metadata("rtformer-deploy")
    extras = (None, *(project.get_all("Provides-Extra") or ()))
    needs: dict[str, Need] = {}
    for requirement in map(Requirement, project.get_all("Requires-Dist") or ()):
        for extra in extras:
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""}):
                needs.setdefault(requirement.name.lower(), Need(requirement, extra))
    return needs


def need_of(package: Package, needs: Mapping[str, Need]) -> Need | None:
    """What the project asks of a package; None if the installed requirements do not name it."""
    return next((needs[name] for name in package.distributions or (package.name,) if name in needs), None)


def check_package(package: Package, need: Need | None, patience_s: float) -> Check:
    """A library, really imported: ok, missing, too old, or broken with the last line it printed. Without a Need any version is fine."""
    group = "Libraries" if need is None else "Required packages" if need.extra is None else "Optional packages"
    requirement = package.name if need is None else need.text
    if not is_there(package.module):
        state: State = "broken" if need is not None and need.extra is None else "missing"
        install = f"pip install {package.name}" if need is None else need.install
        return Check(group, package.name, state, f"not installed; for {package.purpose}", install)
    answer = run_python(package.trial, patience_s)
    if not answer.ok:
        return Check(group, package.name, "broken", answer.text, f"pip install --force-reinstall {requirement!r}")
    version, _, more = answer.text.partition("\n")
    if need is not None and not _satisfies(version, need):
        return Check(group, package.name, "broken", f"{version}, but {requirement} is needed", f"pip install --upgrade {requirement!r}")
    return Check(group, package.name, "ok", ", ".join(filter(None, (version, more.strip()))))


def run_function(trial: Callable[[], None], patience_s: float) -> Answer:
    """Calls a function of this project in a process of its own; see `run_python`."""
    return run_python(f"from {trial.__module__} import {trial.__name__} as trial; trial()", patience_s)


def run_python(code: str, patience_s: float) -> Answer:
    """Runs Python in a process of its own, for at most `patience_s` seconds."""
    command = [sys.executable, "-P", "-c", code]  # -P: a file of the same name in this folder must not be imported
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience_s, check=False)
    except subprocess.TimeoutExpired:
        return Answer(False, f"did not answer within {patience_s:g} s")
    if done.returncode < 0:
        return Answer(False, f"crashed with signal {-done.returncode}")
    if done.returncode > 0:
        return Answer(False, _last_line(done.stderr.splitlines()) or f"exit code {done.returncode}")
    return Answer(True, done.stdout.strip())


def is_there(module: str) -> bool:
    """Whether the module can be found, without importing more than its parent."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _satisfies(version: str, need: Need) -> bool:
    """Whether the project accepts a library's version; a text that is not a version is not accepted."""
    from packaging.version import InvalidVersion

    try:
        return need.requirement.specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
