"""What is written and not yet whole: its name says whose it is, and what killed processes left behind is found and removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from pathlib import Path

_NAME_LENGTH = 24  # characters of a file's name that its partial file's name repeats

#: What is written and not yet whole carries its owner: this machine and the process. Such names begin with a dot, so no command reads them.
MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_PARTIAL = re.compile(r"\..*\.([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.partial.*", re.DOTALL)
_TEMPORARY = re.compile(r"rtformer-deploy-([0-9a-f]{8})-([0-9]+)-\w+")
_STALE_SECONDS = 24 * 3600.0  # after which something half-written is stale, whoever owns it
#: Names of what this process is writing.
IN_USE: set[str] = set()


def clean_up(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder: only this program's files and folders, whose owner no longer runs."""
    try:
        with os.scandir(folder) as entries:
            stale = [Path(entry.path) for entry in entries if _is_stale(entry)]
    except OSError:  # whoever writes to the folder says so
        return
    for path in stale:
        with contextlib.suppress(OSError):
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_stale(entry: os.DirEntry[str]) -> bool:
    name = _PARTIAL.fullmatch(entry.name) or _TEMPORARY.fullmatch(entry.name)
    if name is None or entry.name in IN_USE:
        return False
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    is_ours = stat.S_ISDIR(status.st_mode) or (entry.name.startswith(".") and stat.S_ISREG(status.st_mode))
    if not is_ours or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        return False
    return time.time() - status.st_mtime > _STALE_SECONDS or (name[1] == MACHINE and not _runs(int(name[2])))


def owner() -> str:
    """This machine and this process, as partial names carry them."""
    return f"{MACHINE}-{os.getpid()}"


def _runs(process: int) -> bool:
    """Whether another process has this id. What carries this process's own id and is not in use is from an earlier one."""
    import psutil

    return process != os.getpid() and psutil.pid_exists(process)


def beside(path: Path, suffix: str) -> Path:
    """An unused name beside `path`. A long name is shortened, so that the new one is not too long for the file system."""
    return path.with_name(f".{path.name[:_NAME_LENGTH]}.{owner()}-{secrets.token_hex(4)}.partial{suffix[:_NAME_LENGTH]}")
