"""What a person types: one to three calls of every command, shown at the end of its help. A test parses each of them."""

from __future__ import annotations

EXAMPLES = {
    "export": (
        "rtformer-deploy export --variant slim",
        "rtformer-deploy export --weights trained.safetensors --size 720x1280",
        "rtformer-deploy export --recipe rtformer-base-ade20k --weights base.pdparams",
    ),
    "build-engine": (
        "rtformer-deploy build-engine --fp16",
        "rtformer-deploy build-engine model.onnx --int8 --images photographs",
        "rtformer-deploy build-engine --backend tensorrt-rtx --fp16 -o rtx.plan",
    ),
    "refit": (
        "rtformer-deploy build-engine --backend tensorrt --fp16 --strip -o bare.plan",
        "rtformer-deploy refit bare.plan other.onnx -o other.plan",
    ),
    "calibrate": (
        "rtformer-deploy calibrate --images photographs",
        "rtformer-deploy calibrate model.onnx --images photographs --method entropy",
    ),
    "bench": (
        "rtformer-deploy bench engine.plan",
        "rtformer-deploy bench engine.plan --lanes 4 --json bench.json",
        "rtformer-deploy bench engine.plan --fps 30 --html bench.html",
    ),
    "profile": ("rtformer-deploy profile engine.plan",),
    "segment": (
        "rtformer-deploy segment engine.plan street.jpg -o segmented",
        "rtformer-deploy segment engine.plan photographs -o segmented",
        "rtformer-deploy segment engine.plan drive.mp4 -o segmented",
    ),
    "serve": (
        "rtformer-deploy serve engine.plan",
        "rtformer-deploy serve engine.plan model.onnx --name int8 --name fp32",
        "rtformer-deploy serve engine.plan --host 0.0.0.0 --api-key-file key.txt",
    ),
    "triton": (
        "rtformer-deploy triton repository engine.plan",
        "rtformer-deploy triton repository --check localhost:8000",
    ),
    "inspect": ("rtformer-deploy inspect engine.plan", "rtformer-deploy inspect model.onnx --lint"),
    "doctor": ("rtformer-deploy doctor", "rtformer-deploy doctor --json"),
    "import-weights": ("rtformer-deploy import-weights slim.pdparams --recipe rtformer-slim-ade20k",),
    "train": (
        "rtformer-deploy train --recipe rtformer-slim-camvid --root camvid -o run",
        "rtformer-deploy train --recipe mine.toml --root data -o run --resume",
    ),
    "evaluate": (
        "rtformer-deploy evaluate engine.plan --dataset camvid --root camvid",
        "rtformer-deploy evaluate model.onnx --dataset mine.toml --root mine",
    ),
    "report": ("rtformer-deploy report results -o report.html",),
    "tune": ("rtformer-deploy tune --images photographs --dataset camvid --root camvid",),
    "verify": (
        "rtformer-deploy verify model.onnx engine.plan photographs",
        "rtformer-deploy verify model.onnx int8.plan photographs --max-flips 0.5%",
    ),
    "compare": (
        "rtformer-deploy compare --suite paper --size 512x1024",
        "rtformer-deploy compare --suite paper --add model.onnx",
        "rtformer-deploy compare model.onnx --formats",
    ),
    "completion": ('eval "$(rtformer-deploy completion bash)"', "rtformer-deploy completion fish > rtformer-deploy.fish"),
}


def epilog(name: str) -> str:
    """A command's examples as click's epilog; "\\b" keeps click from joining the lines."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in EXAMPLES[name])))
