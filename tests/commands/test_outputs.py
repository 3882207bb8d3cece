"""What a command writes is checked before the work: it meets no input and no other output, and replaces only files of its own kind."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result
from helpers import frames, tiny_model, tiny_spec
from PIL import Image

from rtformer_deploy.backends import build
from rtformer_deploy.cli import main
from rtformer_deploy.commands import kinds
from rtformer_deploy.commands.kinds import Kind
from rtformer_deploy.commands.outputs import Output, Places, check_outputs, file_inputs, refuse_meeting
from rtformer_deploy.errors import OutputError
from rtformer_deploy.files import remove, temporary_folder, write_together, writing
from rtformer_deploy.formats.build_table import TUNED
from rtformer_deploy.formats.engine_file import save_engine
from rtformer_deploy.formats.model_file import load_model, save_model
from rtformer_deploy.graph.functions import inline_functions
from rtformer_deploy.image.png import is_ours, save_png
from rtformer_deploy.pictures import PAGE_MARK, SVG_MARK
from rtformer_deploy.training.checkpoint import KEY
from rtformer_deploy.types import BuildOptions
from rtformer_deploy.unfinished import MACHINE, clean_up

Run = Callable[..., Result]

SIDECAR = json.dumps({"plan_sha256": "", "spec": {}, "backend": ""})
RANGES = json.dumps({"amax": {}, "method": "mse", "images": 1})
RECIPE = 'name = "x"\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in a folder with a model, a plan, an image and files of other kinds; no engine is ever opened."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), Path("m.onnx"))
    Path("e.plan").write_bytes(b"plan")
    Path("e.plan.json").write_text(SIDECAR)
    Path("r.json").write_text(RANGES)
    Path("notes.txt").write_text("notes")
    Path("w.safetensors").write_bytes(safetensors.numpy.save({"a": np.zeros(1)}))
    Path("photos").mkdir()
    Image.fromarray(frames((40, 60))[0]).save("photos/a.png")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


DATA = ("--dataset", "camvid", "--root", ".")

REFUSED = {
    "the sidecar": (("bench", "e.plan", "--json", "e.plan.json"), "e.plan.json: it is where the sidecar of e.plan belongs"),
    "a sidecar to be": (("bench", "m.onnx", "--html", "m.onnx.json"), "m.onnx.json: it is where the sidecar of m.onnx belongs"),
    "a runtime cache": (("bench", "e.plan", "--html", "e.plan.cache"), "e.plan.cache: it is where the runtime cache of e.plan belongs"),
    "by another path": (("bench", "e.plan", "--json", "photos/../e.plan.json"), "it is where the sidecar of e.plan belongs"),
    "evaluate": (("evaluate", "e.plan", *DATA, "--json", "e.plan.json"), "it is where the sidecar of e.plan belongs"),
    "the model": (("calibrate", "m.onnx", "--images", "photos", "-o", "m.onnx"), "m.onnx: it is itself an input"),
    "the plan": (("profile", "e.plan", "--svg", "e.plan"), "e.plan: it is itself an input"),
    "itself": (("bench", "e.plan", "--json", "r", "--html", "r"), "r twice: as a report of bench and as a page"),
    "itself in capitals": (("bench", "e.plan", "--json", "r", "--html", "R"), "R twice"),
    "the weights": (("export", "--weights", "w.safetensors", "-o", "w.safetensors"), "w.safetensors: it is itself an input"),
    "somebody's weights": (
        ("import-weights", "p.pth", "--recipe", "rtformer-slim-camvid", "-o", "w.safetensors"),
        "the file there is not weights that name their recipe",
    ),
    "a ranges file": (("verify", "m.onnx", "e.plan", "photos", "--json", "r.json"), "r.json: it is a ranges file, not a report of verify"),
    "a model": (("verify", "e.plan", "e.plan", "photos", "--picture", "m.onnx"), "it is a model that rtformer-deploy exported, not a PNG"),
    "a photograph": (("verify", "m.onnx", "e.plan", "photos", "--picture", "photos/a.png"), "photos/a.png: the file there is not a PNG"),
    "somebody's file": (("bench", "e.plan", "--json", "notes.txt"), "notes.txt: the file there is not a report of bench"),
    "a timing cache": (
        ("build-engine", "m.onnx", "-o", "q.plan", "--timing-cache", "q.plan"),
        "q.plan twice: as an engine plan with its sidecar and as a timing cache",
    ),
    "text as timings": (("build-engine", "m.onnx", "--timing-cache", "notes.txt"), "notes.txt: the file there is not a timing cache"),
    "the ranges": (("build-engine", "m.onnx", "--int8", "--ranges", "r.json", "-o", "r.json"), "r.json: it is itself an input"),
    "a folder": (("build-engine", "m.onnx", "-o", "folder.plan"), "folder.plan.json: it is a folder"),
    "a file as folder": (("bench", "e.plan", "--json", "notes.txt/b.json"), "notes.txt/b.json: Not a directory"),
    "segment's folder": (("segment", "m.onnx", "photos", "-o", "notes.txt/out"), "notes.txt is not a folder"),
    "tune's recipe": (("tune", "m.onnx", *DATA, "-o", "tuned"), "tuned/recipe.toml: the file there is not a recipe that tune wrote"),
    "train's log": (
        ("train", "--recipe", "rtformer-slim-camvid", "--root", ".", "-o", "tuned"),
        "tuned holds a run already: log.jsonl",
    ),
}


@pytest.mark.parametrize(("command", "message"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_before_the_work(run: Run, command: tuple[str, ...], message: str) -> None:
    Path("folder.plan.json").mkdir()
    Path("tuned").mkdir()
    Path("tuned/recipe.toml").write_text(RECIPE)
    Path("tuned/log.jsonl").write_text("mine")
    before = everything()
    result = run(*command)
    assert result.exit_code == (2 if "holds a run" in message else 1), result.output
    assert isinstance(result.exception, SystemExit)
    assert message in result.stderr
    assert everything() == before


def test_a_folder_that_is_resolved_once_gives_what_realpath_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a/b").mkdir(parents=True)
    Path("a/b/file").touch()
    Path("to_b").symlink_to("a/b")
    Path("a/b/to_file").symlink_to("file")
    Path("round").symlink_to("round")
    places = Places()
    for name in (
        "a/b/file",
        "to_b/file",
        "to_b/none",
        "to_b/to_file",
        "to_b",
        "a/../to_b/..",
        "none/none",
        "round",
        "round/x",
        ".",
        "/",
        "file",
    ):
        assert places.real(Path(name)) == os.path.realpath(name), name


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_do_not_hide_an_input(run: Run, link: Callable[[str, str], None]) -> None:
    link("m.onnx", "other")
    assert "other: it is itself an input" in run("calibrate", "m.onnx", "--images", "photos", "-o", "other").stderr


def test_a_disk_that_ignores_case_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On such a disk M.onnx is the file m.onnx: both names have one place on it."""
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: real(str(path).lower(), **options))
    (tmp_path / "m.onnx").write_bytes(b"model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="itself an input"):
        refuse_meeting([Output(Path("M.onnx"), kinds.RANGES)], file_inputs("m.onnx"))


def whole(kind: Kind, path: Path) -> None:
    """Writes the smallest file of a kind."""
    documents: dict[Kind, Any] = {
        kinds.SIDECAR: {"plan_sha256": "", "spec": {}, "backend": ""},
        kinds.RANGES: {"amax": {}, "method": "", "images": 1},
        kinds.BENCH: {"engine": {}, "end_to_end": {}, "environment": {}},
        kinds.PROFILE: {"whole_ms": 1, "layers": [], "blocks": [], "rounds": 1},
        kinds.SCORES: {"miou": 1, "confusion": [], "classes": []},
        kinds.COMPARISON: {"a": "", "b": "", "stages": [], "flips": 0},
        kinds.TUNING: {"points": [], "baseline": {}, "max_drop": 1},
        kinds.TRAINING_LOG: {"kind": "start", "time": ""},
        kinds.JOURNAL: {"kind": "run", "identity": {}},
        kinds.COMPARED: {"compared": "suite", "rows": [], "environment": {}},
        kinds.COMPARE_FACTS: {"key": "", "plan_sha256": "", "macs": 1},
        kinds.COMPARE_STATE: {"kind": "run", "identity": {"command": "compare"}},
    }
    if kind in documents:
        path.write_text(json.dumps(documents[kind]) + "\n")
    elif kind is kinds.PLAN:
        path.write_bytes(b"plan")
        whole(kinds.SIDECAR, path.with_name(path.name + ".json"))
    elif kind is kinds.MODEL:
        save_model(tiny_model(), path)
    elif kind is kinds.PICTURE:
        save_png(path, np.zeros((2, 2), np.uint8))
    elif kind in (kinds.WEIGHTS, kinds.CHECKPOINT):
        metadata = {"recipe": "x"} if kind is kinds.WEIGHTS else {KEY: "{}"}
        path.write_bytes(safetensors.numpy.save({"a": np.zeros(1)}, metadata))
    else:
        marks = {
            kinds.RECIPE: f"# {TUNED}: x\n",
            kinds.PAGE: f"<!doctype html>\n{PAGE_MARK}",
            kinds.DRAWING: f"<svg>\n<!-- {SVG_MARK} -->",
        }
        path.write_text(marks[kind])


@pytest.mark.parametrize("kind", kinds.KNOWN, ids=lambda kind: kind.name)
def test_a_new_one_replaces_an_old_one_and_no_other_kind(tmp_path: Path, kind: Kind) -> None:
    path = tmp_path / "file"
    whole(kind, path)
    assert kinds.kind_of(path) is kind
    check_outputs([Output(path, kind)])
    for other in {*kinds.KNOWN, kinds.TIMING_CACHE} - {kind}:
        with pytest.raises(OutputError, match=r"it is .*, not "):
            check_outputs([Output(path, other)])


def test_an_empty_file_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_outputs([Output(tmp_path / "file", kind) for kind in (kinds.BENCH,)])


def test_reports_are_replaced_by_reports(run: Run) -> None:
    """The files that the commands write are of the kinds that they look for."""
    engine = build(inline_functions(tiny_model("batch")), tiny_spec("batch"), "onnxruntime", BuildOptions(batch=(1, 1, 4)))
    save_engine(engine, Path("e.plan"))
    commands = (
        ("bench", "e.plan", "--json", "b.json", "--html", "b.html", "--seconds", 0.02, "--warmup", 0, "--threads", 1),
        ("profile", "e.plan", "--json", "p.json", "--svg", "p.svg", "--rounds", 1, "--threads", 1),
        ("verify", "e.plan", "m.onnx", "photos", "--json", "v.json", "--threads", 1),
        ("calibrate", "m.onnx", "--images", "photos", "-o", "c.json", "--threads", 1),
        ("build-engine", "m.onnx", "--backend", "onnxruntime", "-o", "e.plan", "--threads", 1),
    )
    for command in commands * 2:
        result = run(*command)
        assert result.exit_code == 0, result.output
    assert not [name for name in everything() if "partial" in name]


def test_segment_replaces_its_own_pictures_only(run: Run) -> None:
    """A user's own a_labels.png is kept; the picture of an image that fails now goes, and what is not ours stays even then."""
    own = frames((8, 8))[0]
    Image.fromarray(own).save("photos/a_labels.png")
    before = everything()
    refused = run("segment", "m.onnx", "photos", "-o", "photos")
    assert (refused.exit_code, everything()) == (1, before)
    assert "Cannot write photos/a_labels.png: the file there is not a PNG picture that rtformer-deploy wrote." in refused.stderr
    assert "add --overwrite" in refused.stderr
    assert run("segment", "m.onnx", "photos", "-o", "photos", "--overwrite").exit_code == 0
    assert is_ours(Path("photos/a_labels.png"))
    assert run("segment", "m.onnx", "photos", "-o", "photos").exit_code == 0
    Path("photos/a.png").write_bytes(b"broken")
    assert run("segment", "m.onnx", "photos", "-o", "photos").exit_code == 1
    assert sorted(path.name for path in Path("photos").iterdir()) == ["a.png"]


COMMANDS = {
    "export": ("export", "--variant", "slim", "-o", "{}/x"),
    "build-engine": ("build-engine", "m.onnx", "-o", "{}/x"),
    "calibrate": ("calibrate", "m.onnx", "--images", "photos", "-o", "{}/x"),
    "bench": ("bench", "m.onnx", "--json", "{}/x"),
    "profile": ("profile", "m.onnx", "--json", "{}/x"),
    "segment": ("segment", "m.onnx", "photos", "-o", "{}"),
    "import-weights": ("import-weights", "w.safetensors", "--recipe", "rtformer-slim-camvid", "-o", "{}/x"),
    "train": ("train", "--recipe", "rtformer-slim-camvid", "--root", ".", "-o", "{}"),
    "evaluate": ("evaluate", "m.onnx", *DATA, "--json", "{}/x"),
    "tune": ("tune", "m.onnx", *DATA, "-o", "{}"),
    "verify": ("verify", "m.onnx", "m.onnx", "photos", "--json", "{}/x"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_read_only_disk_is_one_message(run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """Every call that would change the disk fails as on a file system that is mounted read-only, unlink too."""
    Path("out").mkdir()

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("touch", "mkdir", "unlink", "write_bytes"):
        monkeypatch.setattr(Path, name, refuse)
    result = run(*(part.format("out") for part in command))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("Error: ") == 1
    assert "Read-only file system." in result.stderr


def test_without_a_temporary_folder_there_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    with pytest.raises(OutputError, match="Cannot make a temporary folder: No usable temporary directory found"), temporary_folder():
        pass


def test_files_that_belong_together_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_together([(one, b"1"), (two, b"2")])
    calls: list[int] = []

    def full_at_the_second(number: int) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full_at_the_second)
    with pytest.raises(OutputError, match="two: No space left"):
        write_together([(one, b"new"), (two, b"new")])
    assert (one.read_bytes(), two.read_bytes()) == (b"1", b"2")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_kill_left_behind_goes_and_what_runs_stays(tmp_path: Path) -> None:
    """A process that is killed leaves its partial file and its temporary folder; the next run removes them, and nothing else."""
    code = (
        "import os, sys, tempfile; from pathlib import Path; from rtformer_deploy.files import partial_folder, temporary_folder, writing\n"
        "here = Path(sys.argv[1])\n"
        "with writing(here / 'x.png') as partial, temporary_folder() as folder, partial_folder(here / 'maps') as maps:\n"
        "    partial.write_bytes(b'half'); (folder / 'y').touch(); (maps / 'z').touch()\n"
        "    print(folder, flush=True); os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert len(left := list(tmp_path.iterdir())) == 3, killed.stderr
    mine = [tmp_path / ".x.partial.png", tmp_path / ".hidden", tmp_path / "rtformer-deploy-notes"]
    for path in mine:
        path.touch()
    with writing(tmp_path / "z.png") as partial:
        partial.touch()
        other = partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"))  # a process that still runs
        elsewhere = partial.with_name(partial.name.replace(MACHINE, "0" * 8))  # another machine's, still fresh
        other.touch()
        elsewhere.touch()
        clean_up(tmp_path)
        assert {partial, other, elsewhere, *mine} == set(tmp_path.iterdir())
    os.utime(elsewhere, (0, 0))
    clean_up(tmp_path)
    assert elsewhere not in set(tmp_path.iterdir())
    assert not {*left} & set(tmp_path.iterdir())


def test_leftovers_are_no_input(run: Run) -> None:
    with writing(Path("photos/b.png")) as partial:
        Image.fromarray(frames((8, 8))[0]).save(partial)
        result = run("segment", "m.onnx", "photos", "-o", "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("out").iterdir()) == ["a_labels.png", "a_overlay.png"]
    assert load_model(Path("m.onnx"))


def test_a_file_that_cannot_be_removed_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot remove"):
        remove(tmp_path)
