"""How a plan is printed."""

from typing import TYPE_CHECKING

from rich.console import Console

from triscale.cli.console import print_table, table
from triscale.scaling.budget import label
from triscale.scaling.budget import show as show_term
from triscale.units import format_count, format_epochs, format_seconds

if TYPE_CHECKING:
    from triscale.fitting import Candidate, Plan
    from triscale.training import Machine, Recipe


def show_plan(console: Console, plan: "Plan", images: int) -> None:
    """The plan's table, what is taken and why, and how long it takes. images: those that are learned from."""
    limits = plan.scaled.limits or {}
    others = [term for term in limits if term not in ("macs", "params")]
    made = table("", "candidate", "pixels", "MACs", "parameters", *map(label, others), "images/s", "epochs")
    made.columns[1].justify = "left"  # names
    refused = []
    for index, candidate in enumerate(plan.candidates):
        if candidate.refused is not None or candidate.architecture is None or candidate.scaled is None:
            refused.append(candidate)
            continue
        height, width = candidate.architecture.resolution
        total = candidate.scaled.cost
        made.add_row(
            "→" if index == plan.taken else "",
            candidate.name,
            f"{height}×{width}",
            format_count(total.macs),
            format_count(total.params),
            *(_realised(candidate, term) for term in others),
            format_count(candidate.images_per_second),
            f"{candidate.epochs:,}",
        )
    print_table(console, made)
    for candidate in refused:
        console.print(f"not {candidate.name}: {candidate.refused}")
    few = [candidate.name for candidate in plan.candidates if not candidate.refused and candidate.epochs < plan.fewest]
    if few:
        console.print(f"too slow for {format_epochs(plan.fewest)} in the time: {', '.join(few)}")
    taken, network, machine = plan.candidates[plan.taken], plan.architecture, plan.machine
    console.print(f"taken: {taken.name}, {plan.why}")
    if plan.weights is not None:
        console.print(f"starts from the weights {plan.weights.name or plan.weights.file}; the head is new")
        if plan.weights.name is None and plan.weights.read_as:
            console.print(f"that file was read as {plan.weights.project}'s: {plan.weights.read_as}")
    how = f"by rule {plan.scaled.rule}" if plan.weights is None else "as they are"
    console.print(
        f"{network.blocks} blocks {how}; {_machine(machine)}; {format_epochs(plan.recipe.epochs)} of batches of "
        f"{min(plan.recipe.batch, images)}"
    )
    if plan.scratch is not None:
        console.print("then the same network from scratch, on the same split, to compare (--no-scratch leaves it out)")
    limit = "" if plan.time is None else f" of the {format_seconds(plan.time)} there are"
    if plan.expected is not None:
        console.print(f"expected to take {format_seconds(plan.expected)}{limit}")


def _machine(machine: "Machine") -> str:
    kernels = f", own kernels in {len(machine.kernels)} layers" if machine.kernels else ""
    return f"{machine.precision} on {machine.device}, threads: {machine.threads}{kernels}"


def show_training(console: Console, plan: "Plan", images: int) -> None:
    """The plan of a training whose network was named: the network, the recipe in numbers, the machine. images: those
    that are learned from."""
    network, recipe, machine, total = plan.architecture, plan.recipe, plan.machine, plan.scaled.cost
    height, width = network.resolution
    console.print(
        f"{network.name} at {height}×{width}: {format_count(total.macs)} MACs, {format_count(total.params)} "
        f"parameters, dropout {network.head.dropout:g}, stochastic depth {network.stochastic_depth:g}"
    )
    patience = "" if recipe.patience is None else f", patience {recipe.patience}"
    steps = plan.steps // recipe.epochs
    batches = f"{steps:,} {'batch' if steps == 1 else 'batches'} of {min(recipe.batch, images)}"
    console.print(
        f"{format_epochs(recipe.epochs)} of {batches}; "
        f"{recipe.optimizer.kind}, {recipe.rate.kind} rate up to {recipe.rate.peak:.3g}, {_changes(recipe)}{patience}"
    )
    pace = f"; a step takes about {format_seconds(plan.pace.step)}" if plan.pace.step else ""
    repeatable = ", repeatable" if machine.deterministic else ""
    console.print(f"{_machine(machine)}{repeatable}{pace}")
    if plan.expected is not None:
        console.print(f"expected to take {format_seconds(plan.expected)}, without validation and test")


def _changes(recipe: "Recipe") -> str:
    """What happens to pictures, in words."""
    augment = recipe.augment
    crop = None if augment.crop_scale is None else f"crops from {augment.crop_scale[0]:.0%}"
    named = {
        "mirrored": augment.flip,
        augment.policy: augment.policy is not None,
        f"erased {augment.erase:.0%}": augment.erase > 0,
        "mixup": augment.mixup > 0,
        "cutmix": augment.cutmix > 0,
    }
    words = [crop or f"shifts up to {augment.shift:.0%}", *(str(word) for word, used in named.items() if used)]
    return ", ".join(words)


def _realised(candidate: "Candidate", term: str) -> str:
    """What a candidate costs in a limited term; of a latency the spread too."""
    measured = candidate.latency
    if term == "latency" and measured is not None:
        low, high = format_seconds(measured.low), format_seconds(measured.high)
        return f"{format_seconds(measured.median)} ({low} to {high})"
    values = candidate.scaled.values if candidate.scaled else None
    return show_term(term, (values or {})[term])
