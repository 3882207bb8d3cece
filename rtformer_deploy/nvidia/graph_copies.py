"""Copies between pinned memory and the GPU within a CUDA graph: found while they are captured, and given other pinned memory later."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..errors import EngineError


class GraphCopy:
    """A copy that was captured last in a stream. `host` is the address of its pinned side; the other side never changes.

    cuda.core can only look a node up by reading all nodes of the graph, those of the engine's kernels too. CUDA itself tells the node
    while the stream is being captured. The graph's definition must outlive this object. The context of the capture is current in every
    call. Raises EngineError if CUDA refuses, or if the last thing captured was no such copy.
    """

    def __init__(self, stream: int, host: int) -> None:
        self._driver = importlib.import_module("cuda.bindings.driver")  # cuda.core came with it
        self._node = self._last_node(stream)
        self._what = self._ask(self._driver.cuGraphMemcpyNodeGetParams, self._node)
        self._context = self._ask(self._driver.cuCtxGetCurrent)
        self._place = self._place_of(host)
        self._host = host

    def aim(self, graph: Any, host: int) -> None:
        """Launches of `graph`, a cuda.core Graph, use the pinned memory at `host` from now on; what is launched already does not."""
        if host == self._host:
            return
        setattr(self._what, self._place, host)
        self._ask(self._driver.cuGraphExecMemcpyNodeSetParams, graph.handle, self._node, self._what, self._context)
        self._host = host

    def _last_node(self, stream: int) -> Any:
        """The node that the next one captured in the stream comes after."""
        answer = self._driver.cuStreamGetCaptureInfo(stream)
        self._check(answer[0])
        nodes = answer[4] or []  # none: the stream is not being captured
        if len(nodes) != 1:
            raise EngineError(f"The copy was to be the last step that was captured, and there are {len(nodes)} last steps.")
        return nodes[0]

    def _place_of(self, host: int) -> str:
        """Which field of the copy's description has the address, as the driver filled it in."""
        for place in ("srcHost", "dstHost", "srcDevice", "dstDevice"):
            if int(getattr(self._what, place)) == host:
                return place
        raise EngineError("The last step that was captured copies something else.")

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the driver and returns its value, if it has one."""
        answer = call(*arguments)
        self._check(answer[0])
        return answer[1] if len(answer) > 1 else None

    def _check(self, status: Any) -> None:
        if int(status) != 0:
            raise EngineError(f"CUDA does not let a graph copy elsewhere: {status.name}.")
