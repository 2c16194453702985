"""What `/metrics` reports, in Prometheus' format."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from hand1000.serving.model import ServedModel

_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """The metrics of one server.

    Attributes:
        requests: Answered requests for images, by HTTP status; 499 counts clients that hung up.
        seconds: Seconds from the arrival of a request to its images.
    """

    def __init__(self, model: "ServedModel") -> None:
        self._model = model
        # A registry of its own: several servers, as in tests, can live in one process.
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "hand1000_requests", "Requests for images, by HTTP status.", ["status"], registry=self._registry
        )
        self.seconds = Histogram(
            "hand1000_request_seconds",
            "Seconds from the arrival of a request to its images.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def collect(self) -> Iterator["Metric"]:
        """Yield what the worker counts, for prometheus_client."""
        worker, counts = self._model.worker, self._model.worker.counts
        yield GaugeMetricFamily("hand1000_queue_length", "Requests that wait.", value=worker.queue_length)
        yield CounterMetricFamily("hand1000_images", "Finished images.", value=counts.images)
        yield CounterMetricFamily("hand1000_steps", "Sampling steps of batches.", value=counts.steps)
        yield CounterMetricFamily("hand1000_step_seconds", "Seconds of sampling steps.", value=counts.seconds)
        info = {"version": self._model.info.version, "digest": self._model.info.digest}
        yield InfoMetricFamily("hand1000_model", "The model.", value=info)

    def render(self) -> bytes:
        """Return the metrics as text."""
        return generate_latest(self._registry)
