"""NVIDIA ModelOpt's quantiser, run by a Python that has it: an ONNX model and calibration inputs -> its INT8 model, time and memory.

    python benchmarks/int8_peer.py model.onnx inputs.npy quantised.onnx

Called by benchmarks/int8.py. Its defaults are kept but for the rest of the model, which stays FP32, so that a CPU can run it.
Prints one JSON line.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time

import numpy as np
from harness import memory


def main(model: str, inputs: str, output: str) -> None:
    from modelopt.onnx.quantization import quantize

    images = np.load(inputs)
    idle = memory("VmRSS")
    start = time.perf_counter()
    quantize(
        onnx_path=model,
        quantize_mode="int8",
        calibration_data=images,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=output,
        log_level="ERROR",
    )
    seconds = time.perf_counter() - start
    peak = memory("VmHWM")
    version = importlib.metadata.version("nvidia-modelopt")
    print(
        json.dumps({"seconds": seconds, "idle_mib": idle, "peak_mib": peak, "images": len(images), "version": version, "method": "entropy"})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
