"""The kernels switched on and off within a process, where they are opened once otherwise."""

import pytest

from triscale.kernels import library


def switch_kernels(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """TRISCALE_KERNELS as a new process finds it."""
    monkeypatch.setenv("TRISCALE_KERNELS", value)
    monkeypatch.setattr(library, "load", library.load.__wrapped__)
