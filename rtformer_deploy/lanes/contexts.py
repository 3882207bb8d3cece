"""The execution contexts of a lane. Each is set for one batch size, and a batch size with CUDA graphs keeps its own."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import EngineError, one_line
from ..types import Say
from .buffers import TensorBuffers
from .engine import CudaEngine, ExecutionContext
from .graphs import LaneGraphs


class BatchContexts:
    """Execution contexts over the same memory, `tensors` by name: one for each batch that has graphs, and one for all others.

    A graph uses its context as it was during the capture. Setting another batch on that context would change what the graph does, so a
    context with graphs is set only once. Capturing again instead would cost about five runs each time the batch changes, and a server's
    batches change all the time. The cost is device memory for each batch size that is used often. If the GPU runs out of memory, all
    graphs are dropped and the existing contexts are reused for other batches. `say` receives a note about that.

    `first` is a new context of `engine`. The GPU's primary context is current in every call, and nothing is in flight.
    """

    def __init__(
        self,
        engine: CudaEngine,
        first: ExecutionContext,
        tensors: Mapping[str, TensorBuffers],
        graphs: LaneGraphs | None,
        say: Say,
    ) -> None:
        self._engine, self._tensors, self._graphs, self._say = engine, tensors, graphs, say
        self._by_batch: dict[int, ExecutionContext] = {}  # by batch size
        self._spare = [first]
        self._may_grow = True
        self._batch = 0
        self.current = first

    def use(self, batch: int) -> None:
        """Makes the context for a batch `current`, and sets copies to move that many images. Raises EngineError."""
        if batch == self._batch:
            return
        self._batch = 0
        self.current = self._by_batch.get(batch) or self._set_for(batch)
        for buffers in self._tensors.values():
            buffers.use_images(batch)
        self._batch = batch

    def _set_for(self, batch: int) -> ExecutionContext:
        if not self._spare:
            self._make_one_spare()
        context = self._spare[-1]
        context.set_batch(batch)
        for name, buffers in self._tensors.items():
            context.bind(name, buffers.address)
        self._by_batch[batch] = self._spare.pop()
        return context

    def _make_one_spare(self) -> None:
        """Makes one context spare: one without graphs, else a new one, else one whose graphs are dropped."""
        free = next((batch for batch in self._by_batch if self._graphs is None or not self._graphs.holds(batch)), None)
        if free is None and self._graphs is not None:
            if self._try_to_add():
                return
            self._graphs.drop()
        self._spare.append(self._by_batch.pop(next(iter(self._by_batch)) if free is None else free))

    def _try_to_add(self) -> bool:
        """Tries to add a context and returns whether there was memory for it. After one failure it does not try again."""
        if not self._may_grow:
            return False
        try:
            self._spare.append(self._engine.create_context())
        except EngineError as error:
            self._may_grow = False
            self._say(
                "CUDA graphs: they are captured again when the batch changes, since there is no memory for an execution context for each "
                f"batch: {one_line(error)}"
            )
        return self._may_grow
