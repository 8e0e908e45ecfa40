"""What a server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counts of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "triscale_requests", "Requests answered, by route and status.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "triscale_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._begun = Gauge("triscale_requests_begun", "Requests that are being answered.", registry=self._registry)
        self._batch = Histogram(
            "triscale_batch_images", "Images computed at once.", ("what",), buckets=_SIZES, registry=self._registry
        )
        self._computing = Counter(
            "triscale_computing_seconds", "Seconds spent computing.", ("what",), registry=self._registry
        )

    def begin(self) -> None:
        """A request's head has arrived."""
        self._begun.inc()

    def end(self, route: str, status: int, seconds: float) -> None:
        """It was answered. route: one of the application's own, so that there are few."""
        self._begun.dec()
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, what: str) -> Callable[[int, float], None]:
        """What hears of every batch: its size, and how long it took."""
        sizes, seconds = self._batch.labels(what), self._computing.labels(what)

        def told(size: int, took: float) -> None:
            sizes.observe(size)
            seconds.inc(took)

        return told

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A figure that is looked up whenever somebody asks."""
        Gauge(f"triscale_{name}", what, registry=self._registry).set_function(value)

    def page(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)
