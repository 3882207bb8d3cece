"""The tables of figures in README and docs/figures.md are those of benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from docs_pages import ROOT, results

#: A row's name -> a contestant of cpu.json.
FP32 = {
    "PyTorch eager, channels-last, interpolate and argmax": "torch-channels-last",
    "ONNX Runtime, full-size logits, NumPy argmax": "onnxruntime-logits",
    "OpenVINO, full-size logits, NumPy argmax": "openvino-logits",
}
OURS = "ours-openvino"
#: The columns: network and size.
CASES = (("slim", [512, 1024]), ("slim", [1024, 2048]), ("base", [1024, 2048]))
#: A row's name -> an engine of int8.json.
INT8 = {
    "FP32, OpenVINO": "fp32-openvino",
    "FP32, ONNX Runtime": "fp32-onnxruntime",
    "FP16 weights, OpenVINO": "fp16-openvino",
    "**INT8, OpenVINO** (`mse`, the default)": "int8-mse-openvino",
    "**INT8, ONNX Runtime**": "int8-mse-onnxruntime",
    "ModelOpt 0.47's INT8, OpenVINO": "modelopt-openvino",
    "ModelOpt 0.47's INT8, ONNX Runtime": "modelopt-onnxruntime",
}

#: Results that a command of the product wrote, not a script.
BY_A_COMMAND = {"comparison", "comparison_again", "formats"}


def fp32_rows() -> list[str]:
    """The table of whole frames in FP32: each one's time as a multiple of ours."""
    cases = [next(case["contestants"] for case in results("cpu")["cases"] if (case["variant"], case["size"]) == key) for key in CASES]
    rows = []
    for title, contestant in FP32.items():
        ratios = [f"{case[contestant]['p50_ms'] / case[OURS]['p50_ms']:.2f}" for case in cases]
        rows.append(f"| {title} | {' | '.join(ratios)} |")
    ours = [f"**1** ({case[OURS]['p50_ms']:.0f} ms)" for case in cases]
    return [*rows, f"| **rtformer-deploy, OpenVINO engine** | {' | '.join(ours)} |"]


def int8_rows() -> list[str]:
    """The table of INT8: mIoU, changed pixels, size, and speeds as multiples of FP32's on OpenVINO."""
    engines = results("int8")["engines"]
    base, rows = engines["fp32-openvino"], []
    for title, name in INT8.items():
        engine = engines[name]
        speeds = [f"{base[key] / engine[key]:.2f}" for key in ("engine_ms", "frame_ms")]
        quality = [f"{100 * engine['miou']:.2f}", f"{engine['pixels_unlike_fp32']:.2%}", f"{engine['plan_bytes'] / 2**20:.1f}"]
        rows.append(f"| {title} | {' | '.join(quality + speeds)} |")
    return rows


def network_rows() -> list[str]:
    """The table of the paper's networks: sizes, and speeds as multiples of RTFormer-Slim's with the interval that holds them."""
    rows = []
    for row in results("comparison")["rows"]:
        figures = [f"{row['parameters'] / 1e6:.2f}", f"{(row['macs'] + row['products']) / 1e9:.1f}", "x".join(map(str, row["input"]))]
        for part in ("engine", "frame"):
            median, low, high = row["measured"][part]["ratio"]
            figures.append(f"{median:.2f} ({low:.2f} to {high:.2f})" if row["name"] != "RTFormer-Slim" else "1")
        rows.append(f"| {row['name']} | {' | '.join(figures)} |")
    return rows


def served_rows() -> list[str]:
    """The table of the service: throughput as a multiple of the naive endpoint's at equal p99, the median and each round."""
    found = results("serve")["closed"]["at_equal_p99"]
    titles = {"ours-fp32": "FP32", "ours-int8": "INT8"}
    return [f"| {titles[name]} | {row['ratio']:.2f} | {', '.join(f'{one:.2f}' for one in row['rounds'])} |" for name, row in found.items()]


def format_rows() -> list[str]:
    """The table of one model's formats: changed pixels, size, speed as a multiple of the reference's."""
    found = results("formats")
    rows = []
    for row in found["rows"]:
        if row["measured"] is not None:
            median, low, high = row["measured"]["engine"]["ratio"]
            speed = "1" if row["name"] == found["reference"] else f"{median:.2f} ({low:.2f} to {high:.2f})"
            rows.append(f"| {row['name']} | {row['flips']:.2%} | {row['bytes'] / 2**20:.1f} | {speed} |")
    return rows


def idea_rows() -> list[str]:
    """The table of ideas for training: how many points each moved the mean and the watched classes."""
    names = ("miou", "Pole", "Fence", "SignSymbol", "Pedestrian")
    gains = results("train_ideas")["gains"]
    return [f"| {idea} | {' | '.join(f'{moved[name]:+.2f}' for name in names)} |" for idea, moved in gains.items()]


def average_rows() -> list[str]:
    """The table of a run, two that went on from it, and the mean of the weights: IoU on the held-out frames."""
    found = results("train_average")
    titles = ("the 5,800 steps alone", "2,100 steps more, seed 1", "2,100 steps more, seed 2", "**the mean of the three**, shipped")
    assert [run["steps"] for run in found["runs"]] == ["5800", "2100", "2100"]
    rows = []
    for title, run in zip(titles, (*found["runs"], found["mean"]), strict=True):
        figures = [run["miou"], *(run["iou"][name] for name in ("Pole", "SignSymbol", "Pedestrian", "Bicyclist"))]
        rows.append(f"| {title} | {' | '.join(f'{value:.2f}' for value in figures)} |")
    return rows


def picture_rows() -> list[str]:
    """The ends of the rows about pictures without labels: the shares of sky and of signs, of the first run and of the mean."""
    found = results("train_average")
    rows = []
    for name in found["mean"]["pictures"]:
        shares = [run["pictures"][name][each] for each in ("Sky", "SignSymbol") for run in (found["runs"][0], found["mean"])]
        rows.append(f"(`{name}`) | {' | '.join(f'{share:.1f}' for share in shares)} |")
    return rows


@pytest.mark.parametrize("rows", [network_rows, served_rows, format_rows, idea_rows, average_rows, picture_rows])
def test_networks_and_the_service(rows: Callable[[], list[str]]) -> None:
    text = (ROOT / "docs" / "figures.md").read_text()
    assert [row for row in rows() if row not in text] == []


@pytest.mark.parametrize("page", ["README.md", "docs/figures.md"])
def test_frames_in_fp32(page: str) -> None:
    text = (ROOT / page).read_text()
    assert [row for row in fp32_rows() if row not in text] == []


@pytest.mark.parametrize(("page", "shown"), [("README.md", 2), ("docs/figures.md", len(INT8))])
def test_int8(page: str, shown: int) -> None:
    text = (ROOT / page).read_text()
    assert sum(row in text for row in int8_rows()) >= shown
    rows = [line for line in text.splitlines() if any(line.startswith(f"| {title} |") for title in INT8)]
    assert [row for row in rows if row not in int8_rows()] == []


def test_every_result_is_named_with_the_script_that_made_it() -> None:
    text = (ROOT / "docs" / "figures.md").read_text()
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert f"`{path.name}`" in text, path.name
        script = path.stem.removesuffix("_speed")  # scale_speed.json is of scale.py too, of a longer run
        assert path.stem in BY_A_COMMAND or Path(ROOT / "benchmarks" / f"{script}.py").is_file()


def test_the_mean_that_was_measured_is_what_is_shipped() -> None:
    shipped = results("train_average")["mean"]["sha256"]
    assert f'sha256 = "{shipped}"' in (ROOT / "models" / "rtformer-slim-camvid.toml").read_text()
