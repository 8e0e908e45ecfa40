"""What several test files share: one small finished run, made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pictures import digit_folder

from triscale.fitting import Fitted, fit


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_folder(tmp_path_factory.mktemp("images") / "digits")


@pytest.fixture(scope="session")
def fitted(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A finished run of a few seconds: five epochs on sixty digits of three classes."""
    return fit(digits, out=tmp_path_factory.mktemp("runs") / "run", macs=400_000, epochs=5, seed=3)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For many small networks: on tensors this small a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
