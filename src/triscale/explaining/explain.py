"""`explain`: which parts of pictures speak for a class, as one or several networks see them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from triscale.data.decoding import BadPictureError, decode, read_bytes
from triscale.data.folders import find_pictures
from triscale.data.preprocessing import Box
from triscale.data.threads import ordered_map
from triscale.errors import UserError
from triscale.explaining.maps import Maps, class_activation_maps, grad_cam
from triscale.explaining.sanity import SEEDS, Sanity, sanity_check
from triscale.explaining.seeing import Floats, Pixels, around, seen_box, show, window
from triscale.models import Model, learned
from triscale.nn.network import Network

BATCH_PIXELS, MOST_AT_ONCE = 8 * 224 * 224, 64
SANITY_PICTURES = 32

Networks = str | Path | Model | Sequence[str | Path | Model] | Mapping[str, Model]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What one network finds of one class in one picture.

    values: float32 (h, w). Of a `cam` they are shares of the logit: they sum to `logit - bias`, and negative ones speak
    against the class. Of a `grad-cam` they are no shares of anything, and none is negative. resolution:
    (h, w) of the network's input. box: (left, top, right, bottom) of what the network saw, in pixels of the picture;
    seen: the rows and columns of `Explained.picture` that it covers. likeliest: the class that the network would name,
    with its probability.
    """

    network: str
    label: str
    index: int
    probability: float
    likeliest: tuple[str, float]
    logit: float
    bias: float
    method: Literal["cam", "grad-cam"]
    stage: int | None
    values: Floats
    resolution: tuple[int, int]
    box: Box
    seen: tuple[slice, slice]

    @property
    def total(self) -> float:
        """The sum of the map."""
        return float(self.values.sum(dtype="float64"))


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """One picture: what all networks together saw of it, uint8 [H, W, 3], and what each found; or why it is unread."""

    path: Path
    picture: Pixels | None = None
    explanations: tuple[Explanation, ...] = ()
    error: str | None = None


def explain(
    networks: Networks,
    pictures: str | Path | Iterable[str | Path],
    *,
    label: str | None = None,
    stage: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Explained]:
    """Each picture as every network sees it; folders are searched for pictures, in the order of their names.

    label: the class that is explained; without it each network's likeliest. stage: Grad-CAM after this stage, counted
    from 0 as `triscale cost --layers` does; without it the exact class activation maps (see `class_activation_maps`).
    Raises `UserError` for a model without learned weights, a class or a stage that one of them does not have, and for
    a path that does not exist.
    """
    paths, _ = choose(pictures)
    return explain_files(networks, paths, label=label, stage=stage, progress=progress)


def explain_files(
    networks: Networks,
    files: Sequence[Path],
    *,
    label: str | None = None,
    stage: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Explained]:
    """As `explain`, of the files that `choose` found: one that is gone since, or a link that leads nowhere, is told as
    any other that cannot be read."""
    models = named(networks)
    indices = {name: None if label is None else _class(name, model, label) for name, model in models.items()}
    for name, model in models.items():
        _check_stage(name, model, stage)
    return _explained(models, indices, stage, files, progress or (lambda done, total: None))


def choose(pictures: str | Path | Iterable[str | Path], most: int | None = None) -> tuple[list[Path], int]:
    """The pictures themselves and those below folders, at most so many, spread evenly; and how many are left out.

    Raises `UserError` for a path that does not exist, and a folder without pictures.
    """
    given = [pictures] if isinstance(pictures, str | Path) else list(pictures)
    found = [path for place in given for path in find_pictures(Path(place))]
    chosen = [found[i] for i in _spaced(len(found), most or len(found))]
    return chosen, len(found) - len(chosen)


def named(networks: Networks) -> dict[str, Model]:
    """The models, loaded where only a name is given, by names that are short and all different.

    Raises `UserError` for a model without learned weights.
    """
    if isinstance(networks, Mapping):
        models = dict(networks)
    else:
        given = [networks] if isinstance(networks, str | Path | Model) else list(networks)
        short, full = [_short(one) for one in given], [_full(one) for one in given]
        heads = short if len(set(short)) == len(short) else full
        models = {}
        for head, one in zip(heads, given, strict=True):
            name, number = head, 1
            while name in models:
                number += 1
                name = f"{head} ({number})"
            models[name] = learned(one)
    if not models:
        raise UserError("explain: no network; name a run that `triscale fit` wrote")
    for name, model in models.items():
        learned(model)
        if model.preprocess.channels not in (1, 3):
            raise UserError(
                f"{name}: looks at {model.preprocess.channels} channels, which picture files do not have; "
                "`class_activation_maps` takes its arrays"
            )
    return models


def check_sanity(
    networks: Networks,
    explained: Sequence[Explained],
    *,
    seeds: int = SEEDS,
    progress: Progress | None = None,
) -> dict[str, Sanity]:
    """`sanity_check` of each network for what `explain` found: the same classes of at most 32 of the same pictures.

    They are spread evenly over those that could be read. Raises `UserError` where there is none, or one is gone.
    """
    readable = [one for one in explained if one.explanations]
    chosen = [readable[i] for i in _spaced(len(readable), SANITY_PICTURES)]
    if not chosen:
        raise UserError("check_sanity: no picture was explained; bring at least one")
    models = named(networks)
    report = progress or (lambda done, total: None)
    found = {}
    for place, (name, model) in enumerate(models.items()):
        own = [next(each for each in one.explanations if each.network == name) for one in chosen]

        def step(done: int, of: int, place: int = place) -> None:
            report(place * of + done, len(models) * of)

        found[name] = sanity_check(
            model,
            torch.stack([model.preprocess(one.path) for one in chosen]),
            [each.index for each in own],
            maps=partial(_maps, stage=own[0].stage),
            seeds=seeds,
            progress=step,
        )
    return found


def _spaced(n: int, most: int) -> list[int]:
    """At most so many of n positions, spread evenly, the first among them."""
    return [i * n // most for i in range(most)] if n > most else list(range(n))


def _short(network: str | Path | Model) -> str:
    if isinstance(network, Model):
        return network.architecture.name
    path = Path(network)
    return path.stem if path.suffix in (".safetensors", ".json") else path.name or str(path)


def _full(network: str | Path | Model) -> str:
    return network.architecture.name if isinstance(network, Model) else str(network)


def _class(name: str, model: Model, label: str) -> int:
    if label in model.classes:
        return model.classes.index(label)
    plain = label.casefold()
    near = [known for known in model.classes if plain and plain in known.casefold()]
    near += [known for known in get_close_matches(label, model.classes, n=3, cutoff=0.5) if known not in near]
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else f"it has {_some(model.classes)}"
    raise UserError(f"--class {label!r}: no class of {name}; {hint}")


def _some(classes: Sequence[str]) -> str:
    shown = ", ".join(map(repr, classes[:5]))
    return shown if len(classes) <= 5 else f"{shown} and {len(classes) - 5:,} more"


def _check_stage(name: str, model: Model, stage: int | None) -> None:
    last = len(model.architecture.stages) - 1
    if stage is not None and not 0 <= stage <= last:
        raise UserError(
            f"--stage {stage}: {name} has the stages 0 to {last}; `triscale cost {name} --layers` lists them"
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """A picture as it is shown, and of each network its input and what part it covers."""

    picture: Pixels
    inputs: tuple[Tensor, ...]
    boxes: tuple[Box, ...]
    seen: tuple[tuple[slice, slice], ...]


def _look(models: Sequence[Model], path: Path) -> _Look | str:
    """What the networks see of a picture, or why there is nothing to see."""
    looks = [model.preprocess for model in models]
    try:
        pixels = decode(read_bytes(path), max(look.channels for look in looks))
    except BadPictureError as error:
        return f"'{path}' cannot be read: {error}; give a picture file that opens elsewhere"
    boxes = tuple(seen_box(look, pixels.shape[:2]) for look in looks)
    shown = around(boxes)
    picture = show(pixels, shown)
    seen = tuple(window(box, shown, picture.shape[:2]) for box in boxes)
    return _Look(picture, tuple(look(pixels) for look in looks), boxes, seen)


def _explained(
    models: Mapping[str, Model],
    indices: Mapping[str, int | None],
    stage: int | None,
    paths: Sequence[Path],
    progress: Progress,
) -> Iterator[Explained]:
    largest = max(model.preprocess.resolution[0] * model.preprocess.resolution[1] for model in models.values())
    batch = min(max(1, BATCH_PIXELS // largest), MOST_AT_ONCE)
    for start in range(0, len(paths), batch):
        some = paths[start : start + batch]
        looks = list(ordered_map(partial(_look, list(models.values())), some))
        readable = [look for look in looks if isinstance(look, _Look)]
        columns = [
            _explanations(name, model, place, readable, indices[name], stage)
            for place, (name, model) in enumerate(models.items())
        ]
        rows = zip(*columns, strict=True)
        for path, look in zip(some, looks, strict=True):
            if isinstance(look, str):
                yield Explained(path, error=look)
            else:
                yield Explained(path, look.picture, next(rows))
        progress(start + len(some), len(paths))


def _explanations(
    name: str, model: Model, place: int, looks: Sequence[_Look], index: int | None, stage: int | None
) -> list[Explanation]:
    """Of the network at this place, for every picture."""
    if not looks:
        return []
    x = torch.stack([look.inputs[place] for look in looks]).to(next(model.parameters()).device)
    found = _maps(model, x, None if index is None else [index] * len(looks), stage)
    shares = found.logits.float().softmax(1).cpu()
    logits, values = found.logits.cpu(), found.values.float().cpu().numpy()
    return [
        Explanation(
            network=name,
            label=model.classes[chosen],
            index=chosen,
            probability=float(shares[i, chosen]),
            likeliest=(model.classes[int(shares[i].argmax())], float(shares[i].max())),
            logit=float(logits[i, chosen]),
            bias=float(model.head.classifier.bias[chosen].detach()),
            method="cam" if stage is None else "grad-cam",
            stage=stage,
            values=values[i],
            resolution=model.preprocess.resolution,
            box=look.boxes[place],
            seen=look.seen[place],
        )
        for i, (look, chosen) in enumerate(zip(looks, found.classes.tolist(), strict=True))
    ]


def _maps(network: Network, x: Tensor, classes: Sequence[int] | None, stage: int | None) -> Maps:
    if stage is None:
        return class_activation_maps(network, x, classes)
    return grad_cam(network, network.stages[stage], x, classes)
