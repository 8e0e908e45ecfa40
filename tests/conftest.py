"""What several test files share: one small finished run, made once; a command line; a server of downloads."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from pictures import digit_folder, two_photos
from web import Server

from triscale.cli.main import run
from triscale.data import Data, read
from triscale.fitting import Fitted, fit
from triscale.trials import Ledger, driving

Answer = tuple[int, str, str]

# No test asserts a time: a busy machine is no failure.
settings.register_profile(
    "steady",
    settings.get_profile("ci" if "CI" in os.environ else "default"),
    deadline=None,
    max_examples=50,  # of a test that does not say how many; all tests together shall take minutes
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_folder(tmp_path_factory.mktemp("images") / "digits")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def data(digits: Path) -> Data:
    """The digits, read."""
    return read(digits)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new one of a study, in the test's own folder."""
    with closing(Ledger(tmp_path / "ledger.db", "study")) as ledger:
        yield ledger


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver of trials looks so often that a small one is met in its middle."""
    monkeypatch.setattr(driving, "LOOKED", 0.02)


@pytest.fixture(scope="session")
def fitted(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A finished run of a few seconds: five epochs on sixty digits of three classes."""
    return fit(digits, out=tmp_path_factory.mktemp("runs") / "run", macs=400_000, epochs=5, seed=3)


@pytest.fixture
def triscale(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs a command line in this process: (exit code, standard output, standard error)."""

    def command(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["triscale", *map(str, words)])
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.bin"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For many small networks: on tensors this small a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
