"""Two tables of the same images, row beside row; and in plain words why they are not of the same images."""

from collections import defaultdict

from triscale.errors import UserError
from triscale.evaluating.table import Table
from triscale.runs import RunDirectory


def match(first: Table, second: Table) -> list[tuple[int, int]]:
    """The rows of the two tables that are of one image each: pairs of positions, in the order of the first table.

    An image is the same where its content is. Of several with one content those of the same name belong together, and
    what is left in the order of the names. Where a table keeps no digests, names have to do.
    """
    if not (first.digests and second.digests):
        named = {name: j for j, name in enumerate(second.names)}
        return [(i, named[name]) for i, name in enumerate(first.names) if name in named]
    pairs: dict[int, int] = {}
    exact = {key: j for j, key in enumerate(zip(second.digests, second.names, strict=True))}
    left: dict[bytes, list[int]] = defaultdict(list)
    for i, key in enumerate(zip(first.digests, first.names, strict=True)):
        if key in exact:
            pairs[i] = exact.pop(key)
    for (digest, _), j in sorted(exact.items(), reverse=True):
        left[digest].append(j)
    for i in sorted(set(range(len(first))) - pairs.keys(), key=first.names.__getitem__):
        if left[first.digests[i]]:
            pairs[i] = left[first.digests[i]].pop()
    return sorted(pairs.items())


def aligned(first: Table, second: Table, names: tuple[str, str], why: str = "") -> tuple[Table, Table]:
    """Both tables in the order of the first. Raises `UserError` where they are not of the same images, with `why`, or
    an image has two different labels."""
    pairs = match(first, second)
    if not len(pairs) == len(first) == len(second):
        raise UserError(
            f"{names[0]} and {names[1]}: not tested on the same images: {len(pairs):,} are shared of "
            f"{len(first):,} and {len(second):,}{why}; name images to compare both models on: --data DATA"
        )
    one, other = first.select([i for i, _ in pairs]), second.select([j for _, j in pairs])
    for name, i, j in zip(one.names, one.labels.tolist(), other.labels.tolist(), strict=True):
        if one.classes[i] != other.classes[j]:
            raise UserError(
                f"{name}: is {one.classes[i]!r} in {names[0]} and {other.classes[j]!r} in {names[1]}: the images were "
                "labelled anew in between; name them to compare both models on: --data DATA"
            )
    return one, other


def why_apart(first: RunDirectory | None, second: RunDirectory | None) -> str:
    """That two runs made from the same images held out different ones, where that is so; nothing otherwise."""
    if first is None or second is None:
        return ""
    seeds = [_seed(run) for run in (first, second)]
    contents = [{digest for split, digest in run.splits().values() if split != "before"} for run in (first, second)]
    if None in seeds or seeds[0] == seeds[1] or not contents[0] or contents[0] != contents[1]:
        return ""
    return (
        f", because the same data was split with the seeds {seeds[0]} and {seeds[1]}, and each holds out images of its "
        f"own (a run with --seed {seeds[0]} is comparable with the first)"
    )


def check_classes(
    first: tuple[str, ...] | None, second: tuple[str, ...] | None, names: tuple[str, str]
) -> tuple[str, ...] | None:
    """The classes of both models, None where neither is known. Raises `UserError` naming those that only one has."""
    if first is None or second is None:
        return first or second
    lacks = [
        f"only {name} knows {_some([label for label in own if label not in set(other)])}"
        for name, own, other in ((names[0], first, second), (names[1], second, first))
        if set(own) - set(other)
    ]
    if lacks:
        raise UserError(f"{' and '.join(lacks)}: the classes differ; compare models that tell the same classes apart")
    return first


def numbered(table: Table, classes: tuple[str, ...], name: str) -> Table:
    """The table with its classes numbered as the models'. Raises `UserError` for one that they do not have."""
    try:
        return table.among(classes)
    except KeyError as error:
        raise UserError(
            f"{name}: names the class {error.args[0]!r}, which the other model does not know; compare models that "
            "tell the same classes apart"
        ) from None


def _seed(run: RunDirectory) -> int | None:
    plan = run.settings().get("plan")
    seed = plan.get("seed") if isinstance(plan, dict) else None
    return seed if isinstance(seed, int) else None


def _some(labels: list[str], most: int = 8) -> str:
    return ", ".join(map(repr, labels[:most])) + (f" and {len(labels) - most} more" if len(labels) > most else "")
