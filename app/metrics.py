"""``/metrics`` for Prometheus: requests, latencies, connections, the queue, and what the batches hold.

Requests tell at their end; all else is read off when somebody asks, so that a step of the network costs nothing more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import sketch_core
from app.limits import LOCAL_HOSTS, Door
from app.studio import DOS, Studio
from sketch_core.scheduler import SIZES

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
NOT_HERE = "Metrics are told to this machine alone; DUET_METRICS=on tells them to anyone (docs/hosting.md)."


disable_created_metrics()  # a line for each series that says when it began


class Metrics:
    """The figures of one server.

    Args:
        studio: whose requests are counted, once :meth:`ended` is told of them.
        door: whose connections are counted.
    """

    def __init__(self, studio: Studio, door: Door) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "duet_requests",
            "Requests by what they were to do and how they ended.",
            ["do", "outcome"],
            registry=self.registry,
        )
        self._first = Histogram(
            "duet_first_point_seconds",
            "From a request to its first points.",
            ["do"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._end = Histogram(
            "duet_answer_seconds",
            "From a request to the whole answer, of those that were answered.",
            ["do"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self.registry.register(_State(studio, door))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def ended(self, do: str, outcome: str, seconds: float, first: float | None) -> None:
        """A request has ended; see :attr:`app.studio.Studio.on_end`."""
        self.refused(do, outcome)
        if first is not None:
            self._first.labels(do).observe(first)
        if outcome == "done":
            self._end.labels(do).observe(seconds)

    def refused(self, do: str, outcome: str) -> None:
        """A request was turned away: ``do`` is anything that was asked for, or "http" where nobody looked."""
        self._requests.labels(do if do in (*DOS, "http") else "other", outcome).inc()

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _State(Collector):
    """What is read off the server's parts when somebody asks."""

    def __init__(self, studio: Studio, door: Door) -> None:
        self.studio, self.door = studio, door

    def collect(self) -> Iterator[Metric]:
        info = InfoMetricFamily("duet", "The program and its first network.")
        info.add_metric([], {"version": sketch_core.__version__, "model": self.studio.sketcher.name})
        yield info
        yield GaugeMetricFamily("duet_ready", "Whether it has warmed up and is not stopping.", self.studio.ready)
        yield GaugeMetricFamily("duet_live_connections", "Open live connections.", self.door.connections)
        yield GaugeMetricFamily("duet_in_flight", "Requests that are being answered.", self.studio.in_flight)
        yield GaugeMetricFamily("duet_waiting", "Requests in line.", self.studio.waiting)
        points = CounterMetricFamily("duet_points", "Points drawn.", labels=["network"])
        busy = CounterMetricFamily("duet_step_seconds", "Time spent in the network's steps.", labels=["network"])
        rows = GaugeMetricFamily("duet_batch_rows", "Rows of the network at work now.", labels=["network"])
        sizes = HistogramMetricFamily("duet_batch_drawings", "Drawings that shared a step.", labels=["network"])
        for name, network in self.studio.networks.items():
            if network.scheduler is None:
                continue
            done = network.scheduler.statistics
            points.add_metric([name], done.points)
            busy.add_metric([name], done.busy_seconds)
            rows.add_metric([name], network.scheduler.rows)
            counts, steps = [], 0
            for size, count in enumerate([*done.sizes]):
                steps += count
                counts.append(("+Inf" if size == SIZES - 1 else str(2.0**size), steps))
            sizes.add_metric([name], counts, done.points)
        yield from (points, busy, rows, sizes)


def metrics_route(metrics: Metrics, who: str) -> list[Route]:
    """``/metrics``, unless ``who`` may read it is nobody ("off"). "local": whoever asks from this machine itself."""

    def told(request: Request) -> Response:
        if who == "local" and not is_local(request):
            return PlainTextResponse(NOT_HERE + "\n", status_code=403)
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [] if who == "off" else [Route("/metrics", told)]


def is_local(request: Request) -> bool:
    """Whether it comes from this machine itself, asks for this machine, and came through no proxy or tunnel on it."""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    if request.client is None or host not in LOCAL_HOSTS or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
