"""Arguments that several verbs share, and how their texts become values."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from triscale.arch.spec import MAX_RESOLUTION
from triscale.cli.console import Output
from triscale.errors import UserError
from triscale.plain import short
from triscale.scaling.budget import limits_of
from triscale.units import parse_bytes, parse_count, parse_seconds

if TYPE_CHECKING:
    from triscale.models import Model as LoadedModel

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Network = Annotated[
    str, typer.Argument(help="A zoo name, a JSON file, a run directory or a safetensors file.", show_default=False)
]
Macs = Annotated[str | None, typer.Option(help="Budget of multiply-accumulates: 10M, 1.2G.", show_default=False)]
Params = Annotated[str | None, typer.Option(help="Budget of parameters: 5M.", show_default=False)]
Activations = Annotated[str | None, typer.Option(help="Budget of activations: 7M.", show_default=False)]
Size = Annotated[str | None, typer.Option(help="Budget of fp32 weights: 20MB.", show_default=False)]
Latency = Annotated[
    str | None,
    typer.Option(help="Budget of time for one image, median, measured on this device: 10ms.", show_default=False),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="What latency is measured with, that of --latency and the finished model's: native, torch, onnxruntime or "
        "openvino.",
        show_default="what predict takes",
    ),
]
_PRECISION = "fp32; or half precision, faster and a little less exact: fp16 or bf16, what the processor multiplies."
Precision = Annotated[str, typer.Option(help=_PRECISION)]
Answering = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help=_PRECISION,
        show_default="the half one, where its run found that this costs less than half a point",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(help="Budget of memory to run one image, at its peak, measured here: 50MB.", show_default=False),
]
Time = Annotated[
    str | None,
    typer.Option(help="Wall clock until the model is there: 10m, 1h. Decides the epochs.", show_default="no limit"),
]
Data = Annotated[
    Path,
    typer.Argument(help="A folder of class folders, a manifest (path,label[,split]) or IDX files.", show_default=False),
]
# Of a run, which may also go on: then it needs no images named.
RunData = Annotated[
    Path | None,
    typer.Argument(help="A folder of class folders, a manifest (path,label[,split]) or IDX files.", show_default=False),
]
RunOut = Annotated[Path | None, typer.Option(help="Directory for the run; new or empty.", show_default=False)]
Balance = Annotated[
    bool, typer.Option("--balance", help="Every class weighs the same in training, however few its images.")
]
OnBad = Annotated[str, typer.Option("--on-bad", help="Unreadable images: error stops, skip leaves them out.")]
Seed = Annotated[int, typer.Option(help="Decides splits, weights and batches.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; cuda where there is one.", show_default=False)]
Resolution = Annotated[
    str | None,
    typer.Option(help="Adapt it to images of so many pixels: 32, or 480x640 (height x width).", show_default=False),
]
Channels = Annotated[int | None, typer.Option(help="Adapt it to so many input channels.", show_default=False)]
Classes = Annotated[int | None, typer.Option(help="Adapt it to so many classes.", show_default=False)]


Model = Annotated[
    str | None,
    typer.Option(
        help="A zoo name, published weights, a run directory or a file of weights; triscale models lists names.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights for a network that has none: a run, a file, published weights.", show_default=False),
]


def model_and_pictures(model: str | None, words: list[str]) -> tuple[str, list[Path]]:
    """The model that is named, by its option or as the first of the words, and the pictures. Raises `UserError`."""
    if model is not None:
        return model, [Path(word) for word in words]
    if len(words) < 2:
        raise UserError(
            f"{words[0]!r} and no model to look at it with; name one: --model efficientnet_lite0, or --model RUN"
        )
    from triscale.data.folders import is_picture_name  # brings numpy, which other verbs do without

    if is_picture_name(words[0]) and Path(words[0]).is_file():
        raise UserError(
            f"{words[0]}: a picture, where the first word names the model; name that by its option: --model RUN"
        )
    return words[0], [Path(word) for word in words[1:]]


def check_as_begun(out: Path, said: Collection[str], *, takes: Collection[str], another: str = "") -> None:
    """Raises `UserError` for an option that a run which goes on does not take. said: parameters that were typed."""
    for option in sorted(set(said) - set(takes)):
        raise UserError(f"--{option.replace('_', '-')}: {out} goes on as it was begun; {another}leave it out")


def tell_reading(output: Output, model: "LoadedModel") -> None:
    """What was decided for a file of another project that is none of the published ones that are known."""
    whose = model.provenance
    if whose is not None and whose.name is None and whose.read_as is not None:
        output.notes.print(f"{whose.file} was read as {whose.project}'s: {whose.read_as}")


def budgets(
    macs: str | None,
    params: str | None = None,
    activations: str | None = None,
    size: str | None = None,
    latency: str | None = None,
    memory: str | None = None,
) -> dict[str, float]:
    """The limits that were given, by term."""
    return limits_of(
        macs=None if macs is None else parse_count(macs, "--macs"),
        params=None if params is None else parse_count(params, "--params"),
        activations=None if activations is None else parse_count(activations, "--activations"),
        size=None if size is None else parse_bytes(size, "--size"),
        latency=None if latency is None else parse_seconds(latency, "--latency"),
        memory=None if memory is None else parse_bytes(memory, "--memory"),
    )


def resolution(text: str | None) -> tuple[int, int] | None:
    """``32`` → (32, 32), ``480x640`` → (480, 640). Raises `UserError`."""
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and side.isascii() for side in sides):
        raise UserError(f"--resolution: {text!r} is not a size in pixels; write 32, or 480x640 for height x width")
    if any(len(side) > 5 for side in sides):  # int() refuses thousands of digits
        raise UserError(f"--resolution: {short(text)} is too large; a side has at most {MAX_RESOLUTION:,} pixels")
    height, width = int(sides[0]), int(sides[-1])
    return height, width


def on_bad(text: str) -> Literal["error", "skip"]:
    """What to do with unreadable images. Raises `UserError`."""
    if text == "error":
        return "error"
    if text == "skip":
        return "skip"
    raise UserError(f"--on-bad {text!r}: is neither error nor skip")
