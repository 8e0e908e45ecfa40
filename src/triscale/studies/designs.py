"""Designs: which mixes of depth, width and resolution are trained. By name, or as JSON that people write."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from triscale.errors import UserError
from triscale.plain import from_plain, read_json, read_small, short
from triscale.scaling import Coefficients, Exponents
from triscale.scaling.rules import PAPER, Power

SCHEMA = 1
FEWEST_ARMS, FEWEST_SEEDS = 5, 3
COMPOUND, FITTED = "compound", "fitted"
_NAMES = 40  # letters of an arm's name


@dataclass(frozen=True, slots=True)
class Arm:
    """A mix under a name: its shares of the cost factor."""

    name: str
    shares: Exponents

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= _NAMES and self.name.isprintable()) or "/" in self.name or "\\" in self.name:
            raise UserError(f"arm {short(self.name)}: a name of 1 to {_NAMES} letters without slashes")

    @property
    def rule(self) -> Power:
        """The rule that grows a baseline by this mix."""
        return Power(self.name, self.shares.coefficients())

    @property
    def point(self) -> tuple[float, float, float]:
        """(depth, width, resolution)."""
        return self.shares.depth, self.shares.width, self.shares.resolution

    @property
    def single(self) -> bool:
        """Whether it moves one dimension alone."""
        return max(self.point) > 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Design:
    """Arms under a name. Raises `UserError` for two of one name or one mix."""

    name: str
    about: str
    arms: tuple[Arm, ...]

    def __post_init__(self) -> None:
        for index, arm in enumerate(self.arms):
            for other in self.arms[:index]:
                if other.name == arm.name:
                    raise UserError(f"design {self.name}: two arms are called {arm.name!r}; give each its own name")
                if _same(arm, other):
                    raise UserError(f"design {self.name}: arms {other.name!r} and {arm.name!r} are the same mix")

    def with_arms(self, arms: tuple[Arm, ...]) -> "Design":
        """The same and some more; those that it has already are left out."""
        known = {arm.name: arm for arm in self.arms}
        more = tuple(arm for arm in arms if known.get(arm.name) != arm)
        return Design(self.name, self.about, self.arms + more)


def _same(arm: Arm, other: Arm) -> bool:
    return all(abs(a - b) < 1e-9 for a, b in zip(arm.point, other.point, strict=True))


def _paper_grid() -> tuple[Arm, ...]:
    """Step 1 of the paper (section 4): φ = 1, α, β, γ ≥ 1 with α·β²·γ² ≈ 2. Its grid and tolerance were not
    published; here steps of 0.1 (γ: 0.05) whose product is within 4 % of 2, and the published triple, of 1.92."""
    arms = [Arm(COMPOUND, PAPER.exponents())]
    for a, b, c in product(range(100, 201, 10), range(100, 151, 10), range(100, 146, 5)):
        alpha, beta, gamma = a / 100, b / 100, c / 100
        if abs(alpha * beta**2 * gamma**2 - 2) <= 0.08 and (alpha, beta, gamma) != (1.2, 1.1, 1.15):
            arms.append(Arm(f"{alpha:g} {beta:g} {gamma:g}", Coefficients(alpha, beta, gamma).exponents()))
    return tuple(arms)


FIVE = Design(
    "five",
    "each dimension alone, equal shares, and the paper's mix",
    (
        Arm("depth", Exponents(1, 0, 0)),
        Arm("width", Exponents(0, 1, 0)),
        Arm("resolution", Exponents(0, 0, 1)),
        Arm("uniform", Exponents(1 / 3, 1 / 3, 1 / 3)),
        Arm(COMPOUND, PAPER.exponents()),
    ),
)
TEN = Design(
    "ten",
    "those five, the middles of the edges, the fast rule's mix, and one that leans to depth",
    (
        *FIVE.arms,
        Arm("depth+width", Exponents(0.5, 0.5, 0)),
        Arm("depth+resolution", Exponents(0.5, 0, 0.5)),
        Arm("width+resolution", Exponents(0, 0.5, 0.5)),
        Arm("fast", Exponents(0.1, 0.8, 0.1)),
        Arm("deep", Exponents(0.6, 0.2, 0.2)),
    ),
)
DESIGNS = {
    "five": FIVE,
    "ten": TEN,
    "paper": Design("paper", "step 1 of the paper: a grid of α, β, γ for twice the MACs", _paper_grid()),
}


def find_design(name: str | Path) -> Design:
    """The design that a name or a JSON file means. Raises `UserError`."""
    if str(name) in DESIGNS:
        return DESIGNS[str(name)]
    path = Path(name)
    if path.suffix != ".json" and not path.is_file():
        raise UserError(f"--design {str(name)!r}: neither a JSON file nor one of {', '.join(DESIGNS)}")
    design = read_design(path, "--design")
    if len(design.arms) < FEWEST_ARMS:
        raise UserError(
            f"--design {path}: {len(design.arms)} arms are no study; name at least {FEWEST_ARMS}, or add yours to a "
            "design of the house with --arms"
        )
    return design


def read_design(path: Path, option: str) -> Design:
    """A design from a JSON file: {"schema": 1, "name": …, "arms": [{"name": …, "depth": .2, "width": .5, "resolution":
    .3} or {"name": …, "alpha": 1.2, "beta": 1.1, "gamma": 1.15}, …]}. Raises `UserError` naming what is wrong."""
    values = read_json(read_small(path, option, "design"), str(path))
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise UserError(f'{path}: a design is an object that starts with "schema": {SCHEMA}')
    for key in values:
        if key not in ("schema", "name", "about", "arms"):
            raise UserError(f"{path}: unknown key {key!r}; the keys are schema, name, about, arms")
    name, about, arms = values.get("name", path.stem), values.get("about", ""), values.get("arms")
    if not isinstance(name, str) or not isinstance(about, str):
        raise UserError(f'{path}: "name" and "about" are texts')
    if not isinstance(arms, list) or not arms:
        raise UserError(f'{path}: "arms" is a list of mixes, not {short(arms)}')
    found = tuple(_arm(item, f"{path}: arms.{place}") for place, item in enumerate(arms))
    try:
        return Design(name, about, found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _arm(item: object, where: str) -> Arm:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise UserError(f'{where}: an arm has a "name" and a mix, not {short(item)}')
    mix = {key: value for key, value in item.items() if key != "name"}
    try:
        return Arm(item["name"], _shares(mix, where))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _shares(mix: dict[str, object], where: str) -> Exponents:
    if "alpha" in mix:
        return from_plain(Coefficients, mix, where).exponents()
    return from_plain(Exponents, mix, where)


def check_names(design: Design) -> Design:
    """The design. Raises `UserError` for an arm by whose name studies know another mix, of which pages would tell."""
    own = {COMPOUND: "the paper's mix", FITTED: "the optimum that they fit"}
    own |= {name: f"{name} alone" for name in ("depth", "width", "resolution")}
    known = {arm.name: arm for arm in FIVE.arms}
    for arm in design.arms:
        if arm.name in own and not (arm.name in known and _same(arm, known[arm.name])):
            raise UserError(
                f"design {design.name}: an arm of {', '.join(f'{share:.0%}' for share in arm.point)} cannot be called "
                f"{arm.name!r}, which studies call {own[arm.name]}; give it another name"
            )
    return design


def to_json(design: Design) -> str:
    """The design as a file."""
    return json.dumps({"schema": SCHEMA, **design_values(design)}, indent=2, ensure_ascii=False) + "\n"


def design_values(design: Design) -> dict[str, object]:
    """Plain values of it."""
    return {"name": design.name, "about": design.about, "arms": list(_arms(design))}


def _arms(design: Design) -> Iterator[dict[str, object]]:
    for arm in design.arms:
        yield {
            "name": arm.name,
            "depth": arm.shares.depth,
            "width": arm.shares.width,
            "resolution": arm.shares.resolution,
        }
