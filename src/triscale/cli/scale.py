"""`triscale scale`."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from triscale.arch import to_dict, to_json
from triscale.cli import arguments
from triscale.cli.console import Output, print_table, table
from triscale.costing import cost
from triscale.errors import UserError
from triscale.runs import write_whole
from triscale.scaling import RULES, Scaled, find_rule
from triscale.scaling.budget import label
from triscale.scaling.budget import show as show_term
from triscale.scaling.summary import summary
from triscale.units import format_count
from triscale.verbs import network, scale, scale_by

MOST_MEMBERS = 100


def command(
    baseline: arguments.Network,
    rule: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(RULES)}, a coefficients file (JSON with alpha, beta, gamma), or shares of depth, width "
            "and resolution such as 0.2,0.5,0.3."
        ),
    ] = "compound",
    factor: Annotated[float | None, typer.Option(help="Times the MACs (nominal).", show_default=False)] = None,
    phi: Annotated[float | None, typer.Option(help="Step φ of the paper.", show_default=False)] = None,
    macs: arguments.Macs = None,
    params: arguments.Params = None,
    activations: arguments.Activations = None,
    size: arguments.Size = None,
    steps: Annotated[
        str | None, typer.Option(help="A family, φ from 0 to 7: 0..7. Needs --out.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the network as JSON; with --steps a directory.", show_default=False)
    ] = None,
    resolution: arguments.Resolution = None,
    channels: arguments.Channels = None,
    classes: arguments.Classes = None,
    as_json: arguments.Json = False,
) -> None:
    """Grow or shrink a network: by a factor, by φ, or to the largest member that holds a budget.

    Example: triscale scale efficientnet_b0 --macs 1G --rule compound
    """
    output = Output(as_json)
    start = network(baseline, resolution=arguments.resolution(resolution), channels=channels, classes=classes)
    limits = arguments.budgets(macs, params, activations, size)
    if steps is not None:
        if limits or factor is not None or phi is not None:
            raise UserError("--steps writes a family along φ; leave --factor, --phi and budgets out")
        if out is None:
            raise UserError(f"--steps {steps} writes a file a member; say where with --out DIR")
        family = {step: scale(start, rule=rule, phi=step) for step in _steps(steps)}
        _write_family(output, family, out)
        return
    scaled = scale_by(start, find_rule(rule), factor=factor, phi=phi, limits=limits)
    if out is not None:
        write_whole(_new_file(out), to_json(scaled.architecture))
    output.result(_values(scaled), lambda console: _show(console, scaled))
    if out is not None:
        output.next_command("triscale", "cost", out)
    else:
        output.next_command(
            "triscale", "scale", Path(baseline), hint=" …, with --out network.json, to use it by its path"
        )


def _steps(text: str) -> range:
    match = re.fullmatch(r"(-?\d{1,3})\.\.(-?\d{1,3})", text.strip())
    if match is None or int(match[1]) > int(match[2]):
        raise UserError(f"--steps: {text!r} is not a range of whole numbers; write for example 0..7")
    steps = range(int(match[1]), int(match[2]) + 1)
    if len(steps) > MOST_MEMBERS:
        raise UserError(f"--steps: {text!r} asks for {len(steps)} networks; {MOST_MEMBERS} are the most at once")
    return steps


def _new_file(path: Path, way: str = "name another file") -> Path:
    if path.is_dir():
        raise UserError(f"--out {path}: is a directory; name a JSON file in it")
    if path.exists():
        raise UserError(f"--out {path}: exists already; {way}")
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: {path.parent} is no directory; make it first")
    return path


def _write_family(output: Output, family: dict[int, Scaled], out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}; name a directory that can be made") from None
    names = {step: f"{member.baseline.name}-phi{step}.json" for step, member in family.items()}
    files = {step: _new_file(out / name, "name another directory") for step, name in names.items()}
    for step, member in family.items():
        write_whole(files[step], to_json(member.architecture))
    members = [{"phi": step, "file": str(files[step]), **_values(member)} for step, member in family.items()]

    def show(console: Console) -> None:
        rows = table("φ", "depth", "width", "pixels", "parameters", "MACs", "asked", "nominal", "realised", "file")
        for step, member in family.items():
            m, height = member.multipliers, member.architecture.resolution[0]
            rows.add_row(
                str(step),
                f"{m.depth:.3f}",
                f"{m.width:.3f}",
                str(height),
                format_count(member.cost.params),
                format_count(member.cost.macs),
                *(f"{factor:.4g}" for factor in (member.asked, member.nominal, member.realised)),
                str(files[step]),
            )
        print_table(console, rows)

    output.result({"family": members}, show)
    output.next_command("triscale", "cost", files[max(files)])


def _values(scaled: Scaled) -> dict[str, Any]:
    total = scaled.cost
    return {
        **summary(scaled),
        "baseline": scaled.baseline.name,
        "cost": {
            "params": total.params,
            "macs": total.macs,
            "activations": total.activations,
            "size": total.size,
            "memory": asdict(total.memory),
        },
        "architecture": to_dict(scaled.architecture),
    }


def _show(console: Console, scaled: Scaled) -> None:
    m = scaled.multipliers
    console.print(f"{scaled.baseline.name} by rule {scaled.rule}: depth ×{m.depth:.4f}, width ×{m.width:.4f}, "
                  f"resolution ×{m.resolution:.4f}")  # fmt: skip
    console.print(f"MACs: asked ×{scaled.asked:.4g}, nominal ×{scaled.nominal:.4g}, realised ×{scaled.realised:.4g}")
    for term, limit in (scaled.limits or {}).items():
        value = (scaled.values or {})[term]
        console.print(
            f"budget of {show_term(term, limit)} {label(term)}: {show_term(term, value)} used ({value / limit:.2%})"
        )
    trimmed = ", ".join(f"{step.place} {step.official} → {step.channels}" for step in scaled.trim)
    console.print(f"channels trimmed after the official rounding: {trimmed or 'none'}")
    rows = table("", "pixels", "blocks", "parameters", "MACs", "activations")
    for name, arch in (("baseline", scaled.baseline), ("scaled", scaled.architecture)):
        of = cost(arch)
        figures = map(format_count, (of.params, of.macs, of.activations))
        rows.add_row(name, f"{arch.resolution[0]}×{arch.resolution[1]}", str(arch.blocks), *figures)
    print_table(console, rows)
