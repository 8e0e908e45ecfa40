import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LOOK

from triscale.arch import Architecture, to_json
from triscale.costing import cost
from triscale.data import read
from triscale.engines import Latency
from triscale.errors import TooShortError, UserError
from triscale.fitting import CANDIDATES, Asked, Draft, Frozen, Listener, Plan, draft, fit
from triscale.fitting.candidates import Candidate, Course, measure, take
from triscale.models.model import new
from triscale.nn import Network
from triscale.searching.references import mini
from triscale.training import Machine, Pace
from triscale.units import format_seconds

WHOLE = Listener()


class FakeMachine:
    """A machine whose speed is known: so many MACs a second in training, whatever the network is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, macs_per_second: float) -> None:
        self.speed, self.favourite = macs_per_second, ""
        monkeypatch.setattr("triscale.fitting.candidates.fastest_machine", self.fastest_machine)
        monkeypatch.setattr("triscale.fitting.candidates.product_speed", lambda _: 10 * macs_per_second)
        monkeypatch.setattr("triscale.fitting.plan.rehearse", self.rehearse)

    def per_image(self, architecture: Architecture) -> float:
        swift = 3 if architecture.name.startswith(self.favourite) and self.favourite else 1
        return cost(architecture).macs / self.speed / swift

    def fastest_machine(self, network: Network, batch: int, device: torch.device, until: float | None) -> Machine:
        return Machine(str(device), "fp32", 1, batch, self.per_image(network.architecture), {})

    def rehearse(self, model: Network, images: object, recipe: object, machine: Machine, **_: object) -> Pace:
        return Pace(1.2 * machine.per_image * machine.measured, 0.001)


def planned(digits: Path, limits: dict[str, float], **asked: object) -> Plan:
    made: Draft = draft(digits, Asked(limits, **asked).wish(), WHOLE)  # type: ignore[arg-type]
    return made.plan


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    return FakeMachine(monkeypatch, 1e11)


@pytest.fixture
def sizes(tmp_path: Path) -> list[Path]:
    """The same network for fewer pixels than the images have, and for more."""
    files = []
    for pixels in (12, 224):
        files.append(tmp_path / f"of_{pixels}.json")
        files[-1].write_text(to_json(replace(mini(), resolution=(pixels, pixels), name=f"mini-{pixels}")))
    return files


def test_every_default_candidate_is_in_the_plan_with_what_it_realises(digits: Path, fast: FakeMachine) -> None:
    plan = planned(digits, {"macs": 2e6})
    assert tuple(candidate.name for candidate in plan.candidates) == CANDIDATES
    for candidate in plan.candidates:
        assert candidate.refused is None
        assert candidate.scaled is not None
        assert 0.9 * 2e6 < candidate.macs <= 2e6
        assert candidate.images_per_second > 0
        assert candidate.epochs == 20
    rows = plan.to_dict()["candidates"]
    assert [row["name"] for row in rows] == list(CANDIDATES)
    assert [row["macs"] for row in rows] == [candidate.macs for candidate in plan.candidates]
    assert sum(row["taken"] for row in rows) == 1


@pytest.mark.parametrize("favourite", CANDIDATES)
def test_of_equally_large_candidates_the_fastest_to_train_is_taken(
    digits: Path, fast: FakeMachine, favourite: str
) -> None:
    fast.favourite = favourite
    plan = planned(digits, {"macs": 2e6})
    assert plan.candidates[plan.taken].name == favourite
    assert "fastest" in plan.why


@pytest.mark.parametrize("favourite", CANDIDATES)
def test_of_equally_large_candidates_one_that_keeps_the_most_pixels_is_taken_before_a_faster_one(
    digits: Path, fast: FakeMachine, favourite: str
) -> None:
    fast.favourite = favourite
    plan = planned(digits, {"macs": 3e5})
    sides = [candidate.architecture.resolution[0] for candidate in plan.candidates if candidate.architecture]
    assert len(set(sides)) > 1
    assert sides[plan.taken] == max(sides)
    assert "pixels" in plan.why


def test_pixels_are_counted_against_the_images_not_against_the_baseline(
    digits: Path, fast: FakeMachine, sizes: list[Path]
) -> None:
    fast.favourite = "mini-12"
    plan = planned(digits, {"macs": 4e6}, baseline=sizes, rule="width")
    assert plan.candidates[0].images_per_second > plan.candidates[1].images_per_second
    assert [one.architecture.resolution for one in plan.candidates if one.architecture] == [(12, 12), (16, 16)]
    assert (plan.taken, plan.why) == (1, "it keeps the most pixels of 2 equally large ones")


def test_where_some_keep_their_pixels_the_fastest_of_these_is_taken(digits: Path, fast: FakeMachine) -> None:
    def candidate(name: str, pixels: int, speed: float) -> Candidate:
        scaled = one.candidates[0].scaled
        assert scaled is not None
        network = replace(scaled.architecture, resolution=(pixels, pixels))
        return Candidate(replace(network, name=name), scaled, network, epochs=20, images_per_second=speed)

    one = planned(digits, {"macs": 3e6}, baseline="resnet18")
    found = tuple(candidate(*row) for row in (("a", 16, 1.0), ("b", 16, 2.0), ("c", 8, 3.0), ("d", 8, 4.0)))
    taken, why = take(found, Course(5, 8, 16, 1, 60, None, None))
    assert (taken, why) == (
        1,
        "of 4 equally large ones 2 keep the most pixels, and it is the fastest of these to train",
    )


def test_a_larger_candidate_is_taken_before_a_faster_one(digits: Path, fast: FakeMachine) -> None:
    fast.favourite = "resnet18"
    # 20,000 parameters are far more MACs in one kind of network than in another.
    plan = planned(digits, {"params": 20_000})
    largest = max(plan.candidates, key=lambda candidate: candidate.macs)
    assert plan.candidates[plan.taken].macs >= 0.95 * largest.macs


def test_the_time_decides_the_epochs_and_is_not_planned_beyond(digits: Path, fast: FakeMachine) -> None:
    short, long = (planned(digits, {"macs": 2e6}, time=seconds) for seconds in (20, 60))
    assert short.time == 20
    assert short.expected <= 20
    assert long.expected <= 60
    assert long.recipe.epochs >= short.recipe.epochs
    assert short.steps == short.recipe.epochs * 5  # 42 images in batches of 8


def test_more_time_than_a_training_can_use_is_left(digits: Path, fast: FakeMachine) -> None:
    plan = planned(digits, {"macs": 2e6}, time=100_000)
    assert plan.steps <= 6_100
    assert plan.expected < 10_000


def test_where_the_budget_is_too_much_for_the_time_the_network_is_smaller_never_half_trained(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 4e9)
    plan = planned(digits, {"macs": 40e6}, time=30, baseline="resnet18")
    assert plan.scaled.cost.macs < 0.9 * 40e6
    assert plan.steps >= 300
    assert plan.recipe.epochs >= plan.fewest >= 5
    assert plan.expected <= 30
    assert "larger" in plan.why
    assert plan.to_dict()["scaling"]["budget"]["macs"]["limit"] == 40e6


def test_a_candidate_too_slow_for_the_time_is_passed_over_for_one_that_is_not(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 5e8).favourite = "mobilenet_v2"
    plan = planned(digits, {"macs": 2e6}, time=15)
    assert plan.candidates[plan.taken].name == "mobilenet_v2"
    assert "only one that completes" in plan.why
    others = [candidate for i, candidate in enumerate(plan.candidates) if i != plan.taken]
    assert all(candidate.epochs < plan.fewest and not candidate.shrunk for candidate in others)


def test_a_rehearsal_that_is_slower_than_the_timing_gives_way_to_a_candidate_that_completes(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMachine(monkeypatch, 4e8)

    def rehearse(model: Network, images: object, recipe: object, machine: Machine, **_: object) -> Pace:
        slow = 60.0 if model.architecture.name.startswith("resnet18") else 1.0
        return Pace(slow * machine.per_image * machine.measured, 0.001)

    monkeypatch.setattr("triscale.fitting.plan.rehearse", rehearse)
    fake.favourite = "resnet18"
    plan = planned(digits, {"macs": 3e6}, time=120, baseline=["resnet18", "mobilenet_v2"])
    taken, other = plan.candidates[plan.taken], plan.candidates[1 - plan.taken]
    assert taken.epochs >= plan.fewest
    assert taken.name == "mobilenet_v2"
    assert not taken.shrunk
    assert other.epochs < plan.fewest


@pytest.mark.parametrize("slow", [60.0, 1.0])
def test_why_a_candidate_was_taken_is_not_said_of_one_that_the_table_shows_slower(
    digits: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    fake = FakeMachine(monkeypatch, 4e9)
    monkeypatch.setattr(
        "triscale.fitting.plan.rehearse", lambda *given, **_: Pace(slow * given[3].per_image * given[3].measured, 0.001)
    )
    fake.favourite = "resnet18"
    plan = planned(digits, {"macs": 3e6}, baseline=["resnet18", "mobilenet_v2"])
    taken, other = plan.candidates[plan.taken], plan.candidates[1 - plan.taken]
    assert taken.name == "resnet18"
    assert plan.why.endswith(", as first timed") == (other.images_per_second > taken.images_per_second)
    assert (other.images_per_second > taken.images_per_second) == (slow > 1)


def test_no_time_left_at_all_is_named_before_anything_is_measured(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.fitting.plan.measure", lambda *_: pytest.fail("measured without time"))
    with pytest.raises(UserError, match=r"--time 1 s: too short"):
        planned(digits, {"macs": 2e6}, time=1)


def test_a_network_that_no_training_completes_in_the_time_is_neither_built_nor_timed(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, timed = FakeMachine(monkeypatch, 1e9), []

    def remembered(network: Network, *how: Any) -> Machine:
        timed.append(cost(network.architecture).macs)
        return fake.fastest_machine(network, *how)

    monkeypatch.setattr("triscale.fitting.candidates.fastest_machine", remembered)
    plan = planned(digits, {"macs": 2e10}, time=60, baseline=["resnet18", "mobilenet_v2"])
    assert max(timed) < 1e8
    assert plan.recipe.epochs >= plan.fewest
    assert "smaller than the budget allows" in plan.why
    timed.clear()
    learned = new(replace(mini(), channels=1), tuple("0123456789"), LOOK)
    learned.trained = True
    fixed, course = Asked({}, weights=learned, time=10).wish(), Course(5, 8, 16, 5, 5, 1e-3, 10.0)
    with pytest.raises(TooShortError, match=r"5 epochs of .* take about .* give it"):
        take(measure(read(digits), fixed, course, lambda *_: None), course)
    assert not timed


def test_measuring_ends_with_its_time_though_no_candidate_completes_as_it_is(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 3e8)
    assert not planned(digits, {"macs": 40e6}, time=300).candidates[1].refused
    monkeypatch.setattr("triscale.fitting.plan.MEASURING", -1.0)
    plan = planned(digits, {"macs": 40e6}, time=300)
    assert plan.taken == 0
    assert plan.candidates[0].shrunk
    assert plan.recipe.epochs >= plan.fewest
    assert all("there was no time left to measure it" in (one.refused or "") for one in plan.candidates[1:])


def test_where_the_time_is_over_nothing_is_made_smaller_and_rehearsed_again(
    digits: Path, fast: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearsed = []

    def rehearse(*given: Any, **how: object) -> Pace:
        rehearsed.append(given)
        return fast.rehearse(*given, **how)

    monkeypatch.setattr("triscale.fitting.plan.rehearse", rehearse)
    monkeypatch.setattr("triscale.fitting.plan._after", lambda *_: 1000.0)
    with pytest.raises(TooShortError, match="there are 0"):
        planned(digits, {"macs": 2e6}, time=20, baseline="efficientnet_b0")
    assert len(rehearsed) == 1


def test_a_smaller_network_that_is_grown_by_a_named_rule_starts_from_its_own_pixels(
    digits: Path, fast: FakeMachine, sizes: list[Path]
) -> None:
    named = planned(digits, {"macs": 4e6}, baseline=sizes, rule="width")
    assert [one.architecture.resolution for one in named.candidates if one.architecture] == [(12, 12), (16, 16)]
    unnamed = planned(digits, {"macs": 4e6}, baseline=sizes)
    assert {one.architecture.resolution for one in unnamed.candidates if one.architecture} == {(16, 16)}


def test_a_network_that_sees_the_images_enlarged_says_so(digits: Path, fast: FakeMachine, sizes: list[Path]) -> None:
    sharper = planned(digits, {"macs": 2e7}, baseline=sizes[0], rule="resolution")
    side = sharper.architecture.resolution[0]
    assert side > 16
    assert sharper.why.endswith(f"; it sees images of 8×8 pixels enlarged to {side}×{side}")
    # Every network sees images of fewer than 16 pixels at 16.
    assert "enlarged" not in planned(digits, {"macs": 4e6}, baseline=sizes[1], rule="width").why


def test_a_network_that_memory_could_not_hold_is_over_its_limit_without_being_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from triscale.arch import published
    from triscale.training import budgets

    monkeypatch.setattr(budgets, "build", lambda _: pytest.fail("built"))
    monkeypatch.setattr(budgets, "total_memory", lambda _: 10**6)
    budget = budgets.measured_budget({"latency": 1.0, "memory": 1e12}, torch.device("cpu"))
    assert budget.used(budget.values(published("efficientnet_b0"))) == float("inf")


def test_a_candidate_whose_training_runs_out_of_memory_is_refused_and_the_others_go_on(
    digits: Path, fast: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = fast.fastest_machine

    def narrow(network: Network, batch: int, device: torch.device, until: float | None) -> Machine:
        if network.architecture.name.startswith("mobilenet"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return measured(network, batch, device, until)

    monkeypatch.setattr("triscale.fitting.candidates.fastest_machine", narrow)
    plan = planned(digits, {"macs": 2e6}, baseline=["mobilenet_v2", "resnet18"])
    assert "memory" in (plan.candidates[0].refused or "")
    assert plan.candidates[plan.taken].name == "resnet18"


def test_epochs_that_were_asked_for_are_kept_and_the_network_shrinks_instead(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 4e9)
    plan = planned(digits, {"macs": 40e6}, time=30, epochs=80, baseline="resnet18")
    assert plan.recipe.epochs == 80
    assert plan.scaled.cost.macs < 40e6


def test_a_time_in_which_nothing_can_be_trained_is_named_and_leaves_nothing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 1e6)
    with pytest.raises(UserError, match=r"--time: .* give it .* or more$"):
        fit(digits, out=tmp_path / "run", macs=2e6, time=15)
    assert not (tmp_path / "run").exists()


def test_an_error_of_time_tells_what_was_rehearsed_and_what_would_be_enough(
    digits: Path, fast: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where steps cost the same whatever the network, a smaller one looks fast enough until it is rehearsed, too."""
    monkeypatch.setattr("triscale.fitting.plan.rehearse", lambda *_, **__: Pace(0.5, 0.001))
    with pytest.raises(TooShortError, match=r"take about .*, and there are") as caught:
        planned(digits, {"macs": 2e6}, time=20, baseline="efficientnet_b0")
    assert caught.value.least > 20
    assert planned(digits, {"macs": 2e6}, time=caught.value.least, baseline="efficientnet_b0").recipe.epochs > 1


def test_a_candidate_that_cannot_hold_the_budget_says_why_and_the_others_go_on(digits: Path, fast: FakeMachine) -> None:
    plan = planned(digits, {"params": 5_500_000}, rule="depth", baseline=["efficientnet_b0", "resnet50", "resnet18"])
    refused = {candidate.name: candidate.refused for candidate in plan.candidates}
    assert refused["resnet50"] is not None
    assert "5.5M" in refused["resnet50"]
    assert refused["efficientnet_b0"] is None
    assert plan.candidates[plan.taken].name != "resnet50"


def test_where_no_candidate_can_hold_the_budget_the_error_names_it_and_all_of_them(
    digits: Path, fast: FakeMachine
) -> None:
    with pytest.raises(UserError, match="no network that small") as caught:
        planned(digits, {"macs": 10})
    assert all(name in str(caught.value) for name in CANDIDATES)
    assert "\n" not in str(caught.value)


def frozen(plan: Plan) -> Frozen:
    return Frozen.from_json(json.loads(json.dumps(plan.to_dict())), "run.json")


def test_the_deadline_leaves_time_for_what_follows(digits: Path, fast: FakeMachine) -> None:
    plan = planned(digits, {"macs": 2e6}, time=60)
    deadline = frozen(plan).deadline
    assert deadline is not None
    assert 0 < deadline.seconds <= 60 - plan.planning - plan.after
    assert (deadline.step, deadline.epoch_end) == (plan.pace.step, plan.pace.epoch_end)
    assert frozen(planned(digits, {"macs": 2e6})).deadline is None


def test_a_plan_comes_back_from_json_as_it_was(digits: Path, fast: FakeMachine) -> None:
    plan = planned(digits, {"macs": 2e6, "params": 1e6}, time=60)
    again = frozen(plan)
    for name in ("architecture", "preprocess", "recipe", "machine", "pace", "steps", "time", "seed", "scratch"):
        assert getattr(again, name) == getattr(plan, name), name
    assert (again.scaled.limits, again.scaled.values) == (plan.scaled.limits, plan.scaled.values)
    assert again.scaled.baseline == plan.scaled.baseline
    assert again.scaled.cost.macs == plan.scaled.cost.macs


@pytest.mark.parametrize("key", ["architecture", "recipe", "machine", "steps", "candidates", "scaling"])
def test_a_plan_that_lacks_something_is_a_clear_line(digits: Path, fast: FakeMachine, key: str) -> None:
    values = json.loads(json.dumps(planned(digits, {"macs": 2e6}).to_dict()))
    del values[key]
    with pytest.raises(UserError, match=rf"^run\.json: .*{key}") as caught:
        Frozen.from_json(values, "run.json")
    assert "\n" not in str(caught.value)


def stopwatch(seconds_per_mac: float) -> Callable[..., list[Latency]]:
    def measure(networks: Sequence[Network], **_: object) -> list[Latency]:
        return [
            Latency(seconds_per_mac * cost(n.architecture).macs, 0.0, 1.0, n=11, device="cpu", threads=1)
            for n in networks
        ]

    return measure


PLACES = ("triscale.fitting.candidates", "triscale.training.budgets", "triscale.fitting.carrying")


def test_a_latency_budget_is_solved_for_and_shown_beside_what_was_achieved(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 1e11)
    for place in PLACES:
        monkeypatch.setattr(sys.modules[place], "measure_latency", stopwatch(1e-9))
    fitted = fit(digits, out=tmp_path / "run", latency=1e-3, macs=5e6, epochs=1, baseline="resnet18")
    assert 0.9e6 < fitted.plan.scaled.cost.macs <= 1e6
    entry = fitted.run.settings()["result"]["budget"]["latency"]
    assert entry["limit"] == 1e-3
    assert 0.9 < entry["used"] <= 1
    assert fitted.run.settings()["plan"]["candidates"][0]["latency"]["n"] == 11


def test_a_candidate_that_is_over_the_latency_beside_the_others_is_made_smaller(
    digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch, 1e11)
    alone, together = stopwatch(1e-9), stopwatch(1.5e-9)

    def measure(networks: Sequence[Network], **asked: object) -> list[Latency]:
        return alone(networks) if len(networks) == 1 else together(networks)

    for place in PLACES[:2]:
        monkeypatch.setattr(sys.modules[place], "measure_latency", measure)
    plan = planned(digits, {"latency": 1e-3}, baseline=["resnet18", "mobilenet_v2"])
    for candidate in plan.candidates:
        assert candidate.refused is None
        assert candidate.latency is not None
        assert 0.7e-3 < candidate.latency.median <= 1e-3
        assert candidate.macs * 1.5e-9 <= 1e-3


def test_measured_budgets_hold_on_this_machine(digits: Path, tmp_path: Path) -> None:
    fitted = fit(digits, out=tmp_path / "run", memory=3e6, latency=1.0, epochs=1, baseline="mobilenet_v2")
    assert 0.5 * 3e6 < fitted.achieved["memory"] <= 3e6
    assert fitted.achieved["latency"] <= 1.0


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"time": 0}, "--time"),
        ({"baseline": ["resnet18", "resnet18"]}, "twice"),
        ({"baseline": []}, "baseline"),
        ({"baseline": ["resnet18", "resnet19"]}, "resnet19"),
    ],
)
def test_a_wrong_wish_is_named(asked: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Asked({"macs": 1e6}, **asked).wish()  # type: ignore[arg-type]


def test_the_frozen_plan_is_what_was_carried_out(digits: Path, tmp_path: Path) -> None:
    class Watch(Listener):
        plan: Plan | None = None

        def planned(self, plan: Plan, run: object) -> None:
            self.plan = plan

    watch = Watch()
    fitted = fit(digits, out=tmp_path / "run", macs=1e6, time=300, epochs=3, baseline="resnet18", listener=watch)
    frozen = fitted.run.settings()["plan"]
    assert watch.plan is not None
    assert frozen["steps"] == watch.plan.steps
    assert frozen["recipe"]["epochs"] == watch.plan.recipe.epochs
    assert frozen["time"] == 300
    assert frozen["why"]
    assert fitted.steps <= frozen["steps"]
    assert list(fitted.run.metrics())[-1]["step"] == fitted.steps


def test_a_latency_is_planned_and_achieved_on_the_engine_that_was_named(digits: Path, tmp_path: Path) -> None:
    fitted = fit(digits, out=tmp_path / "run", latency=2e-3, engine="onnxruntime", epochs=1, baseline="resnet18")
    taken = fitted.plan.candidates[0]
    assert taken["latency"]["engine"] == fitted.latency.engine == "onnxruntime"
    assert fitted.achieved["latency"] == fitted.latency.median
    page = fitted.run.report.read_text()
    assert "by ONNX Runtime in fp32" in page
    planned = format_seconds(taken["latency"]["median"])
    assert f"<td>latency</td><td>2 ms</td><td>{planned}</td><td>{format_seconds(fitted.latency.median)}</td>" in page


@pytest.mark.parametrize(("engine", "words"), [("tflite", "no such engine"), ("compiled", "takes minutes")])
def test_an_engine_that_cannot_be_planned_with_is_refused_before_anything_is_read(engine: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Asked({"latency": 1e-3}, engine=engine).wish()
