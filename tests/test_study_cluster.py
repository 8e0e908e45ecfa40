"""`triscale study --executor ray` where Ray is a pretended one: how many trials at once, and nodes that leave."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_ray import FakeRay, install
from small_trials import SMALL
from trainings import network

from triscale.trials import Probe, Trial
from triscale.trials.attempting import Pace

Run = Callable[..., tuple[int, str, str]]
FEW = ("--seeds", "3", "--epochs", "1", "--no-again")


def only_paces(asked: Trial | Probe) -> Pace | None:
    """Steps are measured, and no trial ever ends."""
    return Pace(1e-3) if isinstance(asked, Probe) else None


def test_workers_are_the_most_trials_at_once_on_a_cluster_too_and_where_its_nodes_leave_the_study_ends(
    triscale: Run, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    begun, again = (digits, "--baseline", network(tmp_path, SMALL)), ("--resume",)
    for words, most in ((begun, 2), (again, 1), (again, None)):
        ray = install(FakeRay([3, 5], only_paces), monkeypatch)
        ray.leaving = True
        limit = () if most is None else ("--workers", most)
        code, said, err = triscale("study", *words, "--out", out, "--executor", "ray", "--device", "cpu", *FEW, *limit)
        assert (code, said) == (1, ""), err
        assert ray.most == (most or 3), "trials of the baseline"
        assert not ray.is_initialized()
        last = err.strip().splitlines()[-1]
        assert "for 300 s no node of the cluster has had 1 processor for a trial; finished trials are kept" in last
        assert last.endswith(f": add such a node, and go on with: triscale study --resume --out {out}")
