"""In which precision a trained model answers: half only where its own validation images show that it costs nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st

from triscale.cli.fit import values as fit_values
from triscale.cli.train import values as train_values
from triscale.data import Prepared, prepare, read
from triscale.engines import running
from triscale.engines.native import available, open_run
from triscale.engines.native.library import Availability
from triscale.errors import TriscaleError, UserError
from triscale.evaluating import evaluate
from triscale.fitting import Fitted, Listener, fit, precision
from triscale.fitting.carrying import How
from triscale.fitting.precision import Half, fewest, judge_half
from triscale.fitting.resume import resume
from triscale.models import Model, answering, learned, load, predict
from triscale.nn.network import Network
from triscale.reporting.precision import precision_words
from triscale.serving import opened
from triscale.serving.replicas import Cluster, model_file
from triscale.stats import PairedDifference, Proportion

HALF = available().half or "bf16"
needs_half = pytest.mark.skipif(available().half is None, reason="the processor multiplies no half precision")


@pytest.fixture(scope="module")
def quick(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A run whose gate is so wide that six validation images pass it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("triscale.fitting.carrying.judge_half", widely)
        return fit(digits, out=tmp_path_factory.mktemp("runs") / "quick", macs=400_000, epochs=5, seed=3)


def widely(model: Model, held_out: Prepared, *, looked_at: int, seed: int) -> Half:
    """Judged as always, on the same few images again and again, where everything may be lost."""
    many = held_out.select(np.arange(10 * fewest()) % len(held_out.images))
    return replace(judge_half(model, many, looked_at=10**9, seed=seed), most_lost=1.0)


def held_out(fitted: Fitted, digits: Path, times: int) -> Prepared:
    """All digits, each so many times."""
    split = read(digits, seed=3).train
    return prepare(split.select(np.arange(times * len(split)) % len(split)), fitted.model.preprocess)


def test_of_few_images_nothing_is_concluded(fitted: Fitted) -> None:
    said = fitted.run.settings()["result"]["half"]
    assert (said["holds"], fitted.half.holds, fitted.model.precision) == (False, False, "fp32")
    assert "cannot tell" in said["why"] or (available().half is None and "has none on the processor" in said["why"])
    assert Half.from_json(said) == fitted.half
    with safetensors.safe_open(fitted.run.model, "pt") as content:
        assert "precision" not in content.metadata()
    assert answering(load(fitted.run.path)) == "fp32"


def test_as_many_images_as_are_asked_for_can_tell_and_one_less_cannot() -> None:
    n = fewest()
    assert Half(HALF, lost=PairedDifference(0, 0, n), same=Proportion(n, n)).holds
    assert not Half(HALF, lost=PairedDifference(0, 0, n - 1), same=Proportion(n - 1, n - 1)).holds


@given(st.integers(1, 10_000), st.integers(0, 40), st.integers(0, 40))
def test_it_holds_only_where_the_whole_interval_is_below_what_may_be_lost(n: int, first: int, second: int) -> None:
    first, second = min(first, n), min(second, n - min(first, n))
    found = Half(HALF, lost=PairedDifference(first, second, n), same=Proportion(n - first - second, n))
    assert found.holds == (PairedDifference(first, second, n).interval()[1] <= 0.005)
    assert Half.from_json(found.to_json()) == found
    words = precision_words(found.to_json())
    assert words is not None
    assert words.startswith(f"Answers are in {HALF}" if found.holds else "Answers are in fp32")


@needs_half
def test_what_half_precision_costs_is_counted_image_by_image(fitted: Fitted, digits: Path) -> None:
    images = held_out(fitted, digits, times=10)
    found = judge_half(fitted.model, images, looked_at=10**6, seed=0)
    assert found.lost is not None
    assert found.same is not None
    x = torch.stack([fitted.model.preprocess(images.images.pixels(i)) for i in range(len(images.images))])
    with running(fitted.model) as exact, running(fitted.model, precision=HALF) as quick:
        a, b = exact(x).argmax(1).numpy(), quick(x).argmax(1).numpy()
    y = images.images.labels
    assert (found.same.count, found.same.n) == ((a == b).sum(), len(y))
    assert (found.lost.first, found.lost.second) == (((a == y) & (b != y)).sum(), ((a != y) & (b == y)).sum())


@needs_half
def test_judging_takes_a_hundredth_of_what_training_looked_at(fitted: Fitted, digits: Path) -> None:
    images = held_out(fitted, digits, times=10)
    found = judge_half(fitted.model, images, looked_at=100 * fewest(), seed=0)
    assert found.lost is not None
    assert found.lost.n == fewest()
    assert judge_half(fitted.model, images, looked_at=100 * fewest() - 1, seed=0).lost is None


@needs_half
def test_a_model_that_it_harms_answers_in_fp32(
    fitted: Fitted, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def harmed(network: Network, **how: Any) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
        with running(network, **how) as logits:
            yield (lambda x: -logits(x)) if how.get("precision") == HALF else logits

    monkeypatch.setattr(precision, "running", harmed)
    found = judge_half(fitted.model, held_out(fitted, digits, times=10), looked_at=10**6, seed=0)
    assert (found.lost is not None, found.holds) == (True, False)
    assert f"{HALF} might cost more than 0.5 points" in precision_words(found.to_json())


@needs_half
def test_where_it_holds_predict_serve_and_open_run_answer_in_it(
    quick: Fitted, digits: Path, triscale: Callable[..., tuple[int, str, str]]
) -> None:
    run = quick.run.path
    assert (quick.half.holds, load(run).precision) == (True, HALF)
    plain, fast, exact = (list(predict(run, digits, precision=one)) for one in (None, HALF, "fp32"))
    assert plain == fast
    assert plain != exact
    assert f'"precision": "{HALF}"' in triscale("predict", run, digits, "--json")[1]
    assert '"precision": "fp32"' in triscale("predict", run, digits, "--precision", "fp32", "--json")[1]
    with opened(run) as served, opened(run, precision="fp32") as other, open_run(run) as engine:
        assert (served.precision, other.precision, engine.precision) == (HALF, "fp32", HALF)
        x = load(run).preprocess(next(digits.rglob("*.png")))[None]
        assert np.array_equal(engine(x.numpy()), served.logits(x).numpy())
    for text in (quick.run.report.read_text(), quick.run.card.read_text()):
        assert f"Answers are in {HALF}" in text


@needs_half
def test_what_is_measured_is_measured_in_fp32(quick: Fitted) -> None:
    again = evaluate(quick.run.path)
    assert again.measures.top1.value == quick.run.settings()["result"]["test_accuracy"]
    assert np.array_equal(again.table.predicted, quick.test.predicted)
    assert quick.latency.precision == "fp32"
    with running(quick.model) as exact:
        x = torch.stack([quick.model.preprocess(Path(quick.run.data_path()) / name) for name in again.table.names])
        confidence = exact(x).softmax(1).max(1).values.numpy()
    assert np.abs(again.table.confidence - confidence).max() < 1e-5


@needs_half
def test_a_finished_run_says_it_again(quick: Fitted) -> None:
    again = resume(quick.run.path, How(Listener()))
    assert again is not None
    assert (again.half, again.model.precision) == (quick.half, HALF)
    assert fit_values(again)["half"] == fit_values(quick)["half"] == train_values(again)["half"]


@needs_half
def test_a_processor_without_it_answers_in_fp32(quick: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    avx2 = Availability("avx2", ("fp32",))
    monkeypatch.setattr("triscale.engines.native.library.available", lambda: avx2)
    monkeypatch.setattr("triscale.models.predicting.available", lambda: avx2)
    monkeypatch.setattr("triscale.engines.native.opening.available", lambda: avx2)
    assert answering(learned(quick.run.path)) == "fp32"
    with open_run(quick.run.path) as engine:
        assert engine.precision == "fp32"
    with opened(quick.run.path) as served:
        assert served.precision == "fp32"
    with (
        pytest.raises(UserError, match=rf"--precision {HALF}: .*avx2.*; take fp32"),
        opened(quick.run.path, precision=HALF),
    ):
        pass


@needs_half
def test_what_goes_to_replicas_says_in_what_they_answer(quick: Fitted, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(model_file(str(quick.run.path), None))
    assert load(tmp_path / "m.safetensors").precision == HALF
    with pytest.raises(UserError, match="--precision int4: is none of fp32, bf16"):
        Cluster(precision="int4")


def test_a_precision_that_cannot_be_named_is_refused_where_pytorch_answers_too(
    fitted: Fitted, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triscale.engines.logits.available", lambda: Availability(None))
    with pytest.raises(UserError, match="--precision int4: is none of fp32, bf16"):
        predict(fitted.run.path, digits, precision="int4")


@needs_half
def test_an_engine_that_fails_while_it_is_judged_costs_no_run(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise TriscaleError("the engine\nis ill")

    monkeypatch.setattr("triscale.fitting.carrying.judge_half", widely)
    monkeypatch.setattr(precision, "running", failing)
    found = fit(digits, out=tmp_path / "run", macs=400_000, epochs=1, seed=3)
    assert (found.half.why, found.model.precision) == ("the engine is ill", "fp32")
    assert found.run.card.is_file()


@needs_half
def test_what_starts_from_a_model_that_answers_in_half_precision_is_judged_anew(
    quick: Fitted, digits: Path, tmp_path: Path
) -> None:
    tuned = fit(digits, out=tmp_path / "tuned", weights=quick.run.path, epochs=1, scratch=False)
    assert (tuned.half.holds, load(tuned.run.path).precision) == (False, "fp32")


def test_features_are_of_fp32_and_say_so(
    fitted: Fitted, digits: Path, tmp_path: Path, triscale: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("--features", tmp_path / "f.npy", "--precision", "bf16")
    code, _, err = triscale("predict", fitted.run.path, digits, *words)
    assert (code, "--precision bf16: says how classes are computed" in err) == (2, True)


def test_a_precision_that_nobody_knows_is_refused_in_one_line(fitted: Fitted, tmp_path: Path) -> None:
    file, model = tmp_path / "odd.safetensors", load(fitted.run.path)
    model.precision = "int4"
    model.save(file)
    for open_it in (load, open_run):
        with pytest.raises(UserError, match=r"odd\.safetensors.*precision int4") as caught:
            open_it(file)
        assert "\n" not in str(caught.value)


@needs_half
def test_a_model_judged_in_another_half_precision_answers_in_fp32(
    quick: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, file = "bf16" if HALF == "fp16" else "fp16", tmp_path / "model.safetensors"
    model = load(quick.run.path)
    model.precision = other
    model.save(file)
    assert (load(file).precision, answering(load(file))) == (other, "fp32")
    with open_run(file) as engine:
        assert engine.precision == "fp32"
