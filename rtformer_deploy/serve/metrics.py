"""Figures for Prometheus: Triton's names, so that its dashboards fit, and histograms in seconds beside them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from .batcher import Answer, ClosedError, LateError, QueueFullError
from .refusal import LeftError, refusal_of

#: Every model has one version, as in Triton's paths /v2/models/NAME/versions/1.
VERSION = "1"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: Triton's reasons of a failed request.
Reason = Literal["REJECTED", "CANCELED", "BACKEND", "OTHER"]

_LABELS = ("model", "version")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FRAMES = (1, 2, 4, 8, 16, 32, 64)
_PHASES = {
    "request": "from admission to the encoded answer",
    "queue": "waiting for the engine",
    "compute_input": "decoding, resizing and normalising",
    "compute_infer": "the engine and its label maps",
    "compute_output": "encoding the answer",
}
#: Triton's counters have no suffix; prometheus_client adds one.
_SUFFIX = re.compile(rb"^((?:# (?:HELP|TYPE) )?nv_inference_\w+)_total(?=[ {])", re.MULTILINE)


@dataclass(slots=True)
class Timing:
    """One request's seconds in each phase, filled in while it runs; `frames` is how many frames it had."""

    frames: int
    began: float = field(default_factory=time.perf_counter)
    decode_s: float = 0.0
    encode_s: float = 0.0
    answers: list[Answer] = field(default_factory=list)

    def phases(self) -> dict[str, float]:
        """Phase -> seconds; the longest of the request's frames, which run side by side."""
        slowest = max(self.answers, key=lambda answer: answer.queue_s + answer.infer_s)
        return {
            "request": time.perf_counter() - self.began,
            "queue": slowest.queue_s,
            "compute_input": self.decode_s + slowest.input_s,
            "compute_infer": slowest.infer_s,
            "compute_output": self.encode_s,
        }


class Metrics:
    """Counts the requests of every model of one service."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._success = self._counter("nv_inference_request_success", "Requests that were answered")
        self._failure = self._counter("nv_inference_request_failure", "Requests that were not answered", "reason")
        self._frames = self._counter("nv_inference_count", "Frames that the engine answered")
        self._batches = self._counter("nv_inference_exec_count", "Batches that the engine ran")
        self._times = {name: self._counter(f"nv_inference_{name}_duration_us", f"Microseconds: {text}") for name, text in _PHASES.items()}
        self._histograms = {
            name: Histogram(f"rtformer_{name}_duration_seconds", f"Seconds: {text}", _LABELS, buckets=_SECONDS, registry=self._registry)
            for name, text in _PHASES.items()
        }
        self._batch = Histogram("rtformer_batch_frames", "Frames in a batch", _LABELS, buckets=_FRAMES, registry=self._registry)
        self._pending = self._gauge("nv_inference_pending_request_count", "Frames that wait for the engine")
        self._inside = self._gauge("rtformer_requests_inside", "Frames that were admitted and are not answered yet")

    def add_model(self, model: str, waiting: Callable[[], int], inside: Callable[[], int]) -> None:
        """Shows a model's figures from the start, all 0, and reads its queue whenever the page is asked for."""
        self._pending.labels(model, VERSION).set_function(waiting)
        self._inside.labels(model, VERSION).set_function(inside)
        for counter in (self._success, self._frames, self._batches, *self._times.values()):
            counter.labels(model, VERSION)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
            self._failure.labels(model, VERSION, reason)

    @contextmanager
    def request(self, model: str, frames: int) -> Iterator[Timing]:
        """Counts the block as one request: a success with its times, or a failure with Triton's reason."""
        timing = Timing(frames)
        try:
            yield timing
        except BaseException as error:
            self._failure.labels(model, VERSION, _reason(error)).inc()
            raise
        self._success.labels(model, VERSION).inc()
        for name, seconds in timing.phases().items():
            self._times[name].labels(model, VERSION).inc(round(seconds * 1e6))
            self._histograms[name].labels(model, VERSION).observe(seconds)

    def batch(self, model: str, frames: int) -> None:
        """Counts a batch that an engine answered."""
        self._batches.labels(model, VERSION).inc()
        self._frames.labels(model, VERSION).inc(frames)
        self._batch.labels(model, VERSION).observe(frames)

    def page(self) -> bytes:
        """Everything in Prometheus's text format."""
        return _SUFFIX.sub(rb"\1", generate_latest(self._registry))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, (*_LABELS, *labels), registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, _LABELS, registry=self._registry)


def _reason(error: BaseException) -> Reason:
    if not isinstance(error, Exception) or isinstance(error, LeftError):  # cancelled: the client left
        return "CANCELED"
    if isinstance(error, QueueFullError | LateError | TimeoutError | ClosedError):
        return "REJECTED"
    return "OTHER" if refusal_of(error).status < 500 else "BACKEND"
