"""Every kernel compiles with NVRTC, to PTX and to machine code, for each generation of GPUs, without a warning or a spilled register."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from emulated_cuda import prototypes

from rtformer_deploy.nvidia.nvrtc import compile_kernel_file

ARCHITECTURES = ("75", "80", "89", "90", "120")
SOURCES = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "plugins").glob("*.cu"))

pytest.importorskip("cuda.core", reason="needs cuda-core with its bindings", exc_type=ImportError)


def kernels(root: Path, name: str) -> set[str]:
    return set(prototypes((root / "plugins" / f"{name}.cu").read_text()))


def room(size: int) -> bytes:
    """Bytes for NVRTC to write into, always an object of their own: Python shares every bytes object of length 1, as b" " * 1 is."""
    return bytes(size + 1)


def test_every_source_is_here() -> None:
    others = ["grouped_double_norm", "nv12_to_rgb", "overlay", "preprocess"]
    assert [*others, "upsample_argmax", "upsample_argmax_plugin", "upsample_argmax_warp"] == SOURCES


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_ptx(root: Path, name: str, arch: str) -> None:
    """Through NVRTC's own API: cuda.core asks the driver, which is not here, before it makes PTX."""
    from cuda.bindings import nvrtc

    def call(done: tuple[Any, ...]) -> Any:
        assert done[0] == nvrtc.nvrtcResult.NVRTC_SUCCESS, done
        return done[1] if len(done) > 1 else None

    source = (root / "plugins" / f"{name}.cu").read_text()
    program = call(nvrtc.nvrtcCreateProgram(source.encode(), f"{name}.cu".encode(), 0, [], []))
    options = [f"--gpu-architecture=compute_{arch}", f"--include-path={root / 'plugins'}", "--std=c++17", "--fmad=false"]
    (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    log = room(call(nvrtc.nvrtcGetProgramLogSize(program)))
    call(nvrtc.nvrtcGetProgramLog(program, log))
    assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS, log.decode()
    assert log.strip(b" \0\n") == b"", log.decode()
    ptx = room(call(nvrtc.nvrtcGetPTXSize(program)))
    call(nvrtc.nvrtcGetPTX(program, ptx))
    text = ptx.rstrip(b"\0").decode()
    assert f".target sm_{arch}" in text
    assert set(re.findall(r"\.visible \.entry (\w+)\(", text)) == kernels(root, name)
    if name != "grouped_double_norm":  # what has to have the CPU's bits fuses nothing
        assert "fma." not in text
    call(nvrtc.nvrtcDestroyProgram(program))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_machine_code_spills_nothing(root: Path, name: str, arch: str) -> None:
    from cuda.core import Program, ProgramOptions

    source = (root / "plugins" / f"{name}.cu").read_text()
    options = ProgramOptions(
        name=f"{name}.cu", arch=f"sm_{arch}", include_path=[str(root / "plugins")], fma=False, ptxas_options="--verbose"
    )
    log = io.StringIO()
    Program(source, "c++", options).compile("cubin", logs=log)
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log.getvalue())
    assert spills == [("0", "0", "0")] * len(kernels(root, name)), log.getvalue()
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", log.getvalue())]
    assert max(registers) <= 64, "a block of 1024 threads has 64 registers a thread"
    assert "warning" not in log.getvalue()


@pytest.mark.parametrize("name", SOURCES)
def test_as_the_runtime_compiles_them(name: str) -> None:
    import cuda.core

    assert len(bytes(compile_kernel_file(cuda.core, name, "90").code)) > 1000


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("name", SOURCES)
def test_nvcc(root: Path, name: str, tmp_path: Path) -> None:
    """The host's pass as well, with its warnings."""
    command = ["nvcc", "-std=c++17", "-arch=sm_75", "-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra", "-c"]
    target = tmp_path / "kernel.o"
    done = subprocess.run([*command, str(root / "plugins" / f"{name}.cu"), "-o", str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size > 0
