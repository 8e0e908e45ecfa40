"""A run of all stages is a run for every verb: its network's own run, in a folder of it, says what was learned."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from triscale.errors import UserError
from triscale.evaluating import compare, evaluate
from triscale.fitting import Asked, Fitted
from triscale.runs import RunDirectory
from triscale.weights import run_meant


@pytest.fixture
def whole(fitted: Fitted, tmp_path: Path) -> Path:
    """As `fit --search --study` leaves one: the model beside the stages."""
    place = tmp_path / "whole"
    shutil.copytree(fitted.run.path, place / "fit")
    shutil.copy(place / "fit" / "model.safetensors", place)
    (place / "whole.json").write_text("{}")
    return place


def test_the_run_of_its_network_is_meant(whole: Path) -> None:
    for name in (whole, whole / "model.safetensors", str(whole)):
        found = run_meant(name)
        assert found is not None
        assert found.path == whole / "fit"
    assert run_meant(whole / "whole.json") is None


def test_it_is_judged_on_the_images_that_it_held_out(whole: Path, fitted: Fitted) -> None:
    found = evaluate(whole)
    assert (found.which, found.learned) == ("held out", evaluate(fitted.run.path).learned)
    one, other = compare(whole, fitted.run.path).tables
    assert np.array_equal(one.predicted, other.predicted)


def test_what_it_learned_from_is_known_to_who_starts_from_its_weights(whole: Path, fitted: Fitted) -> None:
    found = Asked({}, weights=whole).wish().learned_before
    assert sorted(found.values()) == sorted(Asked({}, weights=fitted.run.path).wish().learned_before.values()) != []


def test_where_one_lies_it_can_be_gone_on_with(whole: Path) -> None:
    with pytest.raises(UserError, match=r"something lies there already; .* go on with the run by --resume"):
        RunDirectory.check_free(whole)


@pytest.mark.parametrize("verb", ["search", "study"])
def test_a_verb_of_one_stage_names_the_command_of_all(
    whole: Path, verb: str, triscale: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = triscale(verb, "--resume", "--out", whole)
    assert code == 2
    assert f"a run of all stages; go on with: triscale fit --resume --out {whole}" in err
