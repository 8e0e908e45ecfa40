"""A trial is a pure function of its values, the ledger keeps what came out, and nothing is trained twice."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from small_trials import LARGER, SHORT, SMALL, carry_out, entry, found, trial, unheard
from specs import architectures

from triscale.arch import Architecture
from triscale.data import Augment, Data, Images, fitting_preprocess, prepare, read
from triscale.data.pictures import Memory
from triscale.errors import TriscaleError, UserError
from triscale.evaluating import predict_images
from triscale.models.model import new
from triscale.training import RECIPES, InMemory, Recipe, Validation, find_recipe, train
from triscale.trials import (
    Done,
    Entry,
    How,
    Ledger,
    Outcome,
    Pictures,
    Probe,
    Progress,
    Trial,
    as_machine,
    pack,
    passes,
    run_trial,
    run_trials,
    stratified,
    unpack,
)
from triscale.trials.shipping import shipped

MADE = Outcome(0.5, 0.7, pack(np.array([True, False, True])), (1.5, 0.75), 1000, 2.0, 0.5, "here:1", 10**8)

Opened = Callable[..., Ledger]


@pytest.fixture(scope="module")
def data(digits: Path) -> Data:
    return read(digits)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens the ledger there, and closes all of them at the end."""
    ledgers: list[Ledger] = []

    def opened(place: Path = tmp_path / "ledger.db", name: str = "study") -> Ledger:
        ledgers.append(Ledger(place, name))
        return ledgers[-1]

    yield opened
    for ledger in ledgers:
        ledger.close()


class Fake:
    """Carries out nothing: whatever is submitted ends as it is told, all of it at the next wait."""

    def __init__(self, slots: int = 2, ends: Callable[[int, Trial], Done] | None = None) -> None:
        self.slots = slots
        self.ends = ends or (lambda ticket, trial: Done(ticket, outcome=MADE))
        self.submitted: list[Trial] = []
        self.running: list[Done] = []

    def submit(self, ticket: int, trial: Trial) -> None:
        assert len(self.running) < self.slots, "no more at once than there are slots"
        self.submitted.append(trial)
        self.running.append(self.ends(ticket, trial))

    def wait(self, seconds: float) -> list[Done]:
        done, self.running = self.running, []
        return done

    def progress(self) -> dict[int, float]:
        return {done.ticket: 0.5 for done in self.running}

    def measure(self, probes: Sequence[Probe]) -> list[float]:
        return [1.0] * len(probes)

    def close(self) -> None:
        pass


def a_trial(network: Architecture = SMALL, recipe: Recipe = SHORT) -> Trial:
    return Trial(network, recipe, "0" * 64, 30, 0, How(), version="1")


# A trial's key


trials = st.builds(
    Trial,
    architectures(),
    st.sampled_from([find_recipe(name).recipe for name in RECIPES]),
    st.text(),
    st.integers(1, 10**6),
    st.integers(0, 2**31),
    st.builds(How, st.sampled_from(("cpu", "cuda:1")), st.sampled_from(("fp32", "bf16")), st.integers(1, 64)),
    st.text(),
)


@given(trials)
@settings(max_examples=30)
def test_a_trial_read_back_from_json_is_the_same_and_has_the_same_key(one: Trial) -> None:
    back = Trial.from_json(json.loads(json.dumps(one.to_json())), "here")
    assert back == one
    assert back.key == one.key


@given(trials, st.text(max_size=10).filter(str.isprintable))
@settings(max_examples=30)
def test_equal_trials_have_equal_keys_and_the_networks_name_does_not_matter(one: Trial, name: str) -> None:
    assert replace(one, architecture=replace(one.architecture)).key == one.key
    with suppress(UserError):  # not every text is a name
        assert replace(one, architecture=replace(one.architecture, name=name)).key == one.key


def test_a_number_has_one_key_however_it_is_written() -> None:
    whole = a_trial(replace(SMALL, stochastic_depth=0), replace(SHORT, average_share=1))
    real = a_trial(replace(SMALL, stochastic_depth=0.0), replace(SHORT, average_share=1.0))
    assert whole == real
    assert whole.key == real.key


CHANGES: dict[str, Trial] = {
    "resolution": a_trial(replace(SMALL, resolution=(8, 9))),
    "input channels": a_trial(replace(SMALL, channels=3)),
    "channels": a_trial(replace(SMALL, stages=(replace(SMALL.stages[0], channels=9), *SMALL.stages[1:]))),
    "repeats": a_trial(replace(SMALL, stages=(replace(SMALL.stages[0], repeats=2), *SMALL.stages[1:]))),
    "what deepens": a_trial(replace(SMALL, stages=(replace(SMALL.stages[0], deepens=False), *SMALL.stages[1:]))),
    "stages": a_trial(replace(SMALL, stages=SMALL.stages[:1])),
    "stem": a_trial(replace(SMALL, stem=replace(SMALL.stem, channels=9))),
    "classes": a_trial(replace(SMALL, head=replace(SMALL.head, classes=4))),
    "dropout": a_trial(replace(SMALL, head=replace(SMALL.head, dropout=0.1))),
    "padding": a_trial(replace(SMALL, padding="symmetric")),
    "normalisation": a_trial(replace(SMALL, norm=replace(SMALL.norm, momentum=0.9))),
    "rounding": a_trial(replace(SMALL, rounding=replace(SMALL.rounding, divisor=4))),
    "stochastic depth": a_trial(replace(SMALL, stochastic_depth=0.1)),
    "epochs": a_trial(recipe=replace(SHORT, epochs=2)),
    "batch": a_trial(recipe=replace(SHORT, batch=17)),
    "rate": a_trial(recipe=replace(SHORT, rate=replace(SHORT.rate, peak=1e-3))),
    "augmenting": a_trial(recipe=replace(SHORT, augment=Augment(shift=0.1, flip=True))),
    "data": replace(a_trial(), data="1" * 64),
    "images": replace(a_trial(), images=31),
    "seed": replace(a_trial(), seed=1),
    "device": replace(a_trial(), how=How("cuda")),
    "precision": replace(a_trial(), how=How(precision="bf16")),
    "threads": replace(a_trial(), how=How(threads=2)),
    "kernels": replace(a_trial(), how=How(kernels=True)),
    "version": replace(a_trial(), version="2"),
}


def test_everything_but_the_name_is_part_of_the_key() -> None:
    keys = {"nothing": a_trial().key, **{what: changed.key for what, changed in CHANGES.items()}}
    assert len(set(keys.values())) == len(keys), keys
    assert all(len(key) == 64 for key in keys.values())


@pytest.mark.parametrize("values", [{}, {**a_trial().to_json(), "recipe": 7}, {**a_trial().to_json(), "how": {"x": 1}}])
def test_what_is_no_trial_is_refused_with_its_source(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^ledger\.db: "):
        Trial.from_json(values, "ledger.db")


def test_an_outcome_read_back_from_json_is_the_same() -> None:
    assert Outcome.from_json(json.loads(json.dumps(MADE.to_json())), "here") == MADE
    with pytest.raises(UserError, match="here: outcome"):
        Outcome.from_json({"selection": 1.0}, "here")


# Which test images were named right


@given(arrays(np.bool_, st.integers(0, 70)))
def test_what_is_packed_comes_back(right: np.ndarray) -> None:
    assert unpack(pack(right)).tolist() == right.tolist()


@pytest.mark.parametrize("text", ["", "x", "3", "-1:AA==", "x:AA==", "3:A", "3:AA==AA==", "9:AA==", "3:AAA=", "3:ä"])
def test_a_text_that_pack_did_not_make_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"named right|another length"):
        unpack(text)


# A part of the images


def some_images(labels: Sequence[int]) -> Images:
    n = len(labels)
    pixels = np.zeros((n, 1, 1, 1), np.uint8)
    names = tuple(f"{i:04}" for i in range(n))
    return Images(np.array(labels, np.int64), names, tuple(name.encode() for name in names), Memory(pixels))


labelled = st.lists(st.integers(0, 4), min_size=1, max_size=120)


@given(labelled, st.integers(0, 130))
def test_a_part_has_of_each_class_in_proportion_and_keeps_the_order(labels: list[int], count: int) -> None:
    images = some_images(labels)
    part = stratified(images, count)
    assert len(part) == min(count, len(images))
    assert list(part.names) == sorted(part.names), "in their order"
    assert len(set(part.names)) == len(part), "none twice"
    share = len(part) / len(images)
    for label in set(labels):
        assert abs((part.labels == label).sum() - share * labels.count(label)) <= 1


@given(labelled, st.data())
def test_the_larger_part_holds_the_smaller_and_each_is_the_same_every_time(
    labels: list[int], draw: st.DataObject
) -> None:
    images = some_images(labels)
    large = draw.draw(st.integers(0, len(labels)))
    small = draw.draw(st.integers(0, large))
    assert set(stratified(images, small).names) <= set(stratified(images, large).names)
    torch.manual_seed(small)
    np.random.seed(small)  # nothing that others draw plays a part
    assert stratified(images, small).names == stratified(images, small).names


@given(st.integers(1, 9), st.integers(2, 40), st.integers(1, 200))
def test_passes_are_the_images_that_a_training_sees(epochs: int, batch: int, images: int) -> None:
    steps = max(1, images // batch)
    assert passes(replace(SHORT, epochs=epochs, batch=batch), images) == epochs * steps * min(batch, images)


# Carrying one out


def test_a_trial_gives_the_same_twice_and_whatever_ran_before(data: Data) -> None:
    wanted = trial(data, seed=3)
    alone = run_trial(wanted, Pictures(data))
    pictures = Pictures(data)
    others = (
        trial(data, network=LARGER),
        trial(data, images=20),
        trial(data, network=replace(SMALL, channels=3)),
        trial(data, recipe=replace(SHORT, augment=Augment(crop_scale=(0.5, 1.0)))),
        trial(data, network=LARGER, images=42),
    )
    for one in others:
        torch.manual_seed(1)
        run_trial(one, pictures)
        assert found(run_trial(wanted, pictures)) == found(alone), one
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert found(run_trial(wanted, pictures)) == found(alone)
    assert torch.get_num_threads() == threads, "nothing is left behind"
    assert torch.equal(torch.get_rng_state(), state)


def test_another_seed_gives_another_training(data: Data) -> None:
    pictures = Pictures(data)
    assert run_trial(trial(data, 0), pictures).losses != run_trial(trial(data, 1), pictures).losses


def test_a_trials_answers_are_those_of_a_model_trained_and_evaluated_by_hand(data: Data) -> None:
    wanted = trial(data, seed=2, recipe=replace(SHORT, epochs=4))
    outcome = run_trial(wanted, Pictures(data))

    part = replace(data, train=stratified(data.train, wanted.images))
    look = fitting_preprocess(part, SMALL)
    model = new(SMALL, data.classes, look, seed=2)
    trained = train(
        model,
        prepare(part.train, look),
        wanted.recipe,
        as_machine(wanted.how, model),
        seed=2,
        validate=lambda model: Validation(0.0, 0.0),
        keeper=InMemory(),
    )
    test, selection = (predict_images(trained, prepare(split, look)) for split in (data.test, data.val))
    assert unpack(outcome.test).tolist() == (test.predicted == test.labels).tolist()
    assert outcome.selection == selection.top().value
    assert outcome.loss == pytest.approx(selection.log_loss()[0], abs=1e-6)
    assert len(outcome.losses) == 4


def test_images_that_the_trial_is_not_about_are_refused(data: Data) -> None:
    with pytest.raises(UserError, match="not the images"):
        run_trial(replace(trial(data), data="0" * 64), Pictures(data))


def test_at_most_three_resolutions_are_held_at_once(data: Data) -> None:
    pictures = Pictures(data)
    for side in (8, 9, 10, 11, 12):
        pictures.fitted(trial(data, network=replace(SMALL, resolution=(side, side))))
    assert len(pictures.held) == 3


# The ledger


def test_the_ledger_is_in_wal_mode_where_readers_do_not_stop_the_writer(opened: Opened, tmp_path: Path) -> None:
    ledger = opened()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        file.execute("BEGIN")
        assert file.execute("SELECT count(*) FROM trials").fetchone() == (0,)
        wanted = entry(a_trial())
        ledger.want([wanted])
        number, _ = ledger.start({wanted.trial.key: wanted}) or (-1, None)
        ledger.finish(number, MADE)
        assert file.execute("SELECT count(*) FROM trials").fetchone() == (0,), "it still reads what it began with"
    assert ledger.finished() == {wanted.trial.key: MADE}


def test_finished_trials_outlast_the_driver(opened: Opened) -> None:
    wanted = [entry(replace(a_trial(), seed=seed)) for seed in range(3)]
    outcomes = {one.trial.key: replace(MADE, selection=0.1 + place / 3) for place, one in enumerate(wanted)}
    first = opened()
    first.want(wanted)
    for _ in wanted:
        number, one = first.start({one.trial.key: one for one in wanted}) or pytest.fail("all of them wait")
        first.finish(number, outcomes[one.trial.key])
    assert opened().finished() == outcomes
    rows = opened().rows()
    assert [row["state"] for row in rows] == ["COMPLETE"] * 3
    assert [row["label"] for row in rows] == [one.label for one in wanted]


def test_what_was_left_running_is_closed_and_queued_again(opened: Opened) -> None:
    wanted = [entry(replace(a_trial(), seed=seed)) for seed in range(2)]
    by_key = {one.trial.key: one for one in wanted}
    first = opened()
    first.want(wanted)
    first.start(by_key)
    assert first.counts() == {"COMPLETE": 0, "RUNNING": 1, "WAITING": 1, "FAIL": 0, "PRUNED": 0}

    second = opened()
    assert second.requeue() == 1
    assert second.counts()["RUNNING"] == 0
    done = carry_out(second, Fake(), wanted)
    assert done.keys() == by_key.keys()
    assert second.counts() == {"COMPLETE": 2, "RUNNING": 0, "WAITING": 0, "FAIL": 1, "PRUNED": 0}
    assert second.requeue() == 0


def test_what_waits_already_is_not_queued_twice_and_what_nobody_wants_any_more_is_closed(opened: Opened) -> None:
    dropped, kept = (entry(replace(a_trial(), seed=seed)) for seed in range(2))
    first = opened()
    first.want([dropped, kept])
    first.want([kept])
    assert first.counts()["WAITING"] == 2

    pool = Fake()
    done = carry_out(opened(), pool, [kept])
    assert pool.submitted == [kept.trial]
    assert done.keys() == {kept.trial.key}
    assert opened().counts() == {"COMPLETE": 1, "RUNNING": 0, "WAITING": 0, "FAIL": 1, "PRUNED": 0}


def test_parameters_are_told_as_they_are_whatever_the_seed(opened: Opened, tmp_path: Path) -> None:
    wanted = entry(replace(a_trial(), seed=2**31 - 1))
    carry_out(opened(), Fake(), [wanted])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        told = dict(file.execute("SELECT param_name, param_value FROM trial_params").fetchall())
    assert told == wanted.parameters


@pytest.mark.parametrize("name", ["plain", "with space", "what?", "100%41", "#1", "ü", "a=b&c", "it's"])
def test_the_ledger_lies_where_it_was_put_whatever_the_directory_is_called(
    name: str, tmp_path: Path, opened: Opened
) -> None:
    (tmp_path / name).mkdir()
    place = tmp_path / name / "ledger.db"
    carry_out(opened(place), Fake(), [entry(a_trial())])
    assert len(opened(place).finished()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def no_database(place: Path) -> None:
    place.write_text("these are notes, no database\n" * 40)


def another_database(place: Path) -> None:
    with closing(sqlite3.connect(place)) as file:
        file.execute("CREATE TABLE photos (name TEXT)")
        file.execute("INSERT INTO photos VALUES ('a.jpg')")
        file.commit()


def another_study(place: Path) -> None:
    Ledger(place, "somebody's").close()


def half_a_ledger(place: Path) -> None:
    another_study(place)
    content = place.read_bytes()
    place.write_bytes(content[: len(content) // 2])


def a_later_version(place: Path) -> None:
    Ledger(place, "study").close()
    with closing(sqlite3.connect(place)) as file:
        file.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
        file.commit()


@pytest.mark.parametrize("made", [no_database, another_database, another_study, half_a_ledger, a_later_version])
def test_a_file_that_is_no_ledger_is_named_and_stays_as_it_was(
    made: Callable[[Path], None], tmp_path: Path, opened: Opened
) -> None:
    place = tmp_path / "ledger.db"
    made(place)
    before = place.read_bytes()
    with pytest.raises(UserError, match=r"ledger\.db: not a ledger") as caught:
        opened(place)
    assert "\n" not in str(caught.value)
    assert place.read_bytes() == before


def test_a_directory_in_the_ledgers_place_is_named(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(UserError, match=r"ledger\.db: not a ledger"):
        opened()


def test_a_ledger_whose_first_driver_was_killed_as_it_began_is_gone_on_with(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "ledger.db").touch()
    carry_out(opened(), Fake(), [entry(a_trial())])
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as file:
        for table in ("trial_params", "trial_user_attributes", "trial_system_attributes", "trial_values", "trials"):
            file.execute(f"DELETE FROM {table}")  # made, but no study in them yet
        file.execute("DELETE FROM study_directions")
        file.execute("DELETE FROM studies")
        file.commit()
    assert carry_out(opened(), Fake(), [entry(a_trial())]).keys() == {entry(a_trial()).trial.key}


# Driving


def some_entries(count: int) -> list[Entry]:
    return [entry(replace(a_trial(), seed=seed)) for seed in range(count)]


def test_nothing_is_trained_twice(opened: Opened) -> None:
    wanted = some_entries(5)
    pool = Fake()
    first = carry_out(opened(), pool, wanted)
    assert len(pool.submitted) == 5
    again = Fake()
    assert carry_out(opened(), again, wanted) == first
    assert again.submitted == []
    assert opened().counts()["COMPLETE"] == 5


def test_entries_of_one_trial_under_two_labels_are_trained_once(opened: Opened) -> None:
    one = entry(a_trial())
    other = entry(a_trial(replace(SMALL, name="other")))
    pool = Fake()
    assert carry_out(opened(), pool, [one, other]).keys() == {one.trial.key}
    assert len(pool.submitted) == 1


def test_a_set_that_grows_trains_only_what_is_new(opened: Opened) -> None:
    carry_out(opened(), Fake(), some_entries(3))
    pool = Fake()
    done = carry_out(opened(), pool, some_entries(5))
    assert [one.seed for one in pool.submitted] == [3, 4]
    assert len(done) == 5


def test_the_longest_begin_first_and_only_as_many_as_there_are_slots(opened: Opened) -> None:
    wanted = some_entries(4)
    expected = {one.trial.key: float(one.trial.seed) for one in wanted}
    pool = Fake(slots=3)
    run_trials(opened(), pool, wanted, expected, unheard)
    assert [one.seed for one in pool.submitted] == [3, 2, 1, 0]


def test_progress_rises_to_everything(opened: Opened) -> None:
    told: list[Progress] = []
    wanted = some_entries(4)
    expected = {one.trial.key: 1.0 for one in wanted}
    run_trials(opened(), Fake(slots=1), wanted, expected, told.append)
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert [one.share for one in told] == sorted(one.share for one in told)
    assert told[0].share == 0
    assert told[-1].share == 1
    assert (told[-1].done, told[-1].running, told[-1].wanted) == (4, 0, 4)
    assert told[0].left is None
    assert [one.left for one in told[1:]] == [6.0, 4.0, 2.0, 0.0], "two real seconds for an expected one"


def test_a_trial_whose_worker_dies_is_begun_again_twice(opened: Opened) -> None:
    deaths = iter([True, True, False])

    def ends(ticket: int, trial: Trial) -> Done:
        return Done(ticket, lost="its worker died") if next(deaths) else Done(ticket, outcome=MADE)

    pool = Fake(ends=ends)
    done = carry_out(opened(), pool, some_entries(1))
    assert len(done) == 1
    assert len(pool.submitted) == 3
    assert [row["why"] for row in opened().rows()] == ["its worker died", "its worker died", None]


@pytest.mark.parametrize(("how", "times"), [("lost", 3), ("failed", 1)])
def test_a_trial_that_cannot_be_done_is_named_and_what_is_finished_is_kept(
    how: str, times: int, opened: Opened
) -> None:
    def ends(ticket: int, trial: Trial) -> Done:
        return Done(ticket, **{how: "no luck"}) if trial.seed == 1 else Done(ticket, outcome=MADE)

    pool = Fake(slots=3, ends=ends)
    with pytest.raises(TriscaleError, match="trial small, seed 1: no luck"):
        carry_out(opened(), pool, some_entries(3))
    assert sum(trial.seed == 1 for trial in pool.submitted) == times
    kept = opened().finished()
    assert kept.keys() == {one.trial.key for one in some_entries(3) if one.trial.seed != 1}, "also what ended with it"


# Images that travel


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colours of several sizes and formats in class folders."""
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 256, (20 + i, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.{('png', 'jpg')[i % 2]}")
    return root


def test_images_that_travel_are_the_same_and_need_no_files(mixed: Path, tmp_path: Path) -> None:
    here = read(mixed)
    copy = tmp_path / "copy"
    mixed_copy = {path.relative_to(mixed): path.read_bytes() for path in mixed.rglob("*") if path.is_file()}
    for name, content in mixed_copy.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    sent = shipped(read(copy))
    for name in mixed_copy:
        (copy / name).unlink()
    assert sent.fingerprint == here.fingerprint
    assert sent.train.array() is None
    for split, images in here.splits().items():
        chosen = np.arange(len(images))[::-1]
        theirs, ours = sent.splits()[split].select(chosen), images.select(chosen)
        assert theirs.names == ours.names
        for i in range(len(ours)):
            np.testing.assert_array_equal(theirs.pixels(i), ours.pixels(i))
            box = (1, 2, 17, 18)
            np.testing.assert_array_equal(
                theirs.part(i, lambda size, box=box: box, (8, 8)), ours.part(i, lambda size, box=box: box, (8, 8))
            )


def test_a_trial_on_images_that_travelled_has_the_same_outcome(data: Data) -> None:
    assert found(run_trial(trial(data), Pictures(shipped(data)))) == found(run_trial(trial(data), Pictures(data)))


@pytest.mark.parametrize("change", ["gone", "other"])
def test_a_file_that_changed_since_it_was_read_does_not_travel(change: str, mixed: Path, tmp_path: Path) -> None:
    here = read(mixed)
    some = next(iter(here.train.source.paths))  # type: ignore[attr-defined]
    content = some.read_bytes()
    try:
        some.unlink()
        if change == "other":
            some.write_bytes(content + b"\0")
        with pytest.raises(UserError, match=some.name):
            shipped(here)
    finally:
        some.write_bytes(content)


def test_images_in_memory_travel_as_they_are() -> None:
    images = some_images([0, 1, 0, 1])
    kept = Data(Path("x"), "idx", ("a", "b"), 1, (1, 1), True, images, images, images, "f")
    assert shipped(kept).train is images
