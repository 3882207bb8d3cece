"""Weights files made to crash, to run without end or to take all memory: one message each, within limits of memory and time."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.nn.pdparams import parse_pdparams

ROOT = Path(__file__).resolve().parents[2]


def shared_tuples(before: bytes, after: bytes) -> bytes:
    """62 tuples, each of which holds the one before it twice: 2**62 values to whoever follows them."""
    doubled = b"".join(b"q%ch%c\x86" % (index, index) for index in range(62))
    return b"\x80\x02}" + before + b"N" + doubled + after


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def repeated_bytes() -> bytes:
    """One megabyte of text that is encoded 5000 times."""
    return b"\x80\x02]c_codecs\nencode\nq\x01a" + text("x" * 2**20) + b"q\x02a" + b"h\x01h\x02\x85Ra" * 5000 + b"."


def array_under_many_names() -> bytes:
    """An array of one megabyte under 5000 names."""
    array = np.zeros(2**18, np.float32)
    return pickle.dumps({f"k{index}": array for index in range(5000)}, 2)


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def repacked(data: bytes, change: Callable[[str, bytes], bytes], compression: int) -> bytes:
    """A torch file with its members changed and packed anew."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", compression, compresslevel=1) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return target.getvalue()


def zip_bomb() -> bytes:
    """Under 2 MB that unfold to 400 MB."""
    unfolded = bytes(400 * 10**6)
    return repacked(saved({"a": torch.ones(3)}), lambda name, data: unfolded if name.endswith("data/0") else data, zipfile.ZIP_DEFLATED)


def with_pickle(data: bytes) -> bytes:
    return repacked(saved({"a": torch.ones(3)}), lambda name, old: data if name.endswith("data.pkl") else old, zipfile.ZIP_STORED)


def many_members() -> bytes:
    """A zip directory of 500,000 entries."""
    entry = zipfile.ZipInfo("a")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(entry, b"")
        directory = b"PK\x01\x02" + bytes(24) + b"\x00" * 18
    whole = target.getvalue()
    start = whole.index(b"PK\x01\x02")
    count = 500_000
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + (len(directory) * count).to_bytes(4, "little") + start.to_bytes(4, "little")
    return whole[:start] + directory * count + end + b"\x00\x00"


NESTED_TUPLES = b"\x80\x02}N" + b"\x85" * 3_000_000 + b"K\x01s."
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nested_key.pdparams": (lambda: NESTED_TUPLES, "more than 500,000 operations"),
    "less_nested_key.pdparams": (lambda: b"\x80\x02}N" + b"\x85" * 200_000 + b"K\x01s.", "a tuple as a key"),
    "nested_value.pdparams": (lambda: b"\x80\x02}" + text("a") + b"N" + b"\x85" * 200_000 + b"s.", "'a' is not an array"),
    "memo.pdparams": (lambda: b"\x80\x02}r\0\0\0\x08.", "the number 134217728, which is too large"),
    "shared_key.pdparams": (lambda: shared_tuples(b"", b"K\x01s."), "a tuple as a key"),
    "shared_value.pdparams": (lambda: shared_tuples(text("a"), b"s."), "'a' is not an array"),
    "shared_shape.pdparams": (lambda: b"\x80\x02cnumpy\ndtype\n" + shared_tuples(b"", b"\x85R.")[3:], "type unknown"),
    "itself.pdparams": (lambda: b"\x80\x02}" + text("a") + b"]q\x00h\x00as.", "'a' is not an array"),
    "items.pdparams": (
        lambda: b"\x80\x02ccollections\nOrderedDict\n)R}" + text("items") + b"K\x05sb.",
        "neither an array nor a number type",
    ),
    "function.pdparams": (
        lambda: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}" + text("__defaults__") + b"K\x05sb.",
        "neither an array nor a number type",
    ),
    "marks.pdparams": (lambda: b"\x80\x02" + b"(" * 100_001 + b".", "more than 100,000 marks"),
    "stack.pdparams": (lambda: b"\x80\x02" + b"N" * 100_001 + b".", "more than 100,000 values"),
    "integer.pdparams": (lambda: b"\x80\x02\x8b" + (2**20).to_bytes(4, "little") + b"\x7f" * 2**20 + b".", "the opcode LONG4"),
    "digits.pdparams": (lambda: b"I" + b"9" * 2**20 + b"\n.", "not a .pdparams file"),
    "line.pdparams": (lambda: b"S" + b"\0" * (60 * 2**20) + b"\n.", "not a .pdparams file"),
    "length.pdparams": (lambda: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "not a .pdparams file"),
    "frame.pdparams": (lambda: b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.", "a frame is longer than the file"),
    "name.pdparams": (lambda: b"c" + b"x" * 4000 + b"\ny\n.", "it asks for xxx"),
    "encoded.pdparams": (repeated_bytes, "it repeats its bytes"),
    "many_names.pdparams": (array_under_many_names, "one array to several names"),
    "nested_key.pth": (lambda: with_pickle(NESTED_TUPLES), "more than 500,000 operations"),
    "shared_key.pth": (lambda: with_pickle(shared_tuples(b"", b"K\x01s.")), "a tuple as a key"),
    "bomb.pth": (zip_bomb, "is compressed"),
    "members.pth": (many_members, "more than 100,000 members"),
    "expanded.pth": (lambda: saved({"a": torch.ones(1).expand(10**9)}), "'a' is expanded"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("the limits of memory are Linux's")
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in FILES.items():
        (folder / name).write_bytes(make())
    command = [sys.executable, str(ROOT / "tests" / "limited.py"), *(str(folder / name) for name in FILES)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return dict(zip(FILES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_one_short_message(answers: dict[str, dict[str, object]], name: str) -> None:
    answer = answers[name]
    assert list(answer) == ["error"], answer
    message = str(answer["error"])
    assert FILES[name][1] in message
    assert len(message) < 1000


@pytest.mark.parametrize("opcode", [b"P1\n", b"Q", b"\x82\x01", b"o", b"\x81", b"\x92", b"i os\nsystem\n", b"2", b"0", b"\x96" + bytes(8)])
def test_opcodes_that_weights_do_not_need_are_refused_by_name(opcode: bytes) -> None:
    with pytest.raises(WeightsError, match=r"it uses the opcode|refers to something outside the file"):
        parse_pdparams(b"\x80\x02N" + opcode + b".", "model.pdparams")
