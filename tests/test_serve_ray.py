"""`triscale serve --ray`: two replicas on one machine, of which one is killed under load."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from served import HOME
from waiting import until

from triscale.errors import TriscaleError, UserError
from triscale.fitting import Fitted
from triscale.models import load, predict
from triscale.serving import Limits
from triscale.serving import replicas as replicas_module
from triscale.serving.replicas import Cluster, model_file
from triscale.serving.running import Ended

# Looked for, not imported: Ray reads what quietens it while it is imported, which Triscale sets before.
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="takes Ray")
PATIENCE = 600.0  # seconds: Ray begins slowly on a machine that has other work
patiently = partial(until, longest=PATIENCE, every=0.1)


def replicas(model: str) -> set[int]:
    """Processes that answer for it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if command.startswith(b"ray::") and f"ServeReplica:{model}:".encode() in command:
                found.add(int(entry.name))
    return found


@pytest.mark.slow
@needs_ray
def test_a_replica_that_is_killed_under_load_costs_nobody_a_right_answer_and_is_replaced(
    fitted: Fitted, digits: Path
) -> None:
    name, paths = f"killed-{os.getpid()}", sorted(digits.rglob("*.png"))[::9]
    pictures = [(guess.path.read_bytes(), dict(guess.classes)) for guess in predict(fitted.run.path, paths)]
    command = ["serve", str(fitted.run.path), "--name", name, "--ray", "--replicas", "2", "--port", "0", "--json"]
    server = subprocess.Popen(
        [sys.executable, "-m", "triscale", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, server.communicate()[1]
        said = json.loads(line)
        assert (said["model"], said["replicas"], said["precision"]) == (name, 2, None)
        before = replicas(name)
        assert len(before) == 2

        wrong: list[str] = []
        answered, retried = [0], [0]
        over = threading.Event()

        def ask(client: httpx.Client, content: bytes, expected: dict[str, float]) -> None:
            """Until there is an answer."""
            while True:
                try:
                    answer = client.post(f"{said['url']}/predict", content=content)
                except httpx.TransportError:
                    retried[0] += 1
                    continue
                if answer.status_code == 200:
                    break
                assert answer.status_code in (500, 502, 503), answer.text
                retried[0] += 1
                time.sleep(0.05)
            found = {one["name"]: one["probability"] for one in answer.json()["classes"]}
            if found != pytest.approx(expected, abs=1e-5):
                wrong.append(f"{found}, not {expected}")
            answered[0] += 1

        def user(number: int) -> None:
            with httpx.Client(timeout=PATIENCE) as client:
                for content, expected in cycle(pictures[number:] + pictures[:number]):
                    if over.is_set():
                        return
                    ask(client, content, expected)

        users = [threading.Thread(target=user, args=(number,)) for number in range(6)]
        for one in users:
            one.start()
        patiently(lambda: answered[0] > 100)
        os.kill(min(before), signal.SIGKILL)
        at_kill = answered[0]
        patiently(lambda: answered[0] > at_kill + 100)
        patiently(lambda: len(replicas(name) - {min(before)}) == 2)
        with_both = answered[0]
        patiently(lambda: answered[0] > with_both + 100)
        over.set()
        for one in users:
            one.join(PATIENCE)
        assert wrong == []
        ready = httpx.get(f"{said['url']}/v2/health/ready", timeout=PATIENCE)
        assert ready.json() == {"ready": True}
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=PATIENCE)
        assert (server.returncode, out) == (143, "")
        patiently(lambda: not replicas(name))
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_what_a_replica_is_built_from_answers_as_predict_whether_or_not_a_precision_is_named(
    fitted: Fitted, digits: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None, precision: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda held: held))
    path = next(digits.rglob("*.png"))
    (guess,) = predict(fitted.run.path, path)
    content, cluster = model_file(str(fitted.run.path), None), Cluster(precision=precision)
    app = replicas_module._build([content], "demo", Limits(), cluster, None, "127.0.0.1", version("triscale"))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=HOME) as client:
            return await client.post("/predict", content=path.read_bytes())

    with app.state.open:
        values = asyncio.run(ask()).json()
    assert values["model"] == "demo"
    assert {one["name"]: one["probability"] for one in values["classes"]} == pytest.approx(dict(guess.classes))


def test_a_replica_of_another_version_is_never_built() -> None:
    with pytest.raises(UserError, match=r"not 0\.0; install the same on every node"):
        replicas_module._build([b""], "demo", Limits(), Cluster(), None, "127.0.0.1", "0.0")


@pytest.mark.parametrize("named", [None, "fp32"])
def test_replicas_are_told_of_with_the_precision_that_was_named_or_none(
    triscale: Callable[..., tuple[int, str, str]],
    fitted: Fitted,
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
) -> None:
    asked: list[Cluster] = []

    def at_once(
        content: bytes, called: str, limits: Limits, cluster: Cluster, place: tuple[str, int], **how: Any
    ) -> Ended:
        asked.append(cluster)
        how["started"](place[1])
        return Ended(signal.SIGTERM, None)

    monkeypatch.setattr(replicas_module, "serve_replicas", at_once)
    words = ["serve", fitted.run.path, "--ray", "--port", 9000, *([] if named is None else ["--precision", named])]
    code, out, err = triscale(*words)
    assert (code, out) == (143, "run answers at http://127.0.0.1:9000/ until Ctrl-C\n")
    assert err.splitlines()[-1] == "ended; whether the replicas answered all requests that had begun is not known"
    code, out, _ = triscale(*words, "--json")
    where = {"url": "http://127.0.0.1:9000", "model": "run", "replicas": 2}
    assert json.loads(out) == {**where, "precision": named, "token": False}
    assert asked == [Cluster(precision=named)] * 2


def test_the_model_travels_as_one_file(fitted: Fitted, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(model_file(str(fitted.run.path), None))
    there, here = load(file), load(fitted.run.path)
    assert (there.classes, there.preprocess, there.architecture) == (here.classes, here.preprocess, here.architecture)
    weights = here.state_dict()
    assert all(bool((tensor == weights[key]).all()) for key, tensor in there.state_dict().items())


@needs_ray
def test_ray_serve_tells_nothing_of_its_steps() -> None:
    check = (
        "import logging; from triscale.serving import replicas; replicas._prepare(); replicas._import_serve(); "
        "print(logging.getLogger('ray.serve').isEnabledFor(logging.WARNING))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"threads": 0}, {"replicas": 9999}])
def test_a_cluster_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="is not from 1 to 1024"):
        Cluster(**wrong)


@pytest.mark.parametrize("words", [("--replicas", "2"), ("--address", "auto")])
def test_what_says_how_a_cluster_is_used_is_refused_without_one(
    triscale: Callable[..., tuple[int, str, str]], words: tuple[str, str]
) -> None:
    code, _, err = triscale("serve", "x", *words)
    assert (code, f"{words[0]}: says how a Ray cluster is used" in err) == (2, True)


@needs_ray
@pytest.mark.parametrize(("port", "why"), [(8000, "no cluster answers"), (0, "name a port")])
def test_a_cluster_that_cannot_be_used_is_named(
    triscale: Callable[..., tuple[int, str, str]], fitted: Fitted, port: int, why: str
) -> None:
    code, _, err = triscale("serve", fitted.run.path, "--ray", "--address", "127.0.0.1:1", "--port", port)
    assert (code, why in err) == (2, True)


@pytest.mark.parametrize("there", [("127.0.0.1", 8000), ("0.0.0.0", 9000), (None, 9000)])
def test_proxies_that_listen_elsewhere_are_never_given_the_application(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str | None, int]
) -> None:
    class Serve:
        def start(self, **_: object) -> None: ...

        def run(self, *_: object, **__: object) -> None:
            pytest.fail("the application was handed over")

        def delete(self, _: str) -> None:
            pytest.fail("somebody else's application was ended")

    monkeypatch.setattr(replicas_module, "_listening", lambda: there)
    with (
        pytest.raises(
            UserError, match=r"--host 127\.0\.0\.1 --port 9000: Serve runs on that cluster already"
        ) as caught,
        replicas_module._deployed(Serve(), None, "demo", "127.0.0.1", 9000, own=False),
    ):
        pass
    assert str(there[1]) in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("no processors"), KeyboardInterrupt()])
def test_replicas_that_do_not_come_up_are_not_left_on_somebody_elses_cluster(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    deleted: list[str] = []

    def run(*_: object, **__: object) -> None:
        raise error

    serve = SimpleNamespace(start=lambda **_: None, run=run, delete=deleted.append)
    monkeypatch.setattr(replicas_module, "_listening", lambda: ("127.0.0.1", 9000))
    kind = TriscaleError if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(kind), replicas_module._deployed(serve, None, "demo", "127.0.0.1", 9000, own=False):
        pass
    assert deleted == ["demo"]
