"""What every verb that trains asks in the same words, and checks before a single image is looked at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triscale.arch import resolve
from triscale.asking import MOST_SEED, check_count, check_same, check_seed, check_time
from triscale.data import chance
from triscale.errors import UserError
from triscale.fitting import Asked, fit, train
from triscale.fitting.train import Asked as Training
from triscale.fitting.whole import Whole
from triscale.nn import build
from triscale.searching import Asked as Searched
from triscale.searching import search_network
from triscale.studies import Asked as Studied
from triscale.studies import Wanted, study

Request = Callable[..., object]
NOWHERE = Path("nowhere")  # where nothing is: looking at it would be another error

REQUESTS: dict[str, Request] = {
    "fit": lambda **asked: Asked({"macs": 1e6}, **asked).wish(),
    "train": lambda **asked: Training("mobilenet_v2", **asked),
    "search": lambda **asked: Searched({"macs": 1e6}, candidates=8, **asked),
    "study": lambda **asked: Studied("mobilenet_v2", Wanted(seeds=3), **{"epochs": 1, **asked}),
    "fit --search": lambda **asked: Whole(1e6, 60.0, search=True, study=True, **asked),
}
VERBS: dict[str, Request] = {
    "fit": lambda out, **asked: fit(NOWHERE, out=out, macs=1e6, **asked),
    "train": lambda out, **asked: train(NOWHERE, out=out, architecture="mobilenet_v2", **asked),
    "search": lambda out, **asked: search_network(NOWHERE, out=out, macs=1e6, candidates=8, **asked),
    "study": lambda out, **asked: study(NOWHERE, out=out, seeds=3, **{"epochs": 1, **asked}),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("seed", [0, 3_000_000_000, MOST_SEED])
def test_a_seed_that_one_verb_takes_all_take(request_: Request, seed: int) -> None:
    request_(seed=seed)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1, 0.5, True, "1"])
def test_a_seed_that_is_none_is_refused_in_the_same_words_by_all(verb: Request, seed: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        verb(tmp_path / "out", seed=seed)
    assert str(caught.value) == f"--seed {seed!r}: a seed is a whole number from 0 to {MOST_SEED}"
    assert list(tmp_path.iterdir()) == []


def test_what_counts_on_from_the_largest_seed_has_chance_of_its_own() -> None:
    network = resolve("mobilenet_v2")
    first, second = (next(build(network, seed=MOST_SEED + more).parameters()) for more in (0, 1000))
    assert not first.equal(second)
    drawn = [chance.uniform((MOST_SEED + more,), np.arange(8), 1) for more in (0, 1000)]
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"device": "moon"}, "--device 'moon' is no device; take cpu or cuda"),
        ({"epochs": 0}, "--epochs 0: "),
    ],
)
def test_what_cannot_be_trained_here_is_said_before_an_image_is_looked_at(
    verb: Request, asked: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        verb(tmp_path / "out", **asked)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_that_never_ends_or_is_over_already_is_refused(seconds: float) -> None:
    with pytest.raises(UserError, match=r"^--time of \S+ seconds is not positive; write for example 1h$"):
        check_time(seconds, "1h")


def test_what_is_left_open_is_not_checked_and_one_is_enough() -> None:
    check_time(None, "1h")
    check_count("images", None)
    check_count("images", 1)
    check_seed(0)
    with pytest.raises(UserError, match=r"^--images 0: at least 1$"):
        check_count("images", 0)


BEGUN = {"macs": 5e6, "latency": 0.01, "resolution": [24, 32], "recipe": {"epochs": 5}, "images": None, "flip": None}


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"macs": 6e6}, "--macs 6M: run was begun with 5M; leave --macs out to go on, or name another --out"),
        ({"latency": 0.02}, "--latency 20 ms: run was begun with 10 ms; leave --latency out"),
        ({"params": 1e6}, "--params 1M: run was begun with none; leave --params out"),
        ({"resolution": [32, 32]}, "--resolution 32x32: run was begun with 24x32; "),
        ({"recipe": {"epochs": 6}}, "--recipe: run was begun with another one; leave --recipe out"),
        ({"images": 500}, "--images 500: run was begun with 400; "),
        ({"on_bad": "skip"}, "--on-bad skip: run was begun with none; leave --on-bad out"),
        ({"flip": False}, "--no-flip: run was begun without it; leave --no-flip out"),
        ({"balance": False}, "--no-balance: run was begun with --balance; leave --no-balance out"),
    ],
)
def test_another_value_for_a_run_that_goes_on_is_named_with_the_one_it_has_and_the_way_out(
    named: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_same(named, BEGUN | {"balance": True}, {"images": 400}, Path("run"))
    assert str(caught.value).startswith(says)


def test_what_a_run_was_begun_with_and_what_came_of_it_may_be_said_once_more() -> None:
    check_same(BEGUN, BEGUN, {"images": 400}, Path("run"))
    check_same({"images": 400}, BEGUN, {"images": 400}, Path("run"))
