"""The README's library example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2


def test_ten_lines_of_library_use(root: Path, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"folder": tmp_path, "photograph": root / "models" / "samples" / "china.jpg"}
    exec(compile(code[1], "README.md", "exec"), names)
    assert names["labels"].shape == (427, 640)
    overlay = cv2.imread(str(tmp_path / "overlay.png"))
    assert overlay is not None
    assert overlay.shape == (427, 640, 3)
    assert sum(1 for line in code[1].splitlines() if line.strip() and not line.startswith("import")) <= 10
