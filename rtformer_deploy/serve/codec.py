"""Bytes of pictures to frames and label maps to bytes, on threads of their own: neither the event loop nor an engine waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Codec:
    """A pool of threads for decoding and encoding. Cancelling a call leaves its thread to finish; what it gives is dropped."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="codec")

    async def run(self, work: Callable[[], T]) -> T:
        """Calls `work` on a thread and returns what it returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
