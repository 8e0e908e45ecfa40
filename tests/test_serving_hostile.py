"""Slow clients, tiny pieces, floods and garbage, over real connections: none costs the process or another's answer."""

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from signal import SIGTERM

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import PATIENCE, Gate, bright, connected, everything, fetch, gray, head, known, serving
from waiting import until

from triscale.serving import Limits, connections, guarding
from triscale.serving.tokens import Token

QUICK = Limits(head=0.3, arrival=0.5, body=200_000, bodies=2_000_000)


@pytest.fixture(autouse=True, scope="module")
def briefly() -> Iterator[None]:
    """Whoever is answered early is listened to for a shorter time, so that these tests end sooner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarding, "LINGERS", 0.2)
        yield


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that everybody here mistreats."""
    with serving(known(), QUICK) as (_, port):
        yield port


def status(answer: bytes) -> int:
    """Of an answer that is whole, with its one line."""
    start, _, body = answer.partition(b"\r\n\r\n")
    if not start.startswith(b"HTTP/1.1 200"):
        assert list(json.loads(body)) == ["error"]
    return int(start.split()[1])


def check(port: int) -> None:
    """Another user's answer, right as ever."""
    value = random.randrange(256)
    assert fetch(port, value) == pytest.approx(bright(value), abs=1e-6)


@pytest.mark.parametrize("sent", [b"", b"POST /pre", head(100)[:-2]], ids=["nothing", "line", "head"])
def test_a_head_that_does_not_arrive_is_hung_up_on(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        check(port)
        assert everything(connection) == b""


def test_a_head_that_trickles_is_hung_up_on(port: int) -> None:
    sent, pieces = 0, head(100, *(f"x-{i}: y" for i in range(1000)))
    with connected(port) as connection, suppress(ConnectionError):
        for byte in pieces:
            connection.sendall(bytes([byte]))
            sent += 1
            time.sleep(0.02)
    assert sent < len(pieces)


def test_a_body_that_does_not_arrive_is_answered_so(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(head(100) + b"half of it")
        check(port)
        assert status(everything(connection)) == 408


def test_a_body_that_trickles_is_answered_so(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(head(10_000))
        connection.settimeout(0.02)
        answer = b""
        while not answer:
            connection.sendall(b"x")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
        connection.settimeout(PATIENCE)
        assert status(answer + everything(connection)) == 408
    check(port)


def test_whoever_asks_and_never_reads_the_answers_is_hung_up_on() -> None:
    many = head(0, method="GET", path="/") * 2000
    with serving(known(), QUICK) as (server, port), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", port))
        with suppress(ConnectionError):
            connection.sendall(many)
        check(port)
        # Between two answers nothing is owed for a moment, and whoever reads then gets all of them.
        until(lambda: not server.server_state.connections)
        with suppress(ConnectionError):
            assert everything(connection).count(b"HTTP/1.1 200") < 2000


def test_a_connection_that_idles_is_closed(port: int) -> None:
    picture = gray(3)
    with connected(port) as connection:
        connection.sendall(head(len(picture)) + picture)
        assert status(everything(connection)) == 200


def test_several_requests_at_once_on_one_connection_are_answered_in_order(port: int) -> None:
    pictures = [gray(value) for value in (10, 200, 90)]
    with connected(port) as connection:
        connection.sendall(b"".join(head(len(one)) + one for one in pictures))
        answers = everything(connection).split(b"HTTP/1.1 ")[1:]
    bodies = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    found = [{one["name"]: one["probability"] for one in body["classes"]}["bright"] for body in bodies]
    assert found == pytest.approx([bright(value) for value in (10, 200, 90)], abs=1e-6)


def chunks(content: bytes, size: int) -> bytes:
    pieces = [content[i : i + size] for i in range(0, len(content), size)]
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"


def test_a_picture_in_chunks_of_one_byte_is_answered(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(head(None, "transfer-encoding: chunked") + chunks(gray(77), 1))
        answer = everything(connection)
    assert status(answer) == 200
    assert f'"bright","probability":{bright(77):.6f}'[:-2].encode() in answer


def test_a_body_of_very_many_tiny_pieces_is_refused_before_it_costs_anything(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(head(None, "transfer-encoding: chunked") + chunks(b"x" * 20_000, 1))
        assert status(everything(connection)) == 400
    check(port)


def test_the_refusal_of_a_body_arrives_although_more_is_being_sent(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(head(9_000_000))
        time.sleep(0.05)
        connection.sendall(b"x" * 9_000_000)
        answer = everything(connection)
    assert status(answer) == 413
    assert b"connection: close" in answer
    with connected(port) as connection:
        connection.sendall(head(None, "transfer-encoding: chunked") + chunks(b"x" * 1_000_000, 8_000))
        assert status(everything(connection)) == 413


def test_whoever_asks_before_sending_is_refused_before_sending(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(head(10**9, "expect: 100-continue"))
        answer = everything(connection)
    assert status(answer) == 413
    assert b"100 Continue" not in answer


GARBAGE = {
    "an empty line": b"\r\n",
    "nothing like it": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    "another protocol": b"SSH-2.0-x\r\n\r\n",
    "two lengths": b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    "a length that is none": b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    "both kinds of length": head(5, "transfer-encoding: chunked") + b"0\r\n\r\n",
    "another encoding": head(None, "transfer-encoding: gzip"),
    "no host": b"GET /v2 HTTP/1.1\r\n\r\n",
    "a name with a space": b"GET /v2 HTTP/1.1\r\nho st: localhost\r\n\r\n",
    "a head without an end": head(5, *(f"x-{i}: {'y' * 100}" for i in range(500))),
    "a broken chunk": head(None, "transfer-encoding: chunked") + b"zz\r\nxx\r\n",
    "a chunk of all memory": head(None, "transfer-encoding: chunked") + b"f" * 40 + b"\r\n",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_request_is_refused_in_a_line(port: int, sent: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(sent)
        assert status(everything(connection)) in (400, 413, 501)
    check(port)


@settings(max_examples=25)
@given(st.data())
def test_no_bytes_whatever_stop_the_server(port: int, data: st.DataObject) -> None:
    picture = gray(5)
    sound = bytearray(head(len(picture)) + picture)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(sound)))
        sound[place : place + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=12))
    with connected(port) as connection:
        connection.sendall(sound)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    assert answer == b"" or int(answer.split()[1]) in (200, 400, 403, 404, 405, 408, 413, 415, 422, 501)
    check(port)


def test_a_flood_is_refused_with_a_time_to_come_again_and_what_was_taken_is_answered_right() -> None:
    gate, limits = Gate(), Limits(queue=6, batch=2)

    def ask(value: int) -> tuple[int, httpx.Response]:
        return value, httpx.post(f"http://127.0.0.1:{port}/predict", content=gray(value), timeout=PATIENCE)

    with serving(known(gate), limits) as (_, port), ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(ask, value) for value in range(0, 240, 4)]
        until(lambda: sum(one.done() for one in asked) >= 54)
        gate.open.set()
        answers = [one.result() for one in asked]
        check(port)
    taken = [(value, answer) for value, answer in answers if answer.status_code == 200]
    refused = [answer for _, answer in answers if answer.status_code != 200]
    assert (len(taken), len(refused)) == (6, 54)
    for value, answer in taken:
        found = {one["name"]: one["probability"] for one in answer.json()["classes"]}
        assert found["bright"] == pytest.approx(bright(value), abs=1e-6)
    for answer in refused:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "ask again" in answer.json()["error"]


def test_whoever_hangs_up_is_not_computed_for() -> None:
    gate = Gate()
    with serving(known(gate), Limits(batch=1)) as (_, port), connected(port) as first:
        picture = gray(1)
        first.sendall(head(len(picture)) + picture)
        until(gate.entered.is_set)
        gone = gray(2)
        with connected(port) as second:
            second.sendall(head(len(gone)) + gone)
            until(lambda: inside(port) == 2)
        until(lambda: inside(port) == 1)
        gate.open.set()
        assert fetch(port, 3) == pytest.approx(bright(3), abs=1e-6)
    assert gate.computed == [1, 3]


@pytest.mark.parametrize(
    "offer",
    [
        (),
        ("connection: close",),
        ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAABAAMAAABk"),
    ],
    ids=["kept", "last", "another protocol"],
)
def test_an_answer_may_take_longer_than_a_head_whatever_the_connection_is_to_become(offer: tuple[str, ...]) -> None:
    gate, picture = Gate(), gray(7)
    with serving(known(gate), QUICK) as (_, port), connected(port) as connection:
        connection.sendall(head(len(picture), *offer) + picture)
        until(gate.entered.is_set)
        time.sleep(3 * QUICK.head)  # longer than a head may take
        gate.open.set()
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")


def inside(port: int) -> int:
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("triscale_images_inside ")).split()[1]))


def test_more_connections_than_there_may_be_take_nobodys_place_who_asks_properly() -> None:
    limits = Limits(connections=10, head=PATIENCE, arrival=PATIENCE)
    with serving(known(), limits) as (server, port), ExitStack() as stack:
        slow = [stack.enter_context(connected(port)) for _ in range(10)]
        for number, connection in enumerate(slow):
            connection.sendall(head(100)[: 10 if number % 2 else None])
        until(lambda: len(server.server_state.connections) == 10)
        with connected(port) as connection:  # those here may yet turn out to be prompt
            answer = everything(connection)
        assert (status(answer), b"retry-after: 1" in answer) == (503, True)
        time.sleep(connections.PROMPT + 0.1)
        for _ in range(3):
            check(port)
        assert everything(slow[1]) == b""  # the first of those whose heads are not whole


def test_requests_that_are_owed_an_answer_do_not_give_way_and_the_next_is_told_to_come_again() -> None:
    gate = Gate()
    with serving(known(gate), Limits(connections=3)) as (server, port), ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(fetch, port, value) for value in (1, 2, 3)]
        until(lambda: sum(one.is_owed for one in [*server.server_state.connections]) == 3)
        with connected(port) as connection:
            answer = everything(connection)
        assert status(answer) == 503
        assert b"retry-after: 1" in answer
        gate.open.set()
        assert [one.result() for one in asked] == pytest.approx([bright(value) for value in (1, 2, 3)], abs=1e-6)


def test_bodies_that_fill_all_room_and_stall_give_way_to_those_that_arrive() -> None:
    limits = Limits(body=100_000, bodies=300_000, arrival=PATIENCE)
    picture = gray(50)
    with serving(known(), limits) as (_, port), ExitStack() as stack:
        slow = [stack.enter_context(connected(port)) for _ in range(5)]
        for connection in slow:
            connection.sendall(head(99_999) + b"x" * 90_000)
        answers = [everything(connection) for connection in slow[:2]]
        assert [status(answer) for answer in answers] == [503, 503]
        with connected(port) as connection:
            connection.sendall(head(len(picture)) + picture)
            assert connection.recv(12) == b"HTTP/1.1 200"


def test_the_second_half_of_an_answer_is_not_held_back() -> None:
    gate = Gate()
    with serving(known(gate)) as (server, port), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(fetch, port, 1)
        until(gate.entered.is_set)
        (connection,) = server.server_state.connections
        assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        gate.open.set()
        asked.result()


def test_a_token_is_asked_for_before_a_body_is_read() -> None:
    with serving(known(), token=Token("0123456789abcdef")) as (_, port), connected(port) as connection:
        connection.sendall(head(10_000_000))
        assert status(everything(connection)) == 401


def test_at_its_end_a_server_answers_what_was_begun_and_refuses_what_was_not() -> None:
    gate = Gate()
    with serving(known(gate)) as (server, port), ThreadPoolExecutor(1) as pool:
        begun = pool.submit(fetch, port, 40)
        until(gate.entered.is_set)
        server.handle_exit(SIGTERM, None)
        refused = httpx.post(f"http://127.0.0.1:{port}/predict", content=gray(1), timeout=PATIENCE)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 503
        assert httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200
        gate.open.set()
        assert begun.result() == pytest.approx(bright(40), abs=1e-6)
        until(lambda: _is_closed(port))


def _is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionError:
        return True
    return False
