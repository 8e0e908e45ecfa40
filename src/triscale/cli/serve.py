"""`triscale serve`."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from triscale.cli import arguments
from triscale.cli.console import Output
from triscale.errors import UserError
from triscale.units import parse_bytes, parse_count, parse_seconds, parse_seconds_or_none

if TYPE_CHECKING:
    from triscale.serving import Limits
    from triscale.serving.replicas import Cluster
    from triscale.serving.running import Ended
    from triscale.serving.tokens import Token


def command(
    name: Annotated[
        str,
        typer.Argument(
            help="A run, a file of weights, published weights, or an exported file (.onnx, .xml).", show_default=False
        ),
    ],
    weights: arguments.Weights = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; any but this machine's own takes a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    called: Annotated[
        str | None, typer.Option("--name", help="The model's name in addresses.", show_default="the last part of RUN")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that requests must say.", show_default="$TRISCALE_TOKEN, or none"),
    ] = None,
    precision: arguments.Answering = None,
    threads: Annotated[int | None, typer.Option(help="Of the network.", show_default="all cores; with --ray 1")] = None,
    batch: Annotated[int, typer.Option(help="Images computed at once, at most.")] = 8,
    wait: Annotated[str, typer.Option(help="How long a batch waits for images that are being decoded.")] = "2ms",
    queue: Annotated[int, typer.Option(help="Images waiting at most; others are told to come again (503).")] = 128,
    deadline: Annotated[str, typer.Option(help="For a body to arrive, and again for its answer.")] = "10s",
    body: Annotated[str, typer.Option(help="Size of a request's body at most.")] = "16MB",
    pixels: Annotated[str, typer.Option(help="Pixels of a picture at most.")] = "50M",
    ray: Annotated[bool, typer.Option("--ray", help="On a Ray cluster, as replicas of the same application.")] = False,
    replicas: Annotated[int | None, typer.Option(help="With --ray: how many.", show_default="2")] = None,
    address: Annotated[
        str | None, typer.Option(help="With --ray: the cluster's host:port.", show_default="one on this machine")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Answer over HTTP: pictures to POST /predict, tensors by the Open Inference Protocol, a page at /.

    Ctrl-C or SIGTERM ends it once all requests that have begun are answered.

    Example: triscale serve RUN --port 8000
    """
    output = Output(as_json)
    _check_installed()
    from triscale.serving.tokens import find_token, is_loopback

    token = find_token(token_file)
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host}: can be reached from other machines, so requests need a token: --token-file FILE, or "
            "TRISCALE_TOKEN in the environment"
        )
    limits = _limits(batch, wait, queue, deadline, body, pixels)
    if threads is not None and not 1 <= threads <= 1024:
        raise UserError(f"--threads {threads}: is not from 1 to 1024")
    if not ray and (replicas is not None or address is not None):
        option = "--replicas" if replicas is not None else "--address"
        raise UserError(f"{option}: says how a Ray cluster is used; add --ray, or leave it out")
    asked = _Asked(name, weights, called, precision)
    if ray:
        cluster = _cluster(address, replicas, threads, precision)
        ended = _serve_replicas(output, asked, (host, port), token, limits, cluster)
    else:
        ended = _serve(output, asked, (host, port), token, limits, threads)
    output.notes.print(_told_at_the_end(ended.unanswered))
    raise typer.Exit(128 + ended.signal)


def _told_at_the_end(unanswered: int | None) -> str:
    if unanswered is None:
        return "ended; whether the replicas answered all requests that had begun is not known"
    if unanswered == 0:
        return "ended; all requests that had begun were answered"
    requests = "1 request that had begun was" if unanswered == 1 else f"{unanswered:,} requests that had begun were"
    return f"ended; {requests} not answered"


class _Asked(NamedTuple):
    """Which model, what it is called in addresses, and in which precision it answers."""

    name: str
    weights: str | None
    called: str | None
    precision: str | None


def _serve(
    output: Output,
    asked: _Asked,
    place: tuple[str, int],
    token: "Token | None",
    limits: "Limits",
    threads: int | None,
) -> "Ended":
    """In this process."""
    import torch

    from triscale.serving import opened
    from triscale.serving.running import bind, serve

    if threads is not None:
        torch.set_num_threads(threads)
    with (
        opened(asked.name, asked.weights, called=asked.called, precision=asked.precision) as served,
        closing(bind(*place)) as listening,
    ):
        port = listening.getsockname()[1]
        known = {
            "model": served.name,
            "classes": len(served.classes),
            "precision": served.precision,
            "token": token is not None,
        }
        return serve(
            served,
            limits,
            listening,
            token=token,
            host=place[0],
            started=lambda: _tell(output, known, _address(place[0], port)),
        )


def _serve_replicas(
    output: Output,
    asked: _Asked,
    place: tuple[str, int],
    token: "Token | None",
    limits: "Limits",
    cluster: "Cluster",
) -> "Ended":
    """On a cluster."""
    from triscale.serving.opening import name_in_addresses
    from triscale.serving.replicas import model_file, serve_replicas

    model = name_in_addresses(asked.name, asked.called)
    content = model_file(asked.name, asked.weights)
    known = {"model": model, "replicas": cluster.replicas, "precision": cluster.precision, "token": token is not None}
    return serve_replicas(
        content,
        model,
        limits,
        cluster,
        place,
        token=token,
        started=lambda port: _tell(output, known, _address(place[0], port)),
    )


def _tell(output: Output, known: dict[str, object], address: str) -> None:
    """That requests are answered now, and how to ask."""
    half = "" if known["precision"] in (None, "fp32") else f" in {known['precision']}"
    output.result(
        {"url": address, **known},
        lambda console: console.print(f"{known['model']} answers{half} at {address}/ until Ctrl-C"),
    )
    sys.stdout.flush()  # a pipe's reader waits for it, and nothing else follows
    said = ["-H", "Authorization: Bearer TOKEN"] if known["token"] else []
    output.next_command("curl", *said, "--data-binary", "@photo.jpg", f"{address}/predict")


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _cluster(address: str | None, replicas: int | None, threads: int | None, precision: str | None) -> "Cluster":
    from triscale.serving.replicas import Cluster

    given = {"address": address, "replicas": replicas, "threads": threads, "precision": precision}
    return Cluster(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _limits(batch: int, wait: str, queue: int, deadline: str, body: str, pixels: str) -> "Limits":
    from triscale.serving import Limits

    seconds = parse_seconds(deadline, "--deadline")
    return Limits(
        batch=batch,
        wait=parse_seconds_or_none(wait, "--wait"),
        queue=queue,
        deadline=seconds,
        arrival=seconds,
        body=parse_bytes(body, "--body"),
        pixels=parse_count(pixels, "--pixels"),
    )


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(f"serve: takes {error.name}, which is not installed: pip install 'triscale[serve]'") from None
