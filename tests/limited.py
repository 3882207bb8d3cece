"""Files -> what loading each as weights gives, within bounds of memory and of processor time that a file cannot pass unseen.

A script: it imports once, then each file is loaded in a child of its own with RLIMIT_AS and RLIMIT_CPU set. One JSON object a file is
printed: {"loaded": ...} or {"error": the WeightsError's text} or {"other": any other exception}; {"signal": N} if the child was killed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import torch

from rtformer_deploy.errors import WeightsError
from rtformer_deploy.nn.weights import load_weights

MEMORY = 256 * 2**20
SECONDS = 60


def load(path: Path) -> dict[str, object]:
    try:
        state = load_weights(path)
    except WeightsError as error:
        return {"error": str(error)}
    except BaseException as error:
        return {"other": type(error).__name__}
    return {"loaded": {key: list(value.shape) for key, value in state.items()}}


def limited(path: Path) -> dict[str, object]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        os.write(writing, json.dumps(load(path)).encode()[:60000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(told) if os.WIFEXITED(status) and told else {"signal": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        print(json.dumps(limited(Path(name))), flush=True)
