"""segment: which files are taken, what they are called, and what happens to the ones that fail."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers import StoppedError, stop_at, tiny_spec
from PIL import Image
from segmenting import Outcome, segment

from rtformer_deploy.commands.segment import plan_jobs
from rtformer_deploy.commands.segment_outputs import Job, output_names
from rtformer_deploy.errors import ImageError, OutputError
from rtformer_deploy.image.png import is_ours
from rtformer_deploy.stream.sinks import class_shares
from rtformer_deploy.types import Frame, LabelMap, Logits, Ticket


class Halves:
    """A Runner that sees class 1 on the left half of every frame and class 2 on the right."""

    spec = tiny_spec()

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.maps: dict[int, list[LabelMap]] = {}

    def run(self, frames: Sequence[Frame]) -> list[LabelMap]:
        self.batches.append(len(frames))
        maps = []
        for frame in frames:
            labels = np.full(frame.shape[:2], 2, np.uint8)
            labels[:, : frame.shape[1] // 2] = 1
            maps.append(labels)
        return maps

    def logits(self, frames: Sequence[Frame]) -> Logits:
        raise NotImplementedError

    def frame(self, size: tuple[int, int]) -> Frame:
        return np.empty((*size, 3), np.uint8)

    def submit(self, frames: Sequence[Frame]) -> Ticket:
        maps = self.run(frames)
        self.maps[len(self.batches)] = maps
        return Ticket(len(self.batches))

    def result(self, ticket: Ticket) -> list[LabelMap]:
        return self.maps.pop(ticket.number)

    def close(self) -> None:
        self.batches.clear()

    def __enter__(self) -> Halves:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def picture(path: Path, size: tuple[int, int] = (20, 10), colour: tuple[int, int, int] = (200, 100, 50)) -> Path:
    """A plain picture of (W, H) at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def run(inputs: list[Path], output: Path, *, alpha: float = 0.5, batch: int = 1) -> list[Outcome]:
    return list(segment(Halves(), plan_jobs(inputs, output), output, alpha=alpha, batch=batch))


def test_labels_and_overlay_have_the_images_own_size(tmp_path: Path) -> None:
    [outcome] = run([picture(tmp_path / "a.png", (31, 17))], tmp_path / "out")
    assert outcome.error is None
    assert outcome.size == (17, 31)
    assert outcome.shares is not None
    assert outcome.shares.tolist() == pytest.approx([0, 15 / 31, 16 / 31, 0, 0])
    with Image.open(tmp_path / "out" / "a_labels.png") as labels:
        assert (labels.mode, labels.size) == ("L", (31, 17))
        assert labels.getpixel((0, 0)) == 1
        assert labels.getpixel((30, 16)) == 2
    with Image.open(tmp_path / "out" / "a_overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (31, 17))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_alpha_goes_from_the_picture_to_the_colours(tmp_path: Path, alpha: float) -> None:
    run([picture(tmp_path / "a.png")], tmp_path / "out", alpha=alpha)
    with Image.open(tmp_path / "out" / "a_overlay.png") as overlay:
        assert overlay.getpixel((0, 0)) == ((200, 100, 50) if alpha == 0 else Halves.spec.palette[1])


def test_a_turned_photograph_comes_out_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    [outcome] = run([tmp_path / "turned.jpg"], tmp_path / "out")
    assert outcome.size == (20, 10)


def test_folders_are_read_with_their_sub_folders_sorted_and_images_only(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "deeper/c.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    said: list[str] = []
    jobs = plan_jobs([tmp_path / "in"], tmp_path / "out", said.append)
    assert [job.image.name for job in jobs] == ["a.PNG", "b.jpg", "c.png"]
    assert said == [f"Left out of {tmp_path / 'in'}: .txt, which is not read (1)."]


def test_outputs_mirror_the_sub_folders(tmp_path: Path) -> None:
    for name in ("a.png", "sub/a.png", "sub/deep/a.jpg", "sub/deep/a.png", "Sub2/b.png"):
        picture(tmp_path / "in" / name)
    outcomes = run([tmp_path / "in"], tmp_path / "out", batch=2)
    assert all(outcome.error is None for outcome in outcomes)
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*_labels.png"))
    assert written == [
        "Sub2/b_labels.png", "a_labels.png", "sub/a_labels.png", "sub/deep/a_jpg_labels.png", "sub/deep/a_png_labels.png",
    ]  # fmt: skip


def test_folders_that_meet_in_the_output_keep_their_images_apart(tmp_path: Path) -> None:
    for name in ("one/s/a.png", "two/s/a.png"):
        picture(tmp_path / name)
    jobs = plan_jobs([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    assert sorted(job.labels.relative_to(tmp_path / "out").as_posix() for job in jobs) == [
        "s/s_a_png_1_labels.png",
        "s/s_a_png_2_labels.png",
    ]


def test_results_carry_a_mark_and_are_no_inputs_anywhere(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    run([tmp_path / "in"], tmp_path / "in" / "out")
    assert all(is_ours(path) for path in (tmp_path / "in" / "out").iterdir())
    assert [job.image.name for job in plan_jobs([tmp_path / "in"], tmp_path / "elsewhere")] == ["a.png"]
    with pytest.raises(ImageError, match=r"holds no image[\s\S]*pictures that rtformer-deploy wrote \(2\)"):
        plan_jobs([tmp_path / "in" / "out"], tmp_path / "elsewhere")
    assert len(plan_jobs([tmp_path / "in" / "out" / "a_overlay.png"], tmp_path / "elsewhere")) == 1  # named by itself


@pytest.mark.parametrize("length", [230, 243, 250])
def test_a_long_name_ends_nothing(tmp_path: Path, length: int) -> None:
    """243 bytes and _overlay.png are the most that a file system takes."""
    name = "n" * (length - 4) + ".png"
    picture(tmp_path / "in" / name)
    picture(tmp_path / "in" / "z.png")
    outcomes = run([tmp_path / "in"], tmp_path / "out")
    fits = length <= 243
    assert [outcome.error is None for outcome in outcomes] == [fits, True]
    if not fits:
        assert isinstance(outcomes[0].error, OutputError)
        assert "File name too long" in str(outcomes[0].error)
    assert (tmp_path / "out" / "z_labels.png").is_file()
    assert not list((tmp_path / "out").glob(".*"))


def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    odd = picture(tmp_path / "in" / "a.png").rename(tmp_path / "in" / os.fsdecode(b"a\xff.png"))
    [outcome] = run([tmp_path / "in"], tmp_path / "out")
    assert (outcome.error, outcome.job.image) == (None, odd)
    assert (tmp_path / "out" / os.fsdecode(b"a\xff_labels.png")).is_file()


def test_a_folder_in_an_outputs_place_ends_nothing(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png")
    (tmp_path / "out" / "a_labels.png").mkdir(parents=True)
    assert [outcome.error is None for outcome in run([tmp_path / "in"], tmp_path / "out")] == [False, True]


def test_a_file_named_by_itself_is_tried_whatever_its_suffix(tmp_path: Path) -> None:
    picture(tmp_path / "a.png").rename(tmp_path / "a.data")
    [outcome] = run([tmp_path / "a.data"], tmp_path / "out")
    assert outcome.error is None


def test_a_bad_image_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.png").write_text("not a picture")
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "c.png")
    outcomes = run([tmp_path / "in", tmp_path / "missing.png"], tmp_path / "out", batch=3)
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False]
    assert isinstance(outcomes[1].error, ImageError)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_labels.png", "a_overlay.png", "c_labels.png", "c_overlay.png"]


def test_batches_hold_the_images_that_could_be_read(tmp_path: Path) -> None:
    images = [picture(tmp_path / f"{index}.png", (20 + index, 10)) for index in range(5)]
    runner = Halves()
    outcomes = list(segment(runner, plan_jobs(images, tmp_path / "out"), tmp_path / "out", batch=2))
    assert runner.batches == [2, 2, 1]
    assert [outcome.size for outcome in outcomes] == [(10, 20 + index) for index in range(5)]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["a/x.jpg", "b/y.jpg"], ["x", "y"]),
        (["a/x.jpg", "a/x.png"], ["x_jpg", "x_png"]),
        (["a/x.jpg", "b/x.jpg"], ["a_x", "b_x"]),
        (["a/x.jpg", "b/x.png", "b/x.jpg"], ["a_x", "x_png", "b_x_jpg"]),
        (["a/X.jpg", "b/x.jpg"], ["a_X", "b_x"]),
        (["a/x_jpg.png", "a/x.jpg", "a/x.png"], ["x_jpg", "a_x_jpg", "x_png"]),
        (["1/a/x.jpg", "2/a/x.jpg"], ["a_x_jpg_1", "a_x_jpg_2"]),
    ],
)
def test_two_images_never_share_a_name(images: list[str], names: list[str]) -> None:
    found = output_names([Path(image) for image in images])
    assert found == names
    assert len({name.casefold() for name in found}) == len(images)


def test_an_image_named_twice_is_done_once(tmp_path: Path) -> None:
    image = picture(tmp_path / "in" / "a.png")
    assert len(plan_jobs([image, tmp_path / "in", image], tmp_path / "out")) == 1


def test_outputs_of_an_earlier_run_are_no_inputs(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    run([tmp_path], tmp_path)
    assert [job.image.name for job in plan_jobs([tmp_path], tmp_path)] == ["a.jpg"]
    assert len(run([tmp_path], tmp_path)) == 1


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    image, other = picture(tmp_path / "a.jpg"), picture(tmp_path / "a_labels.png")
    with pytest.raises(OutputError, match="itself an input"):
        plan_jobs([image, other], tmp_path)


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no image"):
        plan_jobs([tmp_path], tmp_path / "out")


def test_an_output_folder_that_cannot_be(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Cannot make the folder"):
        run([image], tmp_path / "file" / "out")


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(tmp_path / "a.png")

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        run([image], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_can_stop_it(tmp_path: Path) -> None:
    images = [picture(tmp_path / f"{index}.png") for index in range(3)]
    jobs: list[Job] = plan_jobs(images, tmp_path / "out")
    with pytest.raises(StoppedError):
        list(segment(Halves(), jobs, tmp_path / "out", progress=stop_at(2)))


def test_class_shares_sum_to_one() -> None:
    shares = class_shares(np.array([[0, 1], [1, 3]], np.uint8), 5)
    assert shares.tolist() == [0.25, 0.5, 0, 0.25, 0]
