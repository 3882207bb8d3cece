"""The execution contexts of a lane: each is set for one batch, and a batch that has CUDA graphs keeps its own."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import EngineError, one_line
from ..types import Say
from .buffers import TensorBuffers
from .engine import CudaEngine, ExecutionContext
from .graphs import LaneGraphs


class BatchContexts:
    """Execution contexts over the same memory, `tensors` by name: one for each batch that has graphs, and one for all others.

    A graph holds its context as it was in the capture. Setting another batch there changes what the graph does, so a context that has
    graphs is set for its batch once. The alternative, capturing again, costs about five runs each time the batch changes, and a server's
    batches change all the time. The price is device memory for each batch that comes often; if the GPU has no more of it, the graphs go
    and the contexts there are are set anew. `say` takes a note about that.

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
        self._set: dict[int, ExecutionContext] = {}  # by the batch that they are set for
        self._spare = [first]
        self._may_grow = True
        self._batch = 0
        self.current = first

    def use(self, batch: int) -> None:
        """Makes the context for a batch `current`, and has copies move that many images. Raises EngineError."""
        if batch == self._batch:
            return
        self._batch = 0
        self.current = self._set.get(batch) or self._set_for(batch)
        for buffers in self._tensors.values():
            buffers.use_images(batch)
        self._batch = batch

    def _set_for(self, batch: int) -> ExecutionContext:
        if not self._spare:
            self._give_up_one()
        context = self._spare[-1]
        context.set_batch(batch)
        for name, buffers in self._tensors.items():
            context.bind(name, buffers.address)
        self._set[batch] = self._spare.pop()
        return context

    def _give_up_one(self) -> None:
        """Makes a context spare: one that no graph holds, else a new one, else one whose graphs go."""
        free = next((batch for batch in self._set if self._graphs is None or not self._graphs.holds(batch)), None)
        if free is None and self._graphs is not None:
            if self._added():
                return
            self._graphs.drop()
        self._spare.append(self._set.pop(next(iter(self._set)) if free is None else free))

    def _added(self) -> bool:
        """Whether the GPU has memory for one more context; after the first refusal it is not asked again."""
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
