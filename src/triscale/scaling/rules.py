"""Rules: ways to turn a cost factor into depth, width and resolution."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from triscale.errors import UserError
from triscale.plain import read_json
from triscale.scaling.multipliers import Coefficients, Exponents, Multipliers


class Rule(Protocol):
    """What the solver needs of a rule. `moves_width`: whether channels may be trimmed to meet a budget."""

    @property
    def name(self) -> str:
        """As people call it."""

    @property
    def moves_width(self) -> bool:
        """Whether the width changes at all."""

    @property
    def promise(self) -> float:
        """The factor in MACs that one step of φ promises."""

    def at_factor(self, factor: float) -> Multipliers:
        """The multipliers for a nominal factor in MACs. Raises `UserError` where the rule has none."""

    def at_phi(self, phi: float) -> Multipliers:
        """The multipliers of step φ."""


@dataclass(frozen=True, slots=True)
class Power:
    """d, w and r are powers of the factor: the paper's compound rule and every rule of fixed shares."""

    name: str
    coefficients: Coefficients
    source: str = ""
    promised: float | None = None

    @property
    def promise(self) -> float:
        """What was published for a step of φ (the paper: 2, though its coefficients give 1.920), or α·β²·γ²."""
        return self.coefficients.product if self.promised is None else self.promised

    @property
    def exponents(self) -> Exponents:
        """The shares of depth, width and resolution."""
        return self.coefficients.exponents()

    @property
    def moves_width(self) -> bool:
        """Whether β is above 1."""
        return self.coefficients.beta > 1

    def at_factor(self, factor: float) -> Multipliers:
        """d·w²·r² = factor, exactly."""
        return self.exponents.at(factor)

    def at_phi(self, phi: float) -> Multipliers:
        """α^φ, β^φ, γ^φ with the coefficients as given."""
        return self.coefficients.at(phi)


@dataclass(frozen=True, slots=True)
class Tiny:
    """For factors below 1: keep pixels longer than the compound rule does, then depth, and pay with width.

    Depth and resolution follow the published TinyNets C, D and E (Han et al. 2020, arXiv 2010.14819, Table 1),
    interpolated geometrically over the nominal factor from the baseline on and continued beyond E; width makes up the
    rest, so the factor is exact. TinyNets A and B deepen the network as they shrink it: the official rounding, which
    rounds repeats up, would make those larger than the baseline, and they are left out.
    """

    name: str = "tiny"
    source: str = "TinyNets C, D, E: Han et al. 2020, arXiv 2010.14819"

    # (depth, width, pixels of 224) of the published networks, the baseline first
    _POINTS = ((1.0, 1.0, 224), (0.85, 0.54, 184), (0.695, 0.54, 152), (0.6, 0.51, 106))

    @property
    def promise(self) -> float:
        """φ counts doublings."""
        return 2.0

    @property
    def moves_width(self) -> bool:
        """Always."""
        return True

    def at_factor(self, factor: float) -> Multipliers:
        """Raises `UserError` above 1: this rule only shrinks."""
        if factor > 1 + 1e-12:
            raise UserError(f"rule tiny only shrinks; a factor of {factor:.4g} grows: take compound, fast or width")
        points = [(math.log(d * w * w * (p / 224) ** 2), math.log(d), math.log(p / 224)) for d, w, p in self._POINTS]
        at = math.log(min(factor, 1.0))
        upper, lower = next(((a, b) for a, b in pairwise(points) if at >= b[0]), (points[-2], points[-1]))
        share = (at - upper[0]) / (lower[0] - upper[0])
        depth = math.exp(upper[1] + share * (lower[1] - upper[1]))
        resolution = math.exp(upper[2] + share * (lower[2] - upper[2]))
        return Multipliers(depth, math.sqrt(factor / (depth * resolution**2)), resolution)

    def at_phi(self, phi: float) -> Multipliers:
        """The multipliers for the factor 2^φ."""
        return self.at_factor(2.0**phi)


@dataclass(frozen=True, slots=True)
class Capped:
    """Another rule with a most that it may multiply the resolution by, as where images have no more pixels to show.

    Until there it is the rule itself; beyond, what is left of the factor goes to depth and width in the rule's own
    proportion (one that moves neither: in that of `slim`), so that the factor stays exact. Raises `UserError` for a
    most below 1.
    """

    rule: Power
    most: float

    def __post_init__(self) -> None:
        if not self.most >= 1:
            raise UserError(f"a resolution of at most {self.most:g} times the baseline's; a cap is at least 1")

    @property
    def name(self) -> str:
        """The rule's."""
        return self.rule.name

    @property
    def moves_width(self) -> bool:
        """Always, at some factor."""
        return True

    @property
    def promise(self) -> float:
        """The rule's."""
        return self.rule.promise

    def at_factor(self, factor: float) -> Multipliers:
        """d·w²·r² = factor, exactly, and r at most `most`."""
        asked = self.rule.at_factor(factor)
        if asked.resolution <= self.most:
            return asked
        shares = self.rule.exponents
        if shares.depth + shares.width == 0:
            shares = SLIM.exponents
        left, both = factor / self.most**2, shares.depth + shares.width
        return Multipliers(left ** (shares.depth / both), left ** (shares.width / both / 2), self.most)

    def at_phi(self, phi: float) -> Multipliers:
        """The multipliers for the factor that the rule gives at φ."""
        return self.at_factor(self.rule.at_phi(phi).factor)


PAPER = Coefficients(1.2, 1.1, 1.15)


def _shares(name: str, depth: float, width: float, resolution: float, source: str) -> Power:
    return Power(name, Exponents(depth, width, resolution).coefficients(), source)


SLIM = _shares("slim", 0.2, 0.8, 0, "depth and width; every pixel stays: for images that have few")
RULES: Mapping[str, Rule] = {
    "compound": Power("compound", PAPER, "EfficientNet, arXiv 1905.11946, section 4", promised=2.0),
    "uniform": _shares("uniform", 1 / 3, 1 / 3, 1 / 3, "equal shares of the factor"),
    "fast": _shares("fast", 0.1, 0.8, 0.1, "dWr, Dollár et al. 2021, arXiv 2103.06877, section 4"),
    "depth": _shares("depth", 1, 0, 0, "depth alone"),
    "width": _shares("width", 0, 1, 0, "width alone"),
    "resolution": _shares("resolution", 0, 0, 1, "resolution alone"),
    "slim": SLIM,
    "tiny": Tiny(),
}


def find_rule(rule: "str | Rule | Exponents | Coefficients") -> Rule:
    """The rule of that name, of a coefficients file, of three shares such as ``0.2,0.5,0.3``, or the rule itself.

    A coefficients file is JSON with `alpha`, `beta`, `gamma`. Raises `UserError` naming what there is.
    """
    if isinstance(rule, Exponents):
        return Power("exponents", rule.coefficients())
    if isinstance(rule, Coefficients):
        return Power("coefficients", rule)
    if not isinstance(rule, str):
        return rule
    if rule in RULES:
        return RULES[rule]
    if rule.count(",") == 2:
        try:
            depth, width, resolution = (float(share) for share in rule.split(","))
        except ValueError:
            raise UserError(f"rule {rule!r}: three shares are numbers, such as 0.2,0.5,0.3") from None
        return Power(rule, Exponents(depth, width, resolution).coefficients())
    path = Path(rule)
    try:
        is_file = path.is_file()
    except OSError:  # a name too long for a file, or a folder that may not be entered
        is_file = False
    if path.suffix == ".json" or is_file:
        return Power(path.stem, read_coefficients(path), str(path))
    raise UserError(
        f"rule {rule!r} is not known; take {', '.join(RULES)}, a coefficients file (JSON with alpha, beta, gamma), "
        "or the shares of depth, width and resolution such as 0.2,0.5,0.3"
    )


def read_coefficients(path: Path) -> Coefficients:
    """α, β, γ from a JSON file; other keys of the file are left alone. Raises `UserError` naming the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; name a coefficients file that can be read") from None
    except ValueError as error:  # a name with a null character
        raise UserError(f"{str(path)!r}: {error}; name a coefficients file that can be read") from None
    values = read_json(text, str(path))
    found = [values.get(key) if isinstance(values, dict) else None for key in ("alpha", "beta", "gamma")]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        raise UserError(f'{path}: a coefficients file has the numbers "alpha", "beta" and "gamma"')
    try:
        return Coefficients(*map(float, found))  # type: ignore[arg-type]  # checked above
    except OverflowError:
        raise UserError(f"{path}: a coefficient too large for a number") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
