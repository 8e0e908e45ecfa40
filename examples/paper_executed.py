"""docs/paper.md: its tables and verdicts, from the library, from what the paper printed, and from our studies.

    python examples/paper_executed.py            # rewrites what stands between the page's marks
    python examples/paper_executed.py --check    # changes nothing; exit 1 where the page has something else

Nothing is trained here. What the paper printed is in examples/data/paper.json, studies are in examples/studies.
"""

import argparse
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from paper_conclusions import conclusions
from paper_studies import DIMENSIONS, markdown, read_studies, tables

from triscale.arch import Architecture, multiply, published
from triscale.arch.zoo import EFFICIENTNET_SIZES
from triscale.costing import cost
from triscale.scaling import RULES, Coefficients, Power, grow
from triscale.studies.designs import COMPOUND, DESIGNS, FEWEST_SEEDS

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "paper.md"
PRINTED: Mapping[str, Any] = json.loads((HERE / "data" / "paper.json").read_text("utf-8"))
MARK = re.compile(r"(<!-- made by examples/paper_executed\.py: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 128
BASELINE, FAMILY = "efficientnet_b0", tuple(f"B{k}" for k in range(8))
UNITS = {"M": 1e6, "B": 1e9}


def network(member: str) -> Architecture:
    """B0 to B7."""
    return published(f"efficientnet_{member.lower()}")


def macs(architecture: Architecture) -> int:
    return cost(architecture).macs


def rows(table: str) -> dict[str, tuple[Any, ...]]:
    """A printed table: what its first column names, and the rest of the row."""
    return {row[0]: tuple(row[1:]) for row in PRINTED[table]["rows"]}


def as_printed(value: float, printed: str) -> str:
    """A value with the unit and the decimals of a printed one: 386e6 as "0.39B" is 0.39B."""
    decimals = len(printed[:-1].partition(".")[2])
    return f"{value / UNITS[printed[-1]]:.{decimals}f}{printed[-1]}"


def paper() -> Coefficients:
    rule = RULES["compound"]
    assert isinstance(rule, Power)
    return rule.coefficients


# Section 1: what FLOPs are.


def flops() -> str:
    """Table 2's FLOPs and parameters beside what is counted."""
    found = []
    for member in FAMILY:
        _, _, params, _, printed, _ = rows("table2")[f"EfficientNet-{member}"]
        total, differ = cost(network(member)), []
        for what, value, said in (("FLOPs", total.macs, printed), ("parameters", total.params, params)):
            if as_printed(value, said) != said:
                differ.append(f"{what}: {as_printed(value, said)}")
        pixels = str(total.architecture.resolution[0])
        counted = [printed, f"{total.macs:,}", params, f"{total.params:,}", ", ".join(differ)]
        found.append([member, pixels, *counted])
    return markdown(("", "pixels", "FLOPs printed", "MACs counted", "parameters", "counted", "would print"), found)


# Section 2: why α is not squared.


def squared() -> str:
    """One dimension of B0 at a time, doubled and by α, β, γ alone: nominal and realised."""
    found, base = [], network("B0")
    for dimension, multiplier in (*zip(DIMENSIONS, (2, 2, 2), strict=True), *zip(DIMENSIONS, step(), strict=True)):
        nominal = multiplier ** (1 if dimension == "depth" else 2)
        grown = multiply(base, **{dimension: multiplier})
        command = f"`triscale scale {BASELINE} --rule {dimension} --factor {round(nominal, 4):g}`"
        pixels, realised = str(grown.resolution[0]), f"×{macs(grown) / macs(base):.3f}"
        found.append(
            [f"{dimension[0]} = {multiplier:g}", str(grown.blocks), pixels, f"×{nominal:.4g}", realised, command]
        )
    return markdown(("", "blocks", "pixels", "nominal", "MACs realised", "command"), found)


def step() -> tuple[float, float, float]:
    """α, β, γ."""
    return paper().alpha, paper().beta, paper().gamma


def parts() -> str:
    """B0's MACs by kind of layer, and how each kind grows when one dimension is doubled."""
    base = by_kind(network("B0"))
    doubled = [by_kind(multiply(network("B0"), **{each: 2})) for each in DIMENSIONS]
    total = sum(base.values())
    found = [
        [kind, f"{100 * own / total:.2f} %", *(f"×{one[kind] / own:.2f}" for one in doubled)]
        for kind, own in base.items()
    ]
    found.append(["all", "100 %", *(f"×{sum(one.values()) / total:.2f}" for one in doubled)])
    return markdown(("layers of B0", "of its MACs", "d = 2", "w = 2", "r = 2"), found)


def by_kind(architecture: Architecture) -> dict[str, int]:
    """MACs of each kind of layer."""
    kinds = {
        "head.conv": "head's 1×1",
        "stem": "stem",
        "classifier": "classifier",
        "squeeze_excite": "squeeze-excite",
        "depthwise": "depthwise",
        "": "1×1 in blocks",
    }
    found = dict.fromkeys(("1×1 in blocks", "depthwise", "head's 1×1", "stem", "classifier", "squeeze-excite"), 0)
    for layer in cost(architecture).layers:
        found[next(kind for part, kind in kinds.items() if part in layer.name)] += layer.macs
    return found


# Section 3: how the coefficients were found.


def design() -> str:
    """What stands in for the grid that was not published."""
    arms, ten = DESIGNS["paper"].arms, DESIGNS["ten"].arms
    grid = [tuple(map(float, arm.name.split())) for arm in arms if arm.name != COMPOUND] + [step()]
    columns = zip("αβγ", zip(*grid, strict=True), strict=True)
    ranges = ", ".join(f"{letter} from {min(column):g} to {max(column):g}" for letter, column in columns)
    products = [alpha * beta**2 * gamma**2 for alpha, beta, gamma in grid]
    return (
        f"`--design paper` is step 1 by name, on a grid of ours: {len(arms)} arms, {ranges}, α·β²·γ² from "
        f"{min(products):.2f} to {max(products):.2f}, the published triple among them. With the fewest seeds that a "
        f"study takes, {FEWEST_SEEDS}, that is {len(arms) * FEWEST_SEEDS} trainings; the design `ten` takes "
        f"{len(ten) * FEWEST_SEEDS} and fits a surface between its arms."
    )


# Section 4: the published table and the formula.


def phi() -> str:
    """The φ that each column of the published family implies."""
    found, base, (alpha, beta, gamma) = [], macs(network("B0")), step()
    for member in FAMILY[1:]:
        width, depth, pixels, _ = EFFICIENTNET_SIZES[f"efficientnet_{member.lower()}"]
        side = network("B0").resolution[0]
        implied = math.log(depth, alpha), math.log(width, beta), math.log(pixels / side, gamma)
        realised = macs(network(member)) / base
        nominal = depth * width**2 * (pixels / side) ** 2
        found.append(
            [
                member,
                f"{depth:g}, {width:g}, {pixels / side:.3f}",
                *(f"{one:.2f}" for one in (*implied, math.log2(realised))),
                f"×{nominal:.2f}",
                f"×{realised:.2f}",
            ]
        )
    heads = ("", "d, w, r", "φ by depth", "by width", "by resolution", "by MACs (2^φ)", "d·w²·r²", "MACs realised")
    return markdown(heads, found)


def formula() -> str:
    """The product of the coefficients, and what one step of φ makes of B0."""
    base = network("B0")
    grown = grow(base, RULES["compound"], phi=1)
    blocks = base.blocks, network("B1").blocks
    width, depth, pixels, _ = EFFICIENTNET_SIZES["efficientnet_b1"]
    nominal = depth * width**2 * (pixels / base.resolution[0]) ** 2
    product = " · ".join(f"{value:g}{power}" for value, power in zip(step(), ("", "²", "²"), strict=True))
    return (
        f"α·β²·γ² = {product} = {paper().product:.3f}, not 2. By the formula φ = 1 makes B0 ×{grown.nominal:.3f}; with "
        f"the official rounding (`triscale scale {BASELINE} --phi 1`) it is ×{grown.realised:.3f}. B1 is nominally "
        f"×{nominal:.2f} and really ×{macs(network('B1')) / macs(base):.2f}: repeats are rounded up in every stage, so "
        f"d = {depth:g} turns {blocks[0]} blocks into {blocks[1]}."
    )


def single() -> str:
    """Table 7: which multipliers have the FLOPs that it prints for its rows of one dimension."""
    found = []
    for name in DIMENSIONS:
        d, w, r, printed, _ = rows("table7")[name]
        own = multiply(network("B0"), d, w, r)
        fitting = [m for m in (k / 100 for k in range(100, 600)) if prints(name, m, printed)]
        found.append(
            [
                f"{name} alone",
                f"{max(d, w, r):g}",
                printed,
                f"{macs(own) / 1e9:.3f}G",
                f"{fitting[0]:g} to {fitting[-1]:g}",
            ]
        )
    d, w, r, printed, _ = rows("table7")["compound"]
    own = multiply(network("B0"), d, w, r)
    found.append(["compound", f"{d:g}, {w:g}, {r:g}", printed, f"{macs(own) / 1e9:.3f}G", "as printed"])
    return markdown(("Table 7", "multiplier", "FLOPs printed", "MACs counted", "multipliers that count so many"), found)


def prints(dimension: str, multiplier: float, printed: str) -> bool:
    """Whether B0 with one dimension multiplied would print these FLOPs."""
    return as_printed(macs(multiply(network("B0"), **{dimension: multiplier})), printed) == printed


def inconsistencies() -> str:
    """Where the paper prints two figures for one thing."""
    table2, table4, table7, early = (rows(name) for name in ("table2", "table4", "table7", "early"))
    b0, b1, b3, b4, b7 = (table2[f"EfficientNet-B{k}"] for k in (0, 1, 3, 4, 7))
    old1, old7 = (table4[f"EfficientNet-B{k}"] for k in (1, 7))
    amoeba, pnas, caption = table2["AmoebaNet-A"], table2["PNASNet"], PRINTED["table2"]["caption_flops_ratio"]
    intro, figure4 = PRINTED["introduction"], PRINTED["figure4"]
    most = max((row[5] for row in table2.values() if row[5]), key=lambda ratio: float(ratio[:-1]))
    lines = (
        f"Accuracy of B1 and B7: {b1[0]} and {b7[0]} % in Table 2, {old1[0]} and {old7[0]} % in Table 4, which kept "
        f"the figures of an early version ({early['B1'][0]} and {early['B7'][0]} %).",
        f"Accuracy of B0: {b0[0]} % in Table 2, {table7['B0'][4]} % in Table 7. Table 7's compound row, "
        f"{table7['compound'][4]} %, equals that of B3 in the early version ({early['B3'][0]} %; Table 2: {b3[0]} %).",
        f"Accuracy of ResNet-50: {intro['ResNet-50']} % in the introduction, {table2['ResNet-50'][0]} % in Table 2; of "
        f"B4: {intro['EfficientNet-B4']} and {b4[0]} %.",
        f"Accuracy of NASNet-A: {rows('figure5')['NASNet-A'][0]} % in Figure 5, {table2['NASNet-A'][0]} % in Table 2.",
        f"Parameters of GPipe: {PRINTED['figure1']['GPipe']} in Figure 1 and Table 5, {table2['GPipe'][2]} in Table 2.",
        f"FLOPs of AmoebaNet-A and PNASNet: {amoeba[4]} and {pnas[4]} in Table 2, yet {amoeba[5]} and {pnas[5]} those "
        "of B4.",
        f"Table 2's caption says up to {caption} fewer FLOPs; a row of it says {most}.",
        f"Section 3.3 describes Figure 4 with r = {figure4['r_in_section_3_3']}; the figure has r = {figure4['r']} "
        f"({figure4['pixels']} pixels).",
    )
    return "\n".join(f"- {line}" for line in lines)


# Section 7: published, not run here.


def imagenet() -> str:
    """Table 2, a row a member, with what it was compared with."""
    found: list[list[str]] = []
    for name, (top1, top5, params, times, printed, fewer) in rows("table2").items():
        if name.startswith("EfficientNet"):
            found.append([name[-2:], f"{top1}", f"{top5}", params, printed, ""])
        else:
            ratios = f"{times} parameters" + (f", {fewer} FLOPs" if fewer else "")
            found[-1][-1] += f"{'; ' if found[-1][-1] else ''}{name} {top1} ({ratios})"
    heads = (
        "ImageNet",
        "top-1, %",
        "top-5, %",
        "parameters",
        "FLOPs",
        "compared with (top-1, %; times those of the B)",
    )
    return markdown(heads, found)


def transfer() -> str:
    """Table 5."""
    found = []
    for dataset, row in rows("table5").items():
        sides = (row[:6], row[6:])
        cells = [f"{one[0]} {one[1]} ({one[2] or 'not printed'})" for side in sides for one in (side[:3], side[3:])]
        found.append([dataset, *cells])
    return markdown(("", "public network", "EfficientNet", "best known", "EfficientNet"), found)


def gaps() -> str:
    """Tables 3 and 7: compound scaling against the best single dimension."""
    found = []
    for name, group in published_rows():
        base, *alone, compound = group
        best = max(alone, key=lambda row: row[-1])
        label = {"B0": "EfficientNet-B0"}.get(name, name)
        times = float(compound[-2][:-1]) / float(base[-2][:-1])
        dimension = max(zip(DIMENSIONS, best[1:4], strict=True), key=lambda pair: pair[1])[0]
        gap = f"{compound[-1] - best[-1]:+.1f}"
        found.append([label, f"×{times:.1f}", f"{base[-1]}", f"{best[-1]} ({dimension})", f"{compound[-1]}", gap])
    heads = ("", "printed FLOPs", "baseline", "best single dimension", "compound", "points")
    return markdown(heads, found)


def published_rows() -> Iterator[tuple[str, list[Any]]]:
    """Each network's rows of Tables 3 and 7: baseline, single dimensions, compound."""
    for name, group in groupby(PRINTED["table3"]["rows"], key=lambda row: row[0].split()[0]):
        yield name, list(group)
    yield "B0", PRINTED["table7"]["rows"]


# The page.


def fill(text: str, indent: str = "") -> str:
    """At the page's width, commands in one piece."""
    held = re.sub("`[^`]+`", lambda command: command[0].replace(" ", "\0"), text)
    lines = textwrap.fill(held, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")


def wrapped(text: str) -> str:
    """Sentences and lists at the page's width; tables, headings and commands as they are."""
    paragraphs = []
    for line in text.split("\n"):
        plain = not line.startswith(("|", "#", "    "))
        paragraphs.append(fill(line, "  " if line.startswith("- ") else "") if plain else line)
    return "\n".join(paragraphs)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "flops": flops,
    "squared": squared,
    "parts": parts,
    "design": design,
    "formula": formula,
    "phi": phi,
    "single": single,
    "inconsistencies": inconsistencies,
    "studies": lambda: tables(read_studies()),
    "conclusions": lambda: conclusions(read_studies()),
    "gaps": gaps,
    "imagenet": imagenet,
    "transfer": transfer,
}


def remade(page: str) -> tuple[str, list[str]]:
    """The page with every block made anew, and the names of those that differ.

    Raises `SystemExit` where a mark names no block, or a block has not one mark.
    """
    marks = [match[2] for match in MARK.finditer(page)]
    if sorted(marks) != sorted(BLOCKS):
        raise SystemExit(f"{PAGE}: has marks for {', '.join(sorted(marks))}; there are {', '.join(sorted(BLOCKS))}")
    differ = []

    def made(match: re.Match[str]) -> str:
        text = f"{match[1]}\n{wrapped(BLOCKS[match[2]]())}\n\n{match[3]}"
        if text != match[0]:
            differ.append(match[2])
        return text

    return MARK.sub(made, page), differ


def main() -> None:
    """Rewrites the page, or says what differs."""
    parser = argparse.ArgumentParser(description="Makes the tables and verdicts of docs/paper.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the page differs")
    asked = parser.parse_args()
    page, differ = remade(PAGE.read_text("utf-8"))
    if asked.check:
        sys.exit(f"{PAGE}: differs in {', '.join(differ)}; run python examples/paper_executed.py" if differ else 0)
    PAGE.write_text(page, "utf-8")
    print(f"made anew: {', '.join(differ) or 'nothing, all is as it was'}")


if __name__ == "__main__":
    main()
