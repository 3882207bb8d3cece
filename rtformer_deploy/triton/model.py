"""A step of a segmentation model in Triton's Python backend. rtformer-deploy put this file here; config.pbtxt says which step it is.

The Python that Triton runs this in needs the package rtformer-deploy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton_python_backend_utils as pb_utils

from rtformer_deploy.errors import DeployError, ImageError
from rtformer_deploy.triton.steps import Tensors, open_step


class TritonPythonModel:
    """What Triton makes of this file, once for each instance."""

    def initialize(self, args: Mapping[str, str]) -> None:
        self._step = open_step(args)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        names = self._step.inputs
        given = [{name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names} for request in requests]
        return [_response(answer) for answer in self._step.run(given)]

    def finalize(self) -> None:
        self._step.close()


def _response(answer: Tensors | DeployError) -> Any:
    if isinstance(answer, DeployError):
        code = pb_utils.TritonError.INVALID_ARG if isinstance(answer, ImageError) else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(answer), code))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, values) for name, values in answer.items()])
