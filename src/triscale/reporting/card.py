"""The model card of a run: what somebody who is handed the model has to know, from what the run itself has written."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any

from jinja2 import UndefinedError

from triscale.arch import Architecture, from_json
from triscale.arch.resolve import read_metadata
from triscale.costing import Cost, cost
from triscale.data import Preprocess
from triscale.errors import UserError
from triscale.evaluating import Measures, measure, read_table
from triscale.evaluating.measures import ClassMeasures
from triscale.reporting.markdown import Markdown, render_markdown
from triscale.reporting.precision import precision_words
from triscale.runs import RunDirectory, write_whole
from triscale.scaling.budget import label, show
from triscale.weights import Provenance
from triscale.weights.reading import sha256_of

FEW_CLASSES = 30  # of more only the totals, and the classes that are named right least often
WORST = 10
# What the hub of models calls the licences that it knows; of others it is told nothing.
_HUB_LICENCES: Mapping[str, str] = {
    "Apache-2.0": "apache-2.0",
    "BSD-2-Clause": "bsd-2-clause",
    "BSD-3-Clause": "bsd-3-clause",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC0-1.0": "cc0-1.0",
    "MIT": "mit",
}


def write_card(run: RunDirectory) -> None:
    """MODEL.md in the directory of a finished run; the same bytes each time.

    Raises `UserError` where the run is not finished, or not one that this version can read.
    """
    write_whole(run.card, card(run))


def card(run: RunDirectory) -> str:
    """The same as text. Its first lines are YAML as the hub of models reads them."""
    settings, source = run.settings(), f"{run.path}/run.json"
    if "result" not in settings:
        raise UserError(f"{run.path}: is not finished, so there is no model to describe; go on with it by --resume")
    try:
        return render_markdown("card.md.j2", _page(run, settings))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, UndefinedError) as error:
        raise UserError(f"{source}: not what this version can describe ({error!r}); train the model again") from None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limited cost in words: what was asked and realised. used: share of the limit."""

    term: str
    asked: Markdown
    value: Markdown
    used: float


@dataclass(frozen=True, slots=True)
class Leaks:
    """Test images whose content is also among those that were learned from or chosen by: in this run (None where it
    kept no list), and in the run whose weights it started from. total: of both together."""

    total: int
    here: int | None
    before: int | None


@dataclass(frozen=True, slots=True)
class CardPage:
    """triscale, data, plan, recipe, result: as the run has them; versions: with the kernels' instruction sets. images:
    the name of their folder. totals: images of each split. batch: images of a step. sizes: training images of the
    smallest and of the largest class. epochs: how many were made. blocks: kind → how many. few: whether there are so
    few classes that all are listed. file_bytes, file_sha256: of the model's file."""

    triscale: str
    versions: Mapping[str, str]
    data: Mapping[str, Any]
    images: str
    totals: Mapping[str, int]
    batch: int
    sizes: tuple[int, int]
    plan: Mapping[str, Any]
    recipe: Mapping[str, Any]
    recipe_json: Markdown
    result: Mapping[str, Any]
    epochs: int
    architecture: Architecture
    blocks: Mapping[str, int]
    pixels: Markdown
    colours: Markdown
    preprocess: Preprocess
    classes: Sequence[str]
    few: bool
    listed: Sequence[ClassMeasures]
    measures: Measures
    cost: Cost
    budget: Sequence[Limit]
    answers: str
    leaks: Leaks
    weights: Provenance | None
    hub_licence: Markdown | None
    file_bytes: int
    file_sha256: str


def _page(run: RunDirectory, settings: Mapping[str, Any]) -> CardPage:
    data, plan, result = settings["data"], settings["plan"], settings["result"]
    metadata = read_metadata(run.model)
    architecture = from_json(metadata["architecture"], str(run.model))
    classes: list[str] = json.loads(metadata["classes"])
    measures = measure(read_table(run.predictions).among(classes))
    weights = None if plan["weights"] is None else Provenance.from_json(plan["weights"])
    totals = {split: sum(table.values()) for split, table in data["counts"].items()}
    return CardPage(
        triscale=settings["triscale"],
        versions=_versions(settings["versions"], plan["machine"]),
        data=data,
        images=_name(data["path"]),
        totals=totals,
        batch=min(plan["recipe"]["batch"], totals["train"]),
        sizes=_sizes(data["counts"]["train"]),
        plan=plan,
        recipe=plan["recipe"],
        recipe_json=_as_json(plan["recipe"]),
        result=result,
        epochs=sum(1 for _ in run.metrics()),
        architecture=architecture,
        blocks=_blocks(architecture),
        pixels=_pixels(architecture.resolution),
        colours=_colours(architecture.channels),
        preprocess=Preprocess.from_json(json.loads(metadata["preprocess"])),
        classes=classes,
        few=len(classes) <= FEW_CLASSES,
        listed=_listed(measures.classes),
        measures=measures,
        cost=cost(architecture),
        budget=_budget(result["budget"]),
        answers=precision_words(result["half"]),
        leaks=_leaks(run, result["leaks"]),
        weights=weights,
        hub_licence=_hub_licence(weights),
        file_bytes=run.model.stat().st_size,
        file_sha256=sha256_of(run.model),
    )


def _versions(versions: Mapping[str, str], machine: Mapping[str, Any]) -> Mapping[str, str]:
    """As the run has them; where layers trained by own kernels, the system also says in which instruction sets."""
    if not machine.get("kernels") or "kernels" not in versions:
        return versions
    return {**versions, "platform": f"{versions['platform']}; own kernels: {versions['kernels']}"}


def _name(path: str) -> str:
    """The last part alone: where somebody's files lie is nobody else's business. Also of a run that was made on
    Windows."""
    own = PureWindowsPath(path) if re.match(r"[A-Za-z]:[\\/]|\\\\", path) else PurePath(path)
    return own.name or "images"


def _sizes(train: Mapping[str, int]) -> tuple[int, int]:
    """Training images of the smallest and of the largest class."""
    return min(train.values()), max(train.values())


def _as_json(recipe: Mapping[str, Any]) -> Markdown:
    """A field a line. No line begins with what would end the block of code that it stands in."""
    rows = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in recipe.items())
    return Markdown("{\n" + ",\n".join(rows) + "\n}")


def _blocks(architecture: Architecture) -> Mapping[str, int]:
    """kind → how many, in the order of their first."""
    kinds: Counter[str] = Counter()
    for stage in architecture.stages:
        kinds[stage.block.kind] += stage.repeats
    return kinds


def _pixels(sides: Sequence[int]) -> Markdown:
    return Markdown("×".join(f"{int(side):,}" for side in sides))


def _colours(channels: int) -> Markdown:
    return Markdown({1: "gray", 3: "RGB"}.get(channels, f"{channels} channels"))


def _listed(classes: Sequence[ClassMeasures]) -> list[ClassMeasures]:
    """All of few classes; of many those with the lowest recalls, of equal ones the first by name."""
    if len(classes) <= FEW_CLASSES:
        return list(classes)
    tested = [(one.recall.value, one.name, one) for one in classes if one.recall is not None]
    return [one for _, _, one in sorted(tested, key=lambda row: row[:2])[:WORST]]


def _budget(budget: Mapping[str, Mapping[str, float]]) -> list[Limit]:
    return [
        Limit(label(term), Markdown(show(term, row["limit"])), Markdown(show(term, row["value"])), row["used"])
        for term, row in budget.items()
    ]


def _leaks(run: RunDirectory, total: int) -> Leaks:
    places: dict[str, set[str]] = {"learned": set(), "before": set()}
    test: list[str] = []
    for split, digest in run.splits().values():
        if split == "test":
            test.append(digest)
        else:
            places["before" if split == "before" else "learned"].add(digest)
    if not test:
        return Leaks(total, None, None)
    here, before = (sum(digest in known for digest in test) for known in places.values())
    return Leaks(total, here, before if places["before"] else None)


def _hub_licence(weights: Provenance | None) -> Markdown | None:
    licence = None if weights is None or weights.licence is None else _HUB_LICENCES.get(weights.licence)
    return None if licence is None else Markdown(licence)
