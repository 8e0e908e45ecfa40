"""`triscale serve` as a process: how it begins, what it refuses to begin, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import connected, everything, head, known, serving
from waiting import until

from triscale.errors import UserError
from triscale.fitting import Fitted
from triscale.serving import Limits
from triscale.serving.tokens import Token, find_token, is_loopback

PATIENCE = 120.0
SECRET = "0123456789abcdef0123"
Answer = tuple[int, str, str]


@contextmanager
def process(*words: object, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """A server of its own process, and what it said once it answered."""
    command = [sys.executable, "-m", "triscale", "serve", *map(str, words), "--port", "0", "--json"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert line, started.communicate()[1]
        yield started, json.loads(line)
    finally:
        started.kill()
        started.communicate()


def test_a_run_is_served_until_a_signal_and_what_was_begun_is_answered(fitted: Fitted, digits: Path) -> None:
    picture = next(digits.rglob("*.png")).read_bytes()
    with process(fitted.run.path) as (server, said):
        assert (said["model"], said["classes"], said["token"]) == ("run", 3, False)
        answers: list[int] = []
        begun = threading.Event()

        def ask() -> None:
            """One after the other until the server refuses."""
            with httpx.Client(timeout=PATIENCE) as client:
                while not answers or answers[-1] == 200:
                    try:
                        answers.append(client.post(f"{said['url']}/predict", content=picture).status_code)
                    except httpx.TransportError:  # it has closed the connection, as it said it would
                        return
                    begun.set()

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        assert begun.wait(PATIENCE)
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=PATIENCE)
        for asker in askers:
            asker.join(PATIENCE)
        assert (server.returncode, out) == (143, "")
        assert err.strip() == "ended; all requests that had begun were answered"
        assert set(answers) <= {200, 503}


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(fitted: Fitted) -> None:
    with process(fitted.run.path, "--deadline", "10m") as (server, said):
        port = int(said["url"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n")
            ready = f"{said['url']}/v2/health/ready"
            until(lambda: "begun 2.0" in httpx.get(f"{said['url']}/metrics").text)
            server.send_signal(signal.SIGINT)
            until(lambda: httpx.get(ready).status_code == 503)
            server.send_signal(signal.SIGINT)
            _, err = server.communicate(timeout=PATIENCE)
    assert server.returncode == 130
    assert err.splitlines()[-1] == "ended; 1 request that had begun was not answered"


def test_what_got_no_answer_when_patience_ran_out_is_counted() -> None:
    with serving(known(), Limits(arrival=0.1, deadline=0.1)) as (server, port), connected(port) as one:
        one.sendall(head(9))  # its body never arrives, and it is answered so
        assert b"408" in everything(one)
        server.handle_exit(signal.SIGTERM, None)
    assert server.unanswered == 0
    with ExitStack() as later, serving(known(), Limits(arrival=600, deadline=600)) as (server, port):
        later.enter_context(connected(port)).sendall(head(9))
        until(lambda: "begun 2.0" in httpx.get(f"http://127.0.0.1:{port}/metrics").text)  # the body's, and this one
        server.handle_exit(signal.SIGTERM, None)
        server.handle_exit(signal.SIGTERM, None)
    assert server.unanswered == 1


def test_other_machines_are_answered_with_the_token(fitted: Fitted) -> None:
    with process(fitted.run.path, "--host", "0.0.0.0", "--name", "mine", TRISCALE_TOKEN=SECRET) as (_, said):
        assert said["token"]
        port = said["url"].rpartition(":")[2]
        where = f"http://127.0.0.1:{port}/v2/models/mine"
        assert httpx.get(where).status_code == 401
        assert httpx.get(where, headers={"authorization": f"Bearer {SECRET}"}).json()["name"] == "mine"


def test_a_token_comes_from_a_file_or_else_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("TRISCALE_TOKEN", "another-of-some-length")
    assert find_token(file) == Token(SECRET)
    assert find_token(None) == Token("another-of-some-length")
    monkeypatch.delenv("TRISCALE_TOKEN")
    assert find_token(None) is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--host", "0.0.0.0"], "need a token"),
        (["--host", "::"], "need a token"),
        (["--host", "nowhere.invalid"], "no address"),
        (["--batch", "9", "--queue", "8"], "--batch 9"),
        (["--body", "none"], "--body"),
        (["--pixels", "1G"], "--pixels 1000000000"),
        (["--wait", "-1ms"], "--wait"),
        (["--threads", "0"], "--threads 0"),
        (["--name", "a/b"], "--name 'a/b'"),
        (["--port", "99999"], "--port 99999"),
        (["--token-file", "/nowhere/token"], "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_line(
    triscale: Callable[..., Answer], fitted: Fitted, words: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRISCALE_TOKEN", raising=False)
    code, out, err = triscale("serve", fitted.run.path, *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert why in err


def test_a_port_that_is_taken_is_named(triscale: Callable[..., Answer], fitted: Fitted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, _ = triscale("serve", fitted.run.path, "--port", port, "--json")
    assert (code, f"--port {port}" in json.loads(out)["error"]) == (2, True)


def test_a_model_without_learned_weights_is_not_served(triscale: Callable[..., Answer]) -> None:
    code, _, err = triscale("serve", "mobilenet_v2", "--port", "0")
    assert (code, "random weights" in err) == (2, True)


def test_what_is_not_installed_is_named(triscale: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = triscale("serve", "x")
    assert (code, "pip install 'triscale[serve]'" in err) == (2, True)


@pytest.mark.parametrize(
    "text", ["", "short", "two words of some length", "two\nlines-of-some-length", "schlüssel-mit-umlaut"]
)
def test_a_token_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, "utf-8")
    with pytest.raises(UserError, match="openssl rand"):
        find_token(file)


def test_a_token_fits_itself_only_and_is_not_shown() -> None:
    token = Token(SECRET)
    assert token.fits(f"Bearer {SECRET}")
    assert token.fits(f"bearer  {SECRET} ")
    assert not any(token.fits(said) for said in (None, "", SECRET, f"Basic {SECRET}", f"Bearer {SECRET}x", "Bearer é"))
    assert SECRET not in repr(token)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("0.0.0.0", False)],
)
def test_an_address_of_this_machine_alone_is_told_from_others(host: str, local: bool) -> None:
    assert is_loopback(host) is local
