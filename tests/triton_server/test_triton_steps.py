"""What runs in Triton's Python: each step's tensors, and model.py around it as Triton calls it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import frames, load_file, tiny_spec
from served import jpeg
from triton_repositories import run, tiny_plan, write_plan

from rtformer_deploy.backends import open_engine
from rtformer_deploy.errors import DeployError, EngineError, ImageError, ModelError, UsageError
from rtformer_deploy.image.decode import decode_image
from rtformer_deploy.triton.steps import Step, decode, open_step, postprocessing, preprocessing

SIZES = ((40, 60), (64, 96), (9, 200))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    assert run(folder / "repo", write_plan(folder / "tiny.plan"), "--threads", "1").exit_code == 0
    return folder / "repo"


def arguments(repository: Path, name: str, **parameters: str) -> dict[str, str]:
    """What Triton gives to `initialize`."""
    told = {key: {"string_value": value} for key, value in parameters.items()}
    model = {"model_repository": str(repository / name), "model_version": "1", "model_instance_device_id": "0"}
    return model | {"model_config": json.dumps({"parameters": told})}


@pytest.fixture
def segment(repository: Path) -> Iterator[Step]:
    step = open_step(arguments(repository, "tiny_rgb", step="segment", threads="1"))
    yield step
    step.close()


def test_frames_of_many_sizes_are_one_batch(segment: Step) -> None:
    several = frames(*SIZES)
    with open_engine(tiny_plan(), threads=1) as runner:
        wanted = runner.run(several)
    answers = segment.run([{"image": several[0][None]}, {"image": np.stack([several[1]] * 3)}, {"image": several[2][None]}])
    for answer, labels, count in zip(answers, wanted, (1, 3, 1), strict=True):
        assert isinstance(answer, dict)
        assert np.array_equal(answer["labels"], np.stack([labels] * count))


def test_a_wrong_frame_does_not_spoil_the_others(segment: Step) -> None:
    (good,) = frames((40, 60))
    wrong = [np.zeros((1, 0, 5, 3), np.uint8), np.zeros((0, 4, 5, 3), np.uint8), np.zeros((1, 4, 5, 4), np.uint8)]
    wrong += [np.zeros((4, 5, 3), np.uint8), np.zeros((1, 4, 5, 3), np.float32)]
    answers = segment.run([{"image": wrong[0]}, {"image": good[None]}, *({"image": each} for each in wrong[1:])])
    assert not isinstance(answers[1], DeployError)
    for answer in (answers[0], *answers[2:]):
        assert isinstance(answer, ImageError)
        assert "expected RGB uint8 (N, H, W, 3)" in answer.what


def test_pictures_are_decoded_as_everywhere() -> None:
    pictures = [jpeg(frame) for frame in frames((40, 60), (40, 60))]
    found = decode(np.array(pictures, dtype=object))["frames"]
    assert np.array_equal(found, np.stack([decode_image(each) for each in pictures]))


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ([b"no picture"], "The image is not an image that can be read"),
        ([b""], "The image"),
        ([], "holds no picture"),
        ([jpeg(each) for each in frames((8, 9), (9, 8))], "different sizes"),
    ],
)
def test_what_is_no_picture(pictures: list[bytes], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(np.array(pictures, dtype=object))


@pytest.mark.parametrize("sizes", [[[0, 5]], [[-1, 5]], [[40000, 40000]], [[4, 5], [4, 5]], []])
def test_sizes_that_no_frame_has(sizes: list[list[int]]) -> None:
    work = postprocessing(tiny_spec("batch"), 1)
    with pytest.raises(ImageError, match=r"sizes are|is not one of 1 to"):
        work(np.zeros((1, 5, 8, 12), np.float32), np.array(sizes, np.int32).reshape(-1, 2))


def test_different_sizes_are_no_tensor() -> None:
    with pytest.raises(ImageError, match="expected one height and width"):
        postprocessing(tiny_spec("batch"), 1)(np.zeros((2, 5, 8, 12), np.float32), np.array([[4, 5], [5, 4]], np.int32))
    with pytest.raises(ImageError, match="expected RGB uint8"):
        preprocessing(tiny_spec("batch"), 1)(np.zeros((1, 0, 4, 3), np.uint8))


def test_a_step_that_is_not_known(repository: Path) -> None:
    with pytest.raises(UsageError, match="names the step 'dance'"):
        open_step(arguments(repository, "tiny_rgb", step="dance"))
    with pytest.raises(UsageError, match="names the step None"):
        open_step(arguments(repository, "tiny_rgb"))


def test_a_plan_that_was_changed_does_not_open(tmp_path: Path) -> None:
    assert run(tmp_path / "repo", write_plan(tmp_path / "tiny.plan")).exit_code == 0
    (tmp_path / "repo" / "tiny_rgb" / "1" / "engine.plan").write_bytes(b"another")
    with pytest.raises(EngineError, match="its SHA-256 differs"):
        open_step(arguments(tmp_path / "repo", "tiny_rgb", step="segment"))
    with pytest.raises(ModelError, match="Cannot read a model's description"):
        open_step(arguments(tmp_path / "repo", "tiny_rgb", step="preprocess"))


class _Utilities:
    """Stands for triton_python_backend_utils: tensors and responses that can be looked at."""

    class TritonError:
        INVALID_ARG, INTERNAL = "invalid", "internal"

        def __init__(self, message: str, code: str) -> None:
            self.message, self.code = message, code

    @staticmethod
    def get_input_tensor_by_name(request: dict[str, Any], name: str) -> Any:
        return SimpleNamespace(as_numpy=lambda: request[name])

    @staticmethod
    def Tensor(name: str, values: Any) -> tuple[str, Any]:  # noqa: N802
        return name, values

    @staticmethod
    def InferenceResponse(tensors: Any = (), error: Any = None) -> Any:  # noqa: N802
        return SimpleNamespace(tensors=dict(tensors), error=error)


def test_the_file_that_triton_runs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", _Utilities)
    model = load_file(repository / "tiny_decode" / "1" / "model.py", "decode_model").TritonPythonModel()
    model.initialize(arguments(repository, "tiny_decode", step="decode"))
    (frame,) = frames((20, 30))
    good, bad = model.execute([{"image": np.array([jpeg(frame)], dtype=object)}, {"image": np.array([b"x"], dtype=object)}])
    assert good.error is None
    assert good.tensors["frames"].shape == (1, 20, 30, 3)
    assert (bad.tensors, bad.error.code) == ({}, "invalid")
    assert "The image is not an image" in bad.error.message
    model.finalize()
    assert len((repository / "tiny_decode" / "1" / "model.py").read_text().splitlines()) < 50
