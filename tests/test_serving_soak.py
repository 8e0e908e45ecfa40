"""Everything at once, for a while: one user who asks properly, among many who do not."""

import io
import os
import random
import threading
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
from PIL import Image
from served import PATIENCE, bright, connected, everything, fetch, gray, head, known, said, serving
from waiting import until

from triscale.serving import Limits

SECONDS = 15.0
LIMITS = Limits(head=1.0, arrival=1.0, deadline=5.0, body=1_000_000, bodies=8_000_000, queue=16, connections=40)


def large(progressive: bool) -> bytes:
    """Fifty million pixels in a few kilobytes."""
    file = io.BytesIO()
    image = Image.fromarray(np.full((7000, 7000), 128, np.uint8))
    if progressive:
        image.save(file, "JPEG", progressive=True)
    else:
        image.save(file, "PNG")
    return file.getvalue()


def attacks() -> list[list[bytes]]:
    """What each sends, piece by piece with a pause between."""
    picture, bombs = gray(9), [large(False), large(True)]
    return [
        *([head(len(bomb)) + bomb] for bomb in bombs),
        [head(len(picture)) + picture] * 5,
        [head(len(picture))[:20], head(len(picture))[20:], *(picture[i : i + 1] for i in range(40))],
        [head(None, "transfer-encoding: chunked") + b"1\r\nx\r\n" * 20_000],
        [head(900_000) + b"x" * 890_000],
        [head(5_000_000) + b"x" * 3_000_000],
        [os.urandom(400)],
        [b""],
        [head(0, method="GET", path="/") * 200],
    ]


@pytest.mark.slow
def test_whoever_asks_properly_is_answered_right_whatever_others_do() -> None:
    over, kinds = threading.Event(), attacks()

    def attack(port: int, chance: random.Random) -> None:
        while not over.is_set():
            with suppress(OSError), connected(port) as connection:
                for piece in chance.choice(kinds):
                    connection.sendall(piece)
                    over.wait(0.05)
                if chance.random() < 0.7:
                    everything(connection)

    with serving(known(), LIMITS) as (server, port):
        attackers = [threading.Thread(target=attack, args=(port, random.Random(seed))) for seed in range(60)]
        for attacker in attackers:
            attacker.start()
        end, value = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=gray(value), timeout=PATIENCE)
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                time.sleep(0.1)
            else:
                assert said(answer) == pytest.approx(bright(value), abs=1e-6)
                value = (value + 1) % 256
        assert value
        over.set()
        for attacker in attackers:
            attacker.join(PATIENCE)
        until(lambda: not server.server_state.connections)
        assert fetch(port, 7) == pytest.approx(bright(7), abs=1e-6)
