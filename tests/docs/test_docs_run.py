"""The pages of README and docs, walked as they stand: each block runs, in the order of the page, unless it says why not.

What the pages call their own files is in a folder: a photograph, a clip, a labelled set as CamVid's, a checkpoint, a model, an engine.
The network is a small one where the pages take RTFormer: exporting that takes many seconds, and other tests do it.
"""

from __future__ import annotations

import pickle
import re
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from clips import ticks, write_clip
from docs_pages import ROOT, SHOWN, Block, blocks, lines, name
from page_network import TINY, Tiny
from PIL import Image

from rtformer_deploy.cli import main
from rtformer_deploy.formats.recipe import load_labels
from rtformer_deploy.nn import ARCHITECTURES
from rtformer_deploy.nvidia.driver import gpus

SIZE = (48, 64)
#: Words of the pages -> what stands for them here: every recipe is the small network's, and its classes are CamVid's.
HERE = {"rtformer-slim-camvid": "tiny.toml", "rtformer-slim-cityscapes": "tiny.toml", "cityscapes": "camvid"}
#: What makes a command quick; the last one of two equal options counts.
QUICK = {
    "bench": ["--seconds", "0.05", "--warmup", "0", "--threads", "1"],
    "build-engine": ["--threads", "1"],
    "evaluate": ["--threads", "1"],
    "profile": ["--rounds", "2", "--threads", "1"],
    "segment": ["--threads", "1"],
    "tune": ["--seconds", "0.02", "--max-drop", "100", "--threads", "1"],
}
#: Pages that a test of its own walks.
AT_HOME = {"docs/own-data.md": "tests/test_own_data.py", "README.md": "test_the_tour_prints_what_the_readme_shows"}
#: The page whose first block, the library's ten lines, runs in test_docs_python.py.
TEN_LINES = "docs/library.md"


@pytest.fixture(scope="module", autouse=True)
def small_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, small_network: None) -> Path:
    """The folder that each page's own folder is a copy of."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    classes = len(load_labels("camvid").names)
    for split in ("train", "val"):
        for number in range(2):
            for half, suffix in (("images", "jpg"), ("labels", "png")):
                (folder / "camvid" / half / split).mkdir(parents=True, exist_ok=True)
                high = 256 if half == "images" else classes
                pixels = rng.integers(0, high, (6, 8, 3) if half == "images" else (6, 8), np.uint8).repeat(8, 0).repeat(8, 1)
                Image.fromarray(pixels).save(folder / "camvid" / half / split / f"{number}.{suffix}")
    shutil.copytree(folder / "camvid" / "images" / "val", folder / "photographs")
    shutil.copytree(folder / "photographs", folder / "photos")
    shutil.copy(folder / "photographs" / "0.jpg", folder / "street.jpg")
    shutil.copy(folder / "photographs" / "0.jpg", folder / "photo.jpg")
    write_clip(folder / "clip.mp4", ticks(3), SIZE)
    (folder / "tiny.toml").write_text('name = "small"\ndataset = "camvid"\n[architecture]\nname = "tiny"\n[input]\nsize = [48, 64]\n')
    state = {key: value.numpy() for key, value in Tiny(classes).state_dict().items() if "num_batches" not in key}
    (folder / "model.pdparams").write_bytes(pickle.dumps(state, protocol=2))
    shutil.copytree(ROOT / "models" / "samples", folder / "models" / "samples")
    with chdir(folder):
        run(["export", "--variant", "slim"])
        run(["calibrate", "model.onnx", "--images", "photographs", "--output", "ranges.json"])
        run(["build-engine", "model.onnx"])
        (folder / "results").mkdir()
        run(["bench", "engine.plan", "--json", "results/bench.json"])
    model = onnx.load(folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, folder / "other.onnx")
    return folder


def run(words: list[str]) -> str:
    """Runs a call of rtformer-deploy with the small network; returns what it printed. Fails unless it did its work."""
    words = [HERE.get(word, word) for word in words]
    if "--variant" in words:
        place = words.index("--variant")
        words[place : place + 2] = ["--recipe", "tiny.toml", "--random-weights"]
    if "--int8" in words and not {"--ranges", "--images", "--recipe"} & set(words):
        words += ["--images", "photographs"]  # none come with the small network
    if "--output-name" in words:
        words[words.index("--output-name") + 1] = "logits"
    if "--input" in words:
        words[words.index("--input") + 1] = "48x64"
    result = CliRunner().invoke(main, [*words, *QUICK.get(words[0], [])])
    gate = any(word.startswith("--max-") for word in words)  # random weights may miss a bound
    assert result.exit_code == 0 or (gate and result.exit_code == 3), f"{' '.join(words)}\n{result.output}"
    return result.output


#: Lines of the README's output that only the shipped network and its ranges give.
SHIPPED = ("Taking the recipe rtformer-slim-camvid", "Exporting rtformer-slim-camvid", "Ranges: those that come with rtformer-slim-camvid")


def shape(line: str) -> str:
    """A line of output without what differs from one network and machine to the next: numbers, names, classes, rules, spaces."""
    classes = "|".join(load_labels("camvid").names)
    line = re.sub(rf"\b({classes})\b", "CLASS", line).replace("rtformer-slim-camvid", "small")
    line = re.sub(r"(?<![a-z])<?\d[\d.,x]*(e-\d+)?%?", "#", line).replace("layers", "layer")
    return " ".join(re.sub("─+", "─", line).split())


def test_the_tour_prints_what_the_readme_shows(prepared: Path, tmp_path: Path) -> None:
    if gpus():
        pytest.skip("the README's output is that of a machine without a GPU")
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    printed, compared = "", 0
    with chdir(folder):
        for block in blocks(ROOT / "README.md"):
            if block.language == "text" and printed:
                shapes = {shape(line) for line in printed.splitlines()}
                ours = [line for line in block.text.splitlines() if line not in ("", "…") and not line.startswith(SHIPPED)]
                assert [line for line in ours if shape(line) not in shapes] == [], printed
                compared += len(ours)
            elif block.language == "" and block.why_not is None:
                printed = "".join(run(words) for program, *words in lines(block) if program == "rtformer-deploy")
            else:
                printed = ""  # what follows is the output of a command that does not run here
    assert compared > 15


def walked(page: Path) -> list[Block]:
    """The blocks of a page that run here."""
    if name(page) in AT_HOME:
        return []
    found = [block for block in blocks(page) if block.why_not is None and block.language != "text"]
    return found[1:] if name(page) == TEN_LINES else found


@pytest.mark.parametrize("page", [page for page in SHOWN if walked(page)], ids=name)
def test_a_page_runs_as_it_stands(page: Path, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    with chdir(folder):
        for block in walked(page):
            RUNNERS[block.language](block)


def run_commands(block: Block) -> None:
    for program, *words in lines(block):
        if program == "rtformer-deploy":
            run(words)
        else:
            assert program in ("pip", "make"), f"{block}: {program} does not run here: say why not above the block"


def run_python(block: Block) -> None:
    exec(compile(block.text, str(block), "exec"), {})


def read_toml(block: Block) -> None:
    if re.search(r"^\[layout\]", block.text, re.MULTILINE):  # a whole dataset file
        Path("shown.toml").write_text(block.text)
        assert load_labels("shown.toml").names == tuple(tomllib.loads(block.text)["classes"])
    else:
        tomllib.loads(block.text)


def refuse(block: Block) -> Any:
    raise AssertionError(f"{block}: {block.language} does not run here: say why not above the block")


RUNNERS = {"": run_commands, "python": run_python, "toml": read_toml, "yaml": refuse, "ini": refuse, "dockerfile": refuse}


def test_most_blocks_run_and_the_others_say_why_not() -> None:
    every = [block for page in SHOWN for block in blocks(page) if block.language != "text" and name(page) not in AT_HOME]
    reasons = [block.why_not for block in every if block.why_not is not None]
    assert all(len(reason) > 10 for reason in reasons)
    assert len(every) - len(reasons) > 25
