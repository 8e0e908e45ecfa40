"""The same application on a Ray cluster: replicas of it, as many as are wanted, and a new one where one is lost."""

import contextlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triscale.errors import TriscaleError, UserError
from triscale.exporting import is_exported
from triscale.models import learned
from triscale.precision import check_precision
from triscale.serving.addresses import application
from triscale.serving.limits import Limits
from triscale.serving.opening import opened
from triscale.serving.running import Ended, bind
from triscale.serving.tokens import Token
from triscale.trials.cluster import joined

if TYPE_CHECKING:
    from fastapi import FastAPI

HEALTH = 2.0  # seconds between two looks at a replica
_LOGS = {"log_level": "ERROR", "enable_access_log": False}
LOOKED = 0.1  # seconds between two looks at whether a signal came


@dataclass(frozen=True, slots=True)
class Cluster:
    """address: host:port, "auto", or "" for one of its own on this machine. threads: of the
    network in each replica, which are the processors that it takes. precision: as for `opened`; a node that does not
    compute the one that is named brings no replica up."""

    address: str = ""
    replicas: int = 2
    threads: int = 1
    precision: str | None = None

    def __post_init__(self) -> None:
        for name in ("replicas", "threads"):
            if not 1 <= getattr(self, name) <= 1024:
                raise UserError(f"--{name} {getattr(self, name)}: is not from 1 to 1024")
        if self.precision is not None:
            check_precision(self.precision)


def model_file(name: str, weights: str | None) -> bytes:
    """The model that a name means, as the one file that travels to the replicas. Raises `UserError`."""
    if is_exported(name):
        raise UserError(f"--ray: replicas open models, not exported files such as {name}; name the run it came from")
    with tempfile.TemporaryDirectory(prefix="triscale-") as folder:
        file = Path(folder) / "model.safetensors"
        learned(name, weights).save(file)
        return file.read_bytes()


def serve_replicas(
    content: bytes,
    called: str,
    limits: Limits,
    cluster: Cluster,
    place: tuple[str, int],
    *,
    token: Token | None = None,
    started: Callable[[int], None] = lambda port: None,
) -> Ended:
    """Answers until SIGINT or SIGTERM, and then until replicas have answered what they had begun, or given it up: which
    of these is not known here.

    content: from `model_file`. place: host and port of the cluster's proxies; port 0 takes a free one, on this machine.
    started: is told the port when requests are answered. Raises `UserError` where Ray is not installed or no cluster
    answers, `TriscaleError` where the replicas do not come up.
    """
    host, port = _free(place) if not cluster.address else place
    if port == 0:
        raise UserError("--port 0: what is free on a cluster's nodes is not known here; name a port")
    _prepare()
    ray = joined(cluster.address or "local")  # never one of somebody else's, whose applications would end with it
    try:
        serve = _import_serve()
        _check_room(ray, cluster)
        with _noted() as came:
            app = _deployment(serve, ray.put(content), called, limits, cluster, token, host)
            with _deployed(serve, app, called, host, port, own=not cluster.address):
                started(port)
                while not came:
                    time.sleep(LOOKED)
            return Ended(came[0], None)
    finally:
        ray.shutdown()


def _free(place: tuple[str, int]) -> tuple[str, int]:
    """The same place on this machine, with a port that nobody has. Raises `UserError`."""
    with bind(*place) as free:
        return place[0], free.getsockname()[1]


@contextmanager
def _deployed(serve: Any, app: Any, called: str, host: str, port: int, *, own: bool) -> Iterator[None]:  # noqa: ANN401
    """The application answers there; however this ends, none of it stays on the cluster, which is `own` or others'."""
    with _in_a_line(called):
        serve.start(http_options={"host": host, "port": port}, logging_config=_LOGS)
        _check_place(host, port)
    try:
        with _in_a_line(called):
            serve.run(app, name=called, route_prefix="/", logging_config=_LOGS)
        yield
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown() if own else serve.delete(called)


@contextmanager
def _in_a_line(called: str) -> Iterator[None]:
    """Whatever Ray says of replicas that do not come up, as `TriscaleError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise TriscaleError(f"{called}: the replicas do not come up ({' '.join(str(error).split())[:200]})") from None


def _check_place(host: str, port: int) -> None:
    """Where Serve runs on the cluster already, Ray keeps its proxies as they are and only logs that they listen
    elsewhere, perhaps to everybody. Raises `UserError`."""
    there = _listening()
    if there != (host, port):
        runs = f"Serve runs on that cluster already, and listens on {there[0]}, port {there[1]}"
        raise UserError(
            f"--host {host} --port {port}: {runs}; name that place, or end Serve there first: serve shutdown"
        )


def _listening() -> tuple[str | None, int]:
    """Host and port of the proxies, which Ray's public interface does not tell."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None  # just begun, or joined
    return client.http_config.host, client.http_config.port


def _deployment(
    serve: Any,  # noqa: ANN401 - Ray is not typed
    content: object,
    called: str,
    limits: Limits,
    cluster: Cluster,
    token: Token | None,
    host: str,
) -> Any:  # noqa: ANN401
    """The application, to be built in every replica."""
    held, here = [content], version("triscale")

    def build() -> "FastAPI":
        return _build(held, called, limits, cluster, token, host, here)

    how = serve.deployment(
        name=called,
        num_replicas=cluster.replicas,
        ray_actor_options={"num_cpus": cluster.threads},
        max_ongoing_requests=2 * limits.queue,  # the application refuses first, and says when to come again
        max_queued_requests=limits.queue,
        health_check_period_s=HEALTH,
        graceful_shutdown_wait_loop_s=LOOKED,
        graceful_shutdown_timeout_s=limits.arrival + limits.deadline,
    )
    return how(serve.ingress(build)()).bind()


def _build(
    held: list[Any], called: str, limits: Limits, cluster: Cluster, token: Token | None, host: str, wanted: str
) -> "FastAPI":
    """In a replica, for as long as its process lives."""
    import ray
    import torch

    here = version("triscale")
    if here != wanted:
        raise UserError(f"this node has Triscale {here}, not {wanted}; install the same on every node")
    torch.set_num_threads(cluster.threads)
    with tempfile.TemporaryDirectory(prefix="triscale-") as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(ray.get(held[0]))
        stack = ExitStack()  # never closed: the engine ends with the process
        served = stack.enter_context(opened(file, called=called, precision=cluster.precision))
    app = application(served, limits, token=token, host=host)
    app.state.open = stack
    return app


def _check_room(ray: Any, cluster: Cluster) -> None:  # noqa: ANN401
    """Raises `UserError` where the replicas would wait for processors for ever."""
    have = int(ray.cluster_resources().get("CPU", 0))
    if have < cluster.replicas * cluster.threads:
        raise UserError(
            f"--replicas {cluster.replicas}: with {cluster.threads} threads each they take "
            f"{cluster.replicas * cluster.threads} processors of the cluster's {have}; take fewer, or add a node"
        )


def _import_serve() -> Any:  # noqa: ANN401
    try:
        from ray import serve
    except ImportError:
        raise UserError("--ray: takes Ray Serve, which is not installed: pip install 'triscale[serve-ray]'") from None
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # which the import has set, to tell of every step
    return serve


def _prepare() -> None:
    """Before Ray is imported: processes that begin on this machine take these settings over."""
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")  # standard output is the answer
    os.environ.setdefault("RAY_worker_niceness", "0")  # people wait for what replicas do
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")  # a busy machine is no failure


@contextmanager
def _noted() -> Iterator[list[int]]:
    """Signals that came; a second one ends the process as it would have before."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        came.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)

    if threading.current_thread() is threading.main_thread():
        for number in before:
            signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
