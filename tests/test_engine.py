"""A training that was stopped, killed or torn down anywhere ends in the same bytes as one that was not."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CPU, LOOK, TINY, Seen, some_digits

from triscale.data import Augment, Prepared, prepare
from triscale.errors import TriscaleError
from triscale.models import Model
from triscale.models.model import new
from triscale.training import (
    ALONE,
    CLOCK,
    DivergedError,
    EpochMetrics,
    InMemory,
    Keeper,
    Recipe,
    Step,
    StoppedError,
    Validation,
    Watch,
    engine,
    train,
)
from triscale.training.checkpoints import Snapshot, read_snapshot, to_bytes
from triscale.training.recipe import SGD, AdamW, Exponential, RMSProp
from triscale.training.session import NotFiniteError, Session

NOISY = replace(TINY, head=replace(TINY.head, dropout=0.3), stochastic_depth=0.3)
CLASSES = ("0", "1", "2", "3")
OPTIMIZERS = (AdamW(), SGD(), SGD(momentum=0.0), RMSProp())
RECIPE = Recipe(epochs=3, batch=10, average_share=0.3)
STEPS = 12


@pytest.fixture(scope="module")
def images() -> Prepared:
    return prepare(some_digits(40), LOOK)


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


def judge(model: Model) -> Validation:
    """Of the model itself, so that what is kept by it is kept by its weights."""
    held_out = some_digits(64).select(torch.arange(40, 64).numpy())
    seen = prepare(held_out, LOOK).cache
    assert seen is not None
    with torch.inference_mode():
        logits = model(LOOK.normalise(torch.from_numpy(seen).permute(0, 3, 1, 2)))
    losses = F.cross_entropy(logits, torch.from_numpy(held_out.labels), reduction="none")
    return Validation(0.5, float(losses.mean()), float(losses.std()) / 24**0.5)


@dataclass
class Generations:
    """Keeps every snapshot as bytes, so that a training may go on from any; `due` after every step."""

    contents: list[bytes] = field(default_factory=list)

    def due(self, *, whole: bool) -> bool:
        return True

    def save(self, snapshot: Snapshot) -> None:
        self.contents.append(to_bytes(snapshot))

    def newest(self) -> Snapshot | None:
        return read_snapshot(self.contents[-1]) if self.contents else None


class StopAt(Seen):
    """Asks to stop after so many steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.at, self.done = step, 0

    def step(self, step: Step) -> None:
        self.done = step.step

    def epoch(self, rows: Sequence[object], average: Model) -> None:
        pass

    def stopping(self) -> bool:
        return self.done >= self.at


def bits(model: Model) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@dataclass
class Ended:
    result: dict[str, bytes]
    trained: dict[str, bytes]
    rows: list[dict[str, object]]


def carried(images: Prepared, recipe: Recipe, keeper: Keeper | None = None, watch: Watch | None = None) -> Ended:
    """A training to its end, of whatever model: what the keeper has decides. The generator is somebody else's."""
    torch.manual_seed(int(torch.randint(0, 1000, (1,))))
    model, keeper = new(NOISY, CLASSES, LOOK, seed=1), keeper or InMemory()
    result = train(model, images, recipe, CPU, seed=4, validate=judge, keeper=keeper, watch=watch)
    kept = keeper.newest()
    assert kept is not None
    rows = [{key: value for key, value in row.items() if key not in CLOCK} for row in kept.values["rows"]]
    return Ended(bits(result), bits(model), rows)


@pytest.mark.parametrize(("optimizer", "patience"), list(zip(OPTIMIZERS, (None, 1, None, 1), strict=True)), ids=repr)
def test_from_the_snapshot_of_every_step_it_ends_in_the_same_bytes(
    images: Prepared, optimizer: AdamW | SGD | RMSProp, patience: int | None
) -> None:
    augment = Augment(shift=0.1, flip=True, mixup=0.2)
    recipe = replace(RECIPE, optimizer=optimizer, patience=patience, augment=augment, epochs=2, batch=13)
    keeper = Generations()
    whole = carried(images, recipe, keeper)
    assert len(keeper.contents) > 6
    for content in keeper.contents:
        assert carried(images, recipe, Generations([content])) == whole


def test_the_epoch_that_was_kept_comes_back_with_the_snapshot(images: Prepared) -> None:
    recipe = replace(RECIPE, epochs=4, patience=3)
    losses = (2.0, 1.0, 3.0, 4.0)

    def kept(keeper: Keeper) -> dict[str, bytes]:
        before = keeper.newest()
        left = iter(losses[0 if before is None else before.values["epoch"] :])
        model = new(NOISY, CLASSES, LOOK, seed=1)
        return bits(
            train(model, images, recipe, CPU, seed=4, validate=lambda _: Validation(0.5, next(left)), keeper=keeper)
        )

    keeper = Generations()
    whole = kept(keeper)
    for content in keeper.contents[1::4]:
        assert kept(Generations([content])) == whole


recipes = st.builds(
    lambda optimizer, patience, frozen, rate, clip, progressive: replace(
        RECIPE,
        optimizer=optimizer,
        patience=patience,
        frozen_norm=frozen,
        rate=rate,
        clip=clip,
        progressive=progressive,
    ),
    st.sampled_from(OPTIMIZERS),
    st.sampled_from((None, 1, 2)),
    st.booleans(),
    st.sampled_from((RECIPE.rate, Exponential(peak=1e-3, per=None, epochs=10, warmup=2))),
    st.sampled_from((None, 1.0)),
    st.sampled_from((1.0, 0.5)),
)


@settings(max_examples=6)
@given(recipes, st.lists(st.integers(1, STEPS), min_size=1, max_size=3, unique=True).map(sorted))
def test_a_training_that_is_stopped_after_any_steps_goes_on_to_the_same_bytes(
    images: Prepared, recipe: Recipe, stops: list[int]
) -> None:
    whole, keeper = carried(images, recipe), InMemory()
    for stop in stops:
        with suppress(StoppedError):  # or it is over before, by patience
            assert carried(images, recipe, keeper, StopAt(stop)) == whole
    assert carried(images, recipe, keeper) == whole


def test_a_training_that_is_over_is_not_trained_further(images: Prepared) -> None:
    keeper = InMemory()
    whole, seen = carried(images, RECIPE, keeper), Seen()
    assert carried(images, RECIPE, keeper, seen) == whole
    assert seen.rows == []


def test_what_a_stopped_training_had_seen_is_in_the_metrics_of_the_whole(images: Prepared) -> None:
    keeper, seen = InMemory(), Seen()
    with pytest.raises(StoppedError, match="stopped after step 6 of 12"):
        carried(images, RECIPE, keeper, StopAt(6))
    kept = keeper.newest()
    assert kept is not None
    assert (kept.values["epoch"], kept.values["batch"], len(kept.values["losses"])) == (1, 2, 2)
    seen.rows = [EpochMetrics(**row) for row in kept.values["rows"]]
    carried(images, RECIPE, keeper, seen)
    assert [row.epoch for row in seen.rows] == [1, 2, 3]


def test_a_snapshot_is_plain_values_that_json_holds(images: Prepared) -> None:
    keeper = Generations()
    carried(images, replace(RECIPE, patience=1), keeper)
    for content in keeper.contents:
        values = dict(read_snapshot(content).values)
        assert json.loads(json.dumps(values)) == values


class Poison:
    """Makes losses of chosen steps NaN, each so many times."""

    def __init__(self, patch: pytest.MonkeyPatch, times: dict[int, int]) -> None:
        self.times, self.rates, real = dict(times), [], Session._loss

        def loss(session: Session, *rest: torch.Tensor) -> torch.Tensor:
            step = session.schedule.done
            self.rates.append((step, session.optimizer.param_groups[0]["lr"]))
            found = real(session, *rest)
            if self.times.get(step, 0) > 0:
                self.times[step] -= 1
                return found * float("nan")
            return found

        patch.setattr(Session, "_loss", loss)


def test_a_loss_that_is_not_finite_goes_back_to_the_last_checkpoint_with_half_the_rate_and_then_ends_well(
    images: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, seen, keeper = Poison(monkeypatch, {6: 1}), Seen(), InMemory()
    ended = carried(images, RECIPE, keeper, seen)
    assert [row["step"] for row in ended.rows] == [4, 8, 12]
    assert len(seen.notes) == 1
    assert "the loss became nan in step 7 (epoch 2)" in seen.notes[0]
    assert "back to step 4, on with 0.5 of the rate" in seen.notes[0]
    first, second = ([rate for step, rate in poison.rates if step == at] for at in (5, 6))
    assert first[1] == first[0] / 2
    assert second[1] == second[0] / 2
    assert all(
        torch.isfinite(torch.frombuffer(bytearray(v), dtype=torch.float32)).all() for v in ended.result.values() if v
    )


def test_a_loss_that_stays_not_finite_ends_after_three_ways_back_and_says_what_was_seen(
    images: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, keeper = Seen(), InMemory()
    poison = Poison(monkeypatch, {9: 99})
    with pytest.raises(TriscaleError) as caught:
        carried(images, RECIPE, keeper, seen)
    assert not isinstance(caught.value, NotFiniteError | StoppedError)
    told = str(caught.value)
    assert "\n" not in told
    assert told.count("the loss became nan in step 10 (epoch 3)") == 4
    assert "went back 3 times" in told
    assert "a recipe with a lower rate" in told
    assert isinstance(caught.value, DivergedError), "going on would end in the same way"
    assert [note.split("on with ")[1] for note in seen.notes] == [
        f"{share} of the rate" for share in (0.5, 0.25, 0.125)
    ]
    rates = [rate for step, rate in poison.rates if step == 9]
    assert rates == pytest.approx([rates[0] * 0.5**k for k in range(4)])
    kept = keeper.newest()
    assert kept is not None
    assert kept.values["schedule"]["done"] == 8, "the last good checkpoint is kept"


def test_a_gradient_that_is_not_finite_changes_no_weight(images: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session.start(new(TINY, CLASSES, LOOK), images, RECIPE, CPU, 0, ALONE, None)
    batch = next(iter(session._batches(0, start=0, all_of_it=True)))
    before = {name: value.clone() for name, value in session.model.named_parameters()}
    real = Session._loss

    def steep(one: Session, *rest: torch.Tensor) -> torch.Tensor:
        return real(one, *rest) + (one.model.head.classifier.weight.sum() * 0).sqrt()  # its slope is infinite at 0

    monkeypatch.setattr(Session, "_loss", steep)
    with pytest.raises(NotFiniteError, match="gradient's norm became"):
        session.step(batch)
    assert all(torch.equal(value, before[name]) for name, value in session.model.named_parameters())
    assert session.schedule.done == 0


@settings(max_examples=4)
@given(st.integers(0, STEPS - 1), st.integers(1, STEPS))
def test_a_training_that_went_back_can_be_stopped_and_goes_on_to_the_same_bytes(
    images: Prepared, bad: int, stop: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        Poison(patch, {bad: 1})
        whole = carried(images, RECIPE, Generations())
    keeper = Generations()
    with pytest.MonkeyPatch.context() as patch:
        Poison(patch, {bad: 1})
        with pytest.raises(StoppedError):
            carried(images, RECIPE, keeper, StopAt(stop))
        assert carried(images, RECIPE, keeper) == whole


def test_a_rate_that_explodes_ends_in_one_line_with_the_last_good_weights_kept(images: Prepared) -> None:
    keeper = InMemory()
    with pytest.raises(TriscaleError, match="went back 3 times"):
        carried(images, replace(RECIPE, rate=Exponential(peak=1e30, per=None, warmup=0), clip=None), keeper)
    kept = keeper.newest()
    assert kept is not None
    assert all(value.isfinite().all() for name, value in kept.tensors.items() if name.startswith("model."))


def test_a_deterministic_machine_asks_for_it_only_while_it_trains(images: Prepared) -> None:
    class Look(Watch):
        seen: list[tuple[bool, bool]] = []  # noqa: RUF012

        def step(self, step: Step) -> None:
            filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
            self.seen.append((torch.are_deterministic_algorithms_enabled(), filled))

    threads, state, look = torch.get_num_threads(), torch.get_rng_state(), Look()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    for machine, poisoned in ((replace(CPU, deterministic=True), False), (replace(CPU, deterministic=True), True)):
        with pytest.MonkeyPatch.context() as patch:
            Poison(patch, {2: 99 if poisoned else 0})
            model = new(TINY, CLASSES, LOOK)
            try:
                train(model, images, RECIPE, machine, seed=0, validate=judge, watch=look)
            except TriscaleError:
                assert poisoned
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory == filled  # type: ignore[attr-defined]
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.get_rng_state(), state)
    assert set(look.seen) == {(True, False)}


def test_every_epoch_says_how_long_steps_waited_and_how_much_memory_was_taken(images: Prepared) -> None:
    seen = Seen()
    train(new(TINY, CLASSES, LOOK), images, RECIPE, CPU, seed=0, validate=judge, watch=seen)
    for row in seen.rows:
        assert 0 <= row.waiting <= row.seconds
        assert row.memory > 10_000_000
        assert row.images_per_second > 0
        assert set(CLOCK) < set(asdict(row))


def test_the_peak_of_memory_is_the_processs_own_where_the_system_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2**26 < engine.peak_memory(torch.device("cpu")) < 2**40
    (tmp_path / "status").write_bytes(b"Name:\t\xff\nVmPeak:\t  900 kB\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\n")
    monkeypatch.setattr(engine, "STATUS", tmp_path / "status")
    assert engine.peak_memory(torch.device("cpu")) == 300 * 1024


@pytest.mark.parametrize("status", [None, "Name:\tpython\n"])
def test_elsewhere_it_is_what_getrusage_says(
    status: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(engine, "STATUS", tmp_path / "status")
    scale = 1 if sys.platform == "darwin" else 1024
    assert engine.peak_memory(torch.device("cpu")) == scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
