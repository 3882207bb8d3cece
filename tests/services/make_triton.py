"""Makes the environment of a real Triton: its server without a container, its clients, and what this package needs beside them.

    python make_triton.py FOLDER

It is an environment of its own, because Triton's Python backend wants numpy 1. Where a wheel cannot be had (another system, no network),
FOLDER/missing.txt says why, and the tests that need it are skipped by name.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("triton.txt")


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
    done = subprocess.run([*pip, "--requirement", REQUIREMENTS], capture_output=True, text=True, check=False)
    if done.returncode:
        why = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "pip failed")
        (folder / "missing.txt").write_text(f"{why}\n")
        print(f"There is no Triton here: {why}", file=sys.stderr)
        return
    (folder / ".ready").touch()


if __name__ == "__main__":
    main()
