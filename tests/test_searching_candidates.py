"""Which networks of a space a search tries: the same for a seed as ever, and some around any reference."""

import hashlib
import json
import math
from dataclasses import replace
from random import Random

import pytest
import torch
from searches import SETUP

from triscale.arch import Architecture, DepthwiseSeparable, Head, Stage, Stem, adapt, published
from triscale.costing import cost
from triscale.scaling import RULES, Budget, solve
from triscale.searching import STRATEGIES, Codes, Known, NetworkSpace, Scored, around, mnasnet
from triscale.searching import strategies as strategies_module
from triscale.searching.costs import Costs
from triscale.searching.halving import Search
from triscale.searching.networks import plainest
from triscale.searching.objectives import Objective
from triscale.searching.references import mini
from triscale.searching.strategies import find_strategy
from triscale.training import regularised


def asking(space: NetworkSpace, limit: float, strategy: str = "random", term: str = "macs") -> Search:
    """A search that has tried nothing."""
    setup = replace(SETUP, space=space, objective=Objective({term: limit}), strategy=strategy, candidates=None)
    costs = Costs(setup.objective, setup.reference, torch.device("cpu"))
    return Search(setup, find_strategy(strategy), costs, lambda: math.inf, lambda: 1, lambda _: None)


def candidates(search: Search, n: int, monkeypatch: pytest.MonkeyPatch) -> list[Codes]:
    """So many of them, each worth what its integers say, but every seventh, that failed."""
    history: list[Scored] = []
    monkeypatch.setattr(search, "known", lambda: Known(history))
    for place in range(n):
        found = search._new()
        assert found is not None
        codes = found[0].codes
        assert codes is not None
        history.append(Scored(codes, -math.inf if place % 7 == 6 else sum(codes) % 11 / 11))
    return [scored.codes for scored in history]


def at_limit(network: Architecture, pixels: int, macs: float) -> Architecture:
    small = adapt(network, resolution=(pixels, pixels), channels=1, classes=10)
    return regularised(solve(small, RULES["slim"], Budget({"macs": macs})).architecture, small)


def mobile(pixels: int = 64) -> Architecture:
    """MobileNetV1, each of its blocks a stage of its own."""
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    stages = tuple(Stage(DepthwiseSeparable(), channels, stride=stride) for channels, stride in rows)
    head = Head(classes=10, channels=None)
    return Architecture(stages, stem=Stem(32, activation="relu"), head=head, resolution=(pixels, pixels), name="v1")


@pytest.mark.parametrize(
    ("name", "pixels", "macs", "strategy", "digest"),
    [
        ("efficientnet_b0", 28, 5e6, "evolution", "4172fe54e8b9f9a0"),
        ("efficientnet_b0", 28, 5e6, "random", "7c391b620d48ca33"),
        ("mini", 28, 5e6, "evolution", "30d13bf427be9bd3"),
        ("mini", 28, 5e6, "random", "9ae036116454344e"),
        ("mobilenet_v2", 32, 20e6, "evolution", "f0bdb9d99ad1ff5d"),
    ],
)
def test_a_seed_gives_the_candidates_that_published_searches_had(
    name: str, pixels: int, macs: float, strategy: str, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = around(at_limit(mini() if name == "mini" else published(name), pixels, macs))
    found = candidates(asking(space, macs, strategy), 30, monkeypatch)
    assert hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_around_a_reference_of_many_stages_candidates_are_found(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies_module, "DRAWS", 300)  # of 300,000 none is within the limits
    monkeypatch.setattr(strategies_module, "SCARCE", 1)
    reference = mobile()
    search = asking(around(reference), float(cost(reference).macs), strategy)
    found = candidates(search, 25, monkeypatch)
    assert len({plainest(one.network) for one in search.candidates.values()} | {plainest(reference)}) == len(found) + 1
    assert all(0.85 <= search.setup.objective.used(one.costs) <= 1 for one in search.candidates.values())


def test_a_mnasnet_space_around_what_16_pixels_leave_of_a_network_has_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = mnasnet(published("mobilenet_v2")).at(at_limit(published("mobilenet_v2"), 16, 1.2e6))
    assert len(candidates(asking(space, 1.2e6), 8, monkeypatch)) == 8


def test_what_is_admitted_is_what_its_regularised_network_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    space, rng = around(at_limit(mini(), 28, 5e6)), Random(0)
    search, made = asking(space, 5e6), list[Architecture]()

    def counted(network: Architecture, baseline: Architecture) -> Architecture:
        made.append(network)
        return regularised(network, baseline)

    points = [space.space.sample(rng) for _ in range(2000)]
    expected = [search.costs.admitted(search.setup.network(codes)) is not None for codes in points]
    monkeypatch.setattr("triscale.searching.setup.regularised", counted)
    assert [search.admissible(codes) for codes in points] == expected
    assert 0 < len(made) == sum(expected) < 200  # what is far from the limits is not regularised


def test_a_candidate_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Architecture] = []

    def measure(costs: Costs, term: str, network: Architecture) -> float:
        measured.append(network)
        return 9.0 + len(measured) / 1000

    monkeypatch.setattr(Costs, "_measure", measure)
    search = asking(around(at_limit(mini(), 28, 5e6)), 10.0, term="latency")
    candidates(search, 5, monkeypatch)
    assert len(measured) == 6  # and the reference
    assert [one.costs["latency"] for one in search.candidates.values()] == [9.002, 9.003, 9.004, 9.005, 9.006]
