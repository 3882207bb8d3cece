"""Every TensorRT name in our source, looked up in the public names of five real TensorRT versions and of TensorRT-RTX.

Standard TensorRT cannot be installed where these tests run, so this is what catches a call that one version does not have. Looked at
are attribute chains that start at `trt` (or at `....module`), names assigned from such chains, and members of variables whose name
says what they are (`CLASSES`). A name may be missing where `hasattr(x, "name")` or `getattr(x, "name", default)` guards it.
"""

from __future__ import annotations

import ast
import gzip
import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Names = dict[str, list[str]]

DATA = Path(__file__).resolve().parents[2] / "data" / "trt_api"
VERSIONS = ("10.0.1", "10.3.0", "10.16.1.11", "11.0.0.114", "11.4.0.106")
#: What a variable (or an attribute) of this name holds, in the files that use `trt`.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "layer": "ILayer",
    "problem": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "cache": "ITimingCache",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
    "serialization": "ISerializationConfig",
    "runtime_config": "IRuntimeConfig",
    "runtime_cache": "IRuntimeCache",
}
#: Reached only with TensorRT-RTX (`library.name == "tensorrt-rtx"`, or behind a `hasattr` of the class or of what makes the object), so
#: that these have to exist there alone.
RTX_ONLY = {
    "CudaGraphStrategy.DISABLED",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
    "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy",
    "DynamicShapesKernelSpecializationStrategy.EAGER",
    "ComputeCapability.CURRENT",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IRuntimeCache.deserialize",
    "IRuntimeCache.serialize",
    "IRuntimeConfig.set_runtime_cache",
}


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a TensorRT name: ("Runtime", None) for `trt.Runtime`, ("Runtime", "logger") for a member."""

    line: int
    owner: str
    member: str | None = None

    def __str__(self) -> str:
        return self.owner if self.member is None else f"{self.owner}.{self.member}"


@dataclass
class Finder:
    """Walks a module's tree and collects the unguarded uses; statement blocks carry the guards that hold in them."""

    found: list[Use] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    ours: set[str] = field(default_factory=set)

    def block(self, statements: Iterable[ast.stmt], guards: frozenset[str]) -> None:
        for statement in statements:
            guards |= self.visit(statement, guards)

    def visit(self, node: ast.AST, guards: frozenset[str]) -> frozenset[str]:
        """Collects what the node uses; gives the guards that hold after it (an `if not hasattr(...): return`)."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.function(node, guards)
        elif isinstance(node, ast.If):
            return self.condition(node, guards)
        elif isinstance(node, ast.IfExp):
            self.visit(node.test, guards)
            self.visit(node.body, guards | guarded(node.test))
            self.visit(node.orelse, guards | guarded(negated(node.test)))
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for value in node.values:
                self.visit(value, guards)
                guards |= guarded(value)
        else:
            if isinstance(node, ast.Attribute):
                self.attribute(node, guards)
            if isinstance(node, ast.Assign):
                self.assignment(node)
            for name, value in ast.iter_fields(node):
                if name in ("body", "orelse", "finalbody") and isinstance(value, list):
                    self.block(value, guards)
                else:
                    for child in value if isinstance(value, list) else [value]:
                        if isinstance(child, ast.AST):
                            self.visit(child, guards)
        return frozenset()

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, guards: frozenset[str]) -> None:
        """A parameter that is annotated as something other than Any is ours, whatever its name."""
        before = self.ours
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        typed = {a.arg for a in arguments if a.annotation is not None and ast.unparse(a.annotation) != "Any"}
        self.ours = (before - {a.arg for a in arguments}) | typed
        self.block(node.body, guards)
        self.ours = before

    def condition(self, node: ast.If, guards: frozenset[str]) -> frozenset[str]:
        self.visit(node.test, guards)
        self.block(node.body, guards | guarded(node.test))
        without = guarded(negated(node.test))
        self.block(node.orelse, guards | without)
        ends = isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue)
        return without if ends else frozenset()

    def assignment(self, node: ast.Assign) -> None:
        """`flags = trt.BuilderFlag`, and tuples of the same."""
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name) and (chain := module_chain(value, self.aliases)) is not None and len(chain) == 1:
                    self.aliases[name.id] = chain[0]

    def attribute(self, node: ast.Attribute, guards: frozenset[str]) -> None:
        if node.attr.startswith("__") or ast.unparse(node) in guards:
            return
        chain = module_chain(node, self.aliases)
        if chain is not None and 1 <= len(chain) <= 2:
            self.found.append(Use(node.lineno, *chain))
        elif chain is None and (owner := self.instance(node.value)) is not None:
            self.found.append(Use(node.lineno, owner, node.attr))

    def instance(self, node: ast.expr) -> str | None:
        """The class of a variable or attribute whose name says it; None for one of ours."""
        if isinstance(node, ast.Name):
            return None if node.id in self.ours else CLASSES.get(node.id.lstrip("_"))
        return CLASSES.get(node.attr.lstrip("_")) if isinstance(node, ast.Attribute) else None


def module_chain(node: ast.AST, aliases: dict[str, str]) -> list[str] | None:
    """The names that follow the TensorRT module in a chain: `trt.A.B` and `library.module.A.B` -> [A, B]; None for another chain."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        if node.attr == "module":
            return names
        names.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id == "trt":
        return names
    return [aliases[node.id], *names] if isinstance(node, ast.Name) and node.id in aliases else None


def guarded(test: ast.expr) -> frozenset[str]:
    """The chains that exist where the test holds."""
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return frozenset().union(*map(guarded, test.values))
    if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id in ("hasattr", "getattr"):
        base, name = test.args[:2]
        if isinstance(name, ast.Constant):
            return frozenset({f"{ast.unparse(base)}.{name.value!s}"})
    return frozenset()


def negated(test: ast.expr) -> ast.expr:
    """`not x` -> `x`; of another test nothing is known where it fails."""
    return test.operand if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) else ast.Constant(None)


def uses(source: str) -> list[Use]:
    finder = Finder()
    finder.block(ast.parse(source).body, frozenset())
    return sorted(set(finder.found), key=lambda use: (use.line, str(use)))


def missing(found: Iterable[Use], names: Names) -> list[str]:
    return [f"line {use.line}: {use}" for use in found if use.owner not in names or (use.member and use.member not in names[use.owner])]


def sources(root: Path) -> Iterator[Path]:
    """The files that use TensorRT: those that mention `trt` as a name."""
    for path in sorted((root / "rtformer_deploy").rglob("*.py")):
        tree = ast.parse(path.read_text())
        if any(
            isinstance(node, ast.Name | ast.arg) and "trt" in (getattr(node, "id", ""), getattr(node, "arg", "")) for node in ast.walk(tree)
        ):
            yield path


def load_names(version: str) -> Names:
    names: Names = json.loads(gzip.decompress((DATA / f"tensorrt-{version}.json.gz").read_bytes()))["names"]
    return names


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_in_every_standard_tensorrt(root: Path, version: str) -> None:
    names = load_names(version)
    wrong = {
        path.name: lines
        for path in sources(root)
        if (lines := missing((use for use in uses(path.read_text()) if str(use) not in RTX_ONLY), names))
    }
    assert wrong == {}


def test_every_name_is_in_tensorrt_rtx(root: Path) -> None:
    module = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    names = {name: dir(value) if inspect.isclass(value) else [] for name, value in vars(module).items()}
    wrong = {path.name: lines for path in sources(root) if (lines := missing(uses(path.read_text()), names))}
    assert wrong == {}


def test_the_builder_and_the_runner_are_looked_at(root: Path) -> None:
    found = {path.relative_to(root / "rtformer_deploy").as_posix(): {str(use) for use in uses(path.read_text())} for path in sources(root)}
    assert {"backends/tensorrt/build.py", "backends/tensorrt/run.py", "backends/tensorrt/plan.py"} <= found.keys()
    assert {"OnnxParser", "IBuilderConfig.set_memory_pool_limit", "ParserError.node_operator"} <= found["backends/tensorrt/build.py"]
    assert {"INetworkDefinition.num_layers", "ILayer.get_output", "LayerType"} <= found["backends/tensorrt/precision.py"]
    assert "EngineInspector.get_engine_information" in found["backends/tensorrt/run.py"]
    assert {"Runtime", "Runtime.deserialize_cuda_engine", "ICudaEngine.get_tensor_name"} <= found["backends/tensorrt/plan.py"]
    refits = {"Refitter", "Refitter.get_all_weights", "OnnxParserRefitter.refit_from_bytes", "ICudaEngine.refittable"}
    assert refits <= found["backends/tensorrt/refit.py"]
    assert {"BuilderFlag.REFIT", "BuilderFlag.STRIP_PLAN"} <= found["backends/tensorrt/build.py"]
    runs = {"IExecutionContext.execute_async_v3", "IExecutionContext.set_input_shape", "IExecutionContext.set_tensor_address"}
    assert runs <= found["backends/tensorrt/plan.py"]


def test_what_is_said_to_be_one_librarys_own_is(root: Path) -> None:
    used = {str(use) for path in sources(root) for use in uses(path.read_text())}
    assert used >= RTX_ONLY
    module = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx")
    for name in RTX_ONLY:
        owner, _, member = name.partition(".")
        assert hasattr(module, owner)
        assert not member or hasattr(getattr(module, owner), member)


# The checker itself.

NAMES: Names = {
    "Runtime": ["deserialize_cuda_engine", "logger"],
    "BuilderFlag": ["TF32"],
    "ICudaEngine": ["name"],
    "IBuilderConfig": ["set_flag"],
    "float32": [],
}
EVERYWHERE = """
for a in b:
    with c:
        try:
            config.a
        except E:
            config.b
        finally:
            config.c
"""


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("trt.Runtime(trt.float32)", []),
        ("trt.Runtim()", ["Runtim"]),
        ("x = trt.BuilderFlag.FP16", ["BuilderFlag.FP16"]),
        ("x = trt.BuilderFlag.TF32.value.more", []),
        ("library.module.Runtim()", ["Runtim"]),
        ("class Logger(trt.ILogger): pass", ["ILogger"]),
        ("class Logger(trt.Runtime):\n def __init__(self):\n  trt.Runtime.__init__(self)", []),
        ("flags = trt.BuilderFlag\nflags.FP16", ["BuilderFlag.FP16"]),
        ("flags, log = trt.BuilderFlag, 1\nflags.FP16\nlog.FP16", ["BuilderFlag.FP16"]),
        ("config.set_flag(1)", []),
        ("config.set_flags(1)", ["IBuilderConfig.set_flags"]),
        ("config.flags = 3", ["IBuilderConfig.flags"]),
        ("self._engine.nam", ["ICudaEngine.nam"]),
        ("plan.engine.name.upper()", []),
        ("def f(engine: Engine): engine.plan", []),
        ("def f(engine: Any): engine.plan", ["ICudaEngine.plan"]),
        ("def f(engine: Engine):\n  def g(engine: Any): engine.plan", ["ICudaEngine.plan"]),
        ("if hasattr(config, 'flags'):\n  config.flags = 3", []),
        ("if hasattr(config, 'flags'):\n  config.flog = 3", ["IBuilderConfig.flog"]),
        ("if hasattr(config, 'flags'):\n  pass\nelse:\n  config.flags = 3", ["IBuilderConfig.flags"]),
        ("if hasattr(config, 'flags'):\n  pass\nconfig.flags = 3", ["IBuilderConfig.flags"]),
        ("if not hasattr(config, 'flags'):\n  raise E\nconfig.flags = 3", []),
        ("def f():\n  if not hasattr(config, 'flags'):\n    return\n  config.flags = 3", []),
        ("if not hasattr(config, 'flags'):\n  config.flags = 3", ["IBuilderConfig.flags"]),
        ("x = config.flags if hasattr(config, 'flags') else 0", []),
        ("x = hasattr(config, 'flags') and config.flags", []),
        ("x = config.flags and hasattr(config, 'flags')", ["IBuilderConfig.flags"]),
        ("if hasattr(trt.BuilderFlag, 'FP16'):\n  trt.BuilderFlag.FP16", []),
        ("if hasattr(trt.Flags, 'FP16'):\n  trt.Flags.FP16", ["Flags"]),
        ("x = getattr(trt.BuilderFlag, 'FP16', None)", []),
        (EVERYWHERE, ["IBuilderConfig.a", "IBuilderConfig.b", "IBuilderConfig.c"]),
        ("f = lambda: [config.a for _ in trt.B]", ["B", "IBuilderConfig.a"]),
        ("match x:\n  case 1:\n    config.a", ["IBuilderConfig.a"]),
    ],
)  # fmt: skip
def test_the_checker(source: str, wrong: list[str]) -> None:
    found = missing(uses(source), NAMES)
    assert sorted({line.split(": ")[1] for line in found}) == sorted(wrong)


def test_a_name_that_only_some_versions_have_is_caught() -> None:
    found = uses("layer.precision = trt.float16\nconfig.int8_calibrator = None\nengine.device_memory_size_v2")
    assert [len(missing(found, load_names(version))) for version in VERSIONS] == [1, 0, 0, 2, 2]
