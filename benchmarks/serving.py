"""How many pictures a second a server answers and how long each waits, beside the engine's own speed.

    python benchmarks/serving.py [MODEL] [--clients 1 4 16] [--threads 1] [--seconds 3] [--rounds 5] [--json]

A server in a process of its own, and clients in this one that each ask again as soon as they are answered, over
connections that stay. They send one JPEG of 640×427 pixels, so that decoding it counts too. In turns with that, while
nobody asks, this process runs the same network with as many threads, for as long: by itself, one image and a batch at a
time, and once more with decoding. So all share whatever else the machine does. Requests and images a second: the
median of the rounds with the lowest and the highest; waiting: the 50th and 99th percentile of all answers of all
rounds. A client takes a share of the processors too: on few of them that is part of what is measured. --tensors: the
pixels are sent as FP32 by the protocol's binary extension instead, without decoding.
"""

import argparse
import asyncio
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from triscale.serving import Limits, opened
from triscale.serving.looking import look

BATCH = 8


@dataclass(frozen=True)
class Question:
    """What every client sends, as the bytes of HTTP."""

    content: bytes
    path: str
    headers: str = ""

    def request(self) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(self.content)}\r\n{self.headers}\r\n"
        )
        return head.encode() + self.content


@dataclass
class Taken:
    """Of one number of clients: requests a second by round, seconds of every answer, and how many were refused."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    refused: int = 0


def photograph() -> bytes:
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(file, "JPEG", quality=90)
    return file.getvalue()


def question(tensors: bool, x: torch.Tensor) -> Question:
    if not tensors:
        return Question(photograph(), "/predict?top=1")
    raw = x[None].numpy().astype("<f4").tobytes()
    given = {"name": "images", "datatype": "FP32", "shape": [1, *x.shape], "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [given], "outputs": [{"name": "labels"}]}).encode()
    return Question(text + raw, "/v2/models/served/infer", f"inference-header-content-length: {len(text)}\r\n")


@contextmanager
def server(model: str, threads: int) -> Iterator[int]:
    """The port of one."""
    command = [sys.executable, "-m", "triscale", "serve", model, "--name", "served", "--threads", str(threads)]
    process = subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


async def client(port: int, request: bytes, until: float, taken: Taken) -> int:
    """Asks until then; how many answers came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while (started := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        if head.startswith(b"HTTP/1.1 200"):
            taken.seconds.append(time.perf_counter() - started)
            count += 1
        else:
            taken.refused += 1
    writer.close()
    await writer.wait_closed()
    return count


async def ask(port: int, request: bytes, clients: int, seconds: float, taken: Taken) -> None:
    started = time.perf_counter()
    counts = await asyncio.gather(*(client(port, request, started + seconds, taken) for _ in range(clients)))
    taken.rates.append(sum(counts) / (time.perf_counter() - started))


def rate(run: Callable[[], object], images: int, seconds: float) -> float:
    """Images a second."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        run()
        count += images
    return count / (time.perf_counter() - started)


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def measure(
    model: str, clients: list[int], threads: int, seconds: float, rounds: int, tensors: bool
) -> dict[str, object]:
    torch.set_num_threads(threads)
    taken = {count: Taken() for count in clients}
    own: dict[str, list[float]] = {"one image": [], f"batches of {BATCH}": [], "decoding and one image": []}
    with opened(model) as served, server(model, threads) as port:
        content, pixels = photograph(), Limits().pixels
        x = look(served, content, pixels, keep=False).input
        one, many = x[None], x[None].repeat(BATCH, 1, 1, 1)
        runs: list[tuple[Callable[[], object], int]] = [
            (lambda: served.logits(one), 1),
            (lambda: served.logits(many), BATCH),
            (lambda: served.logits(look(served, content, pixels, keep=False).input[None]), 1),
        ]
        request = question(tensors, x).request()
        asyncio.run(ask(port, request, max(clients), 1.0, Taken()))  # warms up
        for _ in range(rounds):
            for (run, images), found in zip(runs, own.values(), strict=True):
                found.append(rate(run, images, seconds))
            for count, found_by in taken.items():
                asyncio.run(ask(port, request, count, seconds, found_by))
    return {
        "model": model,
        "threads": threads,
        "sent": "tensors" if tensors else "JPEG of 640×427",
        "engine": {name: spread(values) for name, values in own.items()},
        "server": [
            {
                "clients": count,
                "requests_per_second": spread(found.rates),
                "p50_ms": 1000 * float(np.quantile(found.seconds, 0.5)),
                "p99_ms": 1000 * float(np.quantile(found.seconds, 0.99)),
                "answers": len(found.seconds),
                "refused": found.refused,
            }
            for count, found in taken.items()
        ],
    }


def show(found: dict[str, object]) -> None:
    print(f"{found['model']}, threads: {found['threads']}, sent: {found['sent']}")
    engine, answers = found["engine"], found["server"]
    assert isinstance(engine, dict)
    assert isinstance(answers, list)
    for name, speed in engine.items():
        print(f"  engine, {name:<24}{speed['median']:8.1f} a second ({speed['low']:.1f} to {speed['high']:.1f})")
    for one in answers:
        speed = one["requests_per_second"]
        print(
            f"  server, clients: {one['clients']:<15}{speed['median']:8.1f} a second ({speed['low']:.1f} to "
            f"{speed['high']:.1f}), p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms, "
            f"{one['answers']:,} answers, {one['refused']} refused"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="efficientnet_lite0")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tensors", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.model, asked.clients, asked.threads, asked.seconds, asked.rounds, asked.tensors)
    print(json.dumps(found)) if asked.json else show(found)


if __name__ == "__main__":
    main()
