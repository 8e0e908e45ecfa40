"""Whether maps explain the network or only the picture: they must not survive random weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from triscale.errors import UserError
from triscale.explaining.maps import Maps, class_activation_maps
from triscale.nn.network import Network, initialise

SEEDS = 5
SAME, ALIKE = 0.7, 0.4  # rank correlations from which maps count as the same, and as partly the same
BEYOND = 0.05  # by how much they must then be more alike than those of other pictures: few positions agree by chance
BATCH = 8
ROUNDING = 1e-6  # float32: values that differ by less, in shares of the largest, are one value

MapMaker = Callable[[Network, Tensor, Sequence[int]], Maps]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sanity:
    """How alike the maps of the network and of the same network with random weights are, over n pictures.

    correlation: Spearman's rank correlation over the positions of a map, without its sign, as a mean over pictures and
    seeds; low, high: the range of the seeds' means. signed: the mean with the sign. other: the same as correlation,
    but with the random network's map of *another* picture: what maps that share nothing but their size come to. flat:
    how many of the network's own maps hold one value; they have no ranks, so no figure counts them. NaN where a figure
    does not exist: every map is flat (one of one position is), one picture has no other.
    """

    correlation: float
    low: float
    high: float
    signed: float
    other: float
    seeds: int
    pictures: int
    flat: int = 0

    def __str__(self) -> str:
        if np.isnan(self.correlation):
            return f"no rank correlation ({_count(self.pictures, 'picture')}, {_count(self.seeds, 'seed')})"
        others = "" if np.isnan(self.other) else f"; with the random maps of other pictures {self.other:.2f}"
        flat = f"; {self.flat} of the maps hold one value and are not counted" if self.flat else ""
        return (
            f"rank correlation, without its sign, of the maps with those of random weights: {self.correlation:.2f} "
            f"({self.low:.2f} to {self.high:.2f} over {_count(self.seeds, 'seed')}, "
            f"{_count(self.pictures, 'picture')}){others}{flat}"
        )

    @property
    def explains_network(self) -> bool:
        """Whether the maps depend on what was learned: nothing in the verdict speaks against it."""
        return not (self._shows_nothing or self._same or self._alike)

    @property
    def verdict(self) -> str:
        """The plain sentence."""
        if self._shows_nothing:
            which = "the maps hold" if self.flat == self.pictures else f"{self.flat} of {self.pictures} maps hold"
            return f"{which} one value only: they show nothing that could be compared"
        if self._same:
            return "the maps stay the same with random weights: they explain the picture, not the network"
        if self._alike:
            return "the maps stay partly the same with random weights: trust them little"
        return "the maps do not survive random weights: they depend on what the network has learned"

    @property
    def _shows_nothing(self) -> bool:
        return 2 * self.flat > self.pictures or bool(np.isnan(self.correlation))

    @property
    def _same(self) -> bool:
        return self.correlation >= SAME

    @property
    def _alike(self) -> bool:
        return self.correlation >= ALIKE and not self.correlation <= self.other + BEYOND


def sanity_check(
    network: Network,
    x: Tensor,
    classes: Sequence[int],
    *,
    maps: MapMaker = class_activation_maps,
    seeds: int = SEEDS,
    progress: Callable[[int, int], None] | None = None,
) -> Sanity:
    """The model parameter randomization test (Adebayo et al., arXiv 1810.03292, section 3), all layers at once.

    x: (n, channels, h, w), preprocessed. classes: the one that is explained of each picture. maps: what makes the maps
    that are to be tested. The network is left as it was. Raises `UserError` for no pictures or no seeds.
    """
    if not len(x) or seeds < 1:
        raise UserError(f"sanity_check: {len(x)} pictures and {seeds} seeds; at least one of each is needed")
    report = progress or (lambda done, total: None)
    learned = _maps(network, x, classes, maps)
    flat = [_is_flat(one) for one in learned]
    report(1, seeds + 1)
    scrambled = copy.deepcopy(network)
    own: list[list[float]] = []
    others: list[float] = []
    for seed in range(seeds):
        initialise(scrambled, seed)
        random = _maps(scrambled, x, classes, maps)
        own.append(_correlations(learned, random, flat))
        if len(x) > 1:
            others += _correlations(learned, np.roll(random, 1, 0), flat)
        report(seed + 2, seeds + 1)
    means = [_mean(np.abs(each)) for each in own]
    means = [mean for mean in means if not np.isnan(mean)] or [float("nan")]
    return Sanity(
        correlation=_mean(np.abs(np.concatenate(own))),
        low=min(means),
        high=max(means),
        signed=_mean(np.concatenate(own)),
        other=_mean(np.abs(others)),
        seeds=seeds,
        pictures=len(x),
        flat=sum(flat),
    )


def rank_correlation(one: npt.ArrayLike, two: npt.ArrayLike) -> float:
    """Spearman's, over all positions; equal values share their rank.

    Where one of the two is constant nothing of the other is found in it: 0. Where both are: NaN.
    """
    first, second = _ranks(one), _ranks(two)
    norms = np.linalg.norm(first), np.linalg.norm(second)
    if min(norms) == 0:
        return 0.0 if max(norms) > 0 else float("nan")
    return float(first @ second / (norms[0] * norms[1]))


def _correlations(learned: Values, random: Values, flat: Sequence[bool]) -> list[float]:
    """Of the learned maps that are not flat: the others would count as unlike everything, and so as depending on it."""
    pairs = zip(learned, random, flat, strict=True)
    return [rank_correlation(one, two) for one, two, nothing in pairs if not nothing]


def _is_flat(values: Values) -> bool:
    return bool(np.ptp(values) <= ROUNDING * np.abs(values).max())


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _ranks(values: npt.ArrayLike) -> Values:
    """Centred on 0."""
    _, places, counts = np.unique(np.asarray(values).ravel(), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places.ravel()]
    return np.asarray(ranks - ranks.mean(), np.float64)


def _mean(values: npt.ArrayLike) -> float:
    """Over those that exist."""
    found = np.asarray(values, np.float64)
    found = found[~np.isnan(found)]
    return float(found.mean()) if found.size else float("nan")


def _maps(network: Network, x: Tensor, classes: Sequence[int], maps: MapMaker) -> Values:
    """[n, h, w], a few pictures at a time."""
    device = next(network.parameters()).device
    found = []
    for start in range(0, len(x), BATCH):
        some = slice(start, start + BATCH)
        found.append(maps(network, x[some].to(device), classes[some]).values.detach().double().cpu().numpy())
    return np.concatenate(found)
