"""The surface of a study: its optimum, and how often the set of what may be the best mix holds the best one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize

from triscale.errors import UserError
from triscale.scaling.rules import PAPER
from triscale.studies.comparing import noise
from triscale.studies.surface import Surface, Values, fit_surface, simplex, terms

_PAPER = PAPER.exponents()
CORNERS = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
MIDDLES = [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
CENTRE, PUBLISHED = (1 / 3, 1 / 3, 1 / 3), (_PAPER.depth, _PAPER.width, _PAPER.resolution)
TEN = np.array([*CORNERS, *MIDDLES, CENTRE, PUBLISHED, (0.1, 0.8, 0.1), (0.6, 0.2, 0.2)])
FIVE = np.array([*CORNERS, CENTRE, PUBLISHED])
OBLONG = np.array([[1, 0.8, 0], [0.8, 1.5, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Truth:
    """A quadratic surface that falls off around `top`, which may lie outside the triangle."""

    top: tuple[float, float, float]
    shape: Values | None = None

    def __call__(self, points: Values) -> Values:
        off = points - np.array(self.top)
        shape = np.eye(3) if self.shape is None else self.shape
        return 0.8 - np.einsum("mi,ij,mj->m", off, shape, off)

    def best(self, steps: int) -> Values:
        grid = simplex(steps)
        best: Values = grid[np.argmax(self(grid))]
        return best

    def studies(self, design: Values, snr: float, repeats: int, seeds: int = 3) -> list[Values]:
        """Accuracies whose noise is 1/snr of the surface's range over the arms; seeds differ as much."""
        rng, means = np.random.default_rng(7), self(design)
        sigma = np.ptp(means) / snr
        draw: Callable[..., Values] = rng.normal
        return [
            means[:, None] + sigma * draw(size=(len(means), seeds)) + sigma * draw(size=seeds) for _ in range(repeats)
        ]


INSIDE, OBLIQUE = Truth((0.3, 0.3, 0.4)), Truth((0.25, 0.4, 0.35), OBLONG)
NEAR_EDGE, LEVEL_AT_EDGE = Truth((0.45, 0.05, 0.5)), Truth((0.5, 0, 0.5))
AT_EDGE, STEEP_EDGE = Truth((0.2, 0.95, -0.15)), Truth((0.75, -0.5, 0.75))
NEAR_CORNER, CORNER = Truth((0.9, 0.05, 0.05)), Truth((1.2, -0.1, -0.1))
TRUTHS = {
    "inside": INSIDE,
    "oblique": OBLIQUE,
    "near an edge": NEAR_EDGE,
    "level at an edge": LEVEL_AT_EDGE,
    "at an edge": AT_EDGE,
    "at a steep edge": STEEP_EDGE,
    "near a corner": NEAR_CORNER,
    "a corner": CORNER,
}


def holds(found: Values, point: Values) -> bool:
    return bool(np.isclose(found, point).all(1).any())


@pytest.mark.parametrize(
    ("truth", "design", "snr"),
    [
        ("inside", TEN, 2),
        ("oblique", TEN, 4),
        ("oblique", TEN, 16),
        ("near an edge", TEN, 4),
        ("at an edge", TEN, 4),
        ("at an edge", TEN, 8),
        ("level at an edge", TEN, 2),
        ("inside", FIVE, 2),
        ("near an edge", FIVE, 4),
        ("at an edge", FIVE, 8),
    ],
)
def test_the_set_holds_the_true_best_mix_in_90_to_99_of_100_studies(truth: str, design: Values, snr: float) -> None:
    best = TRUTHS[truth].best(10)
    studies = TRUTHS[truth].studies(design, snr, 200)
    covered = np.mean([holds(fit_surface(design, y).confidence_set(steps=10), best) for y in studies])
    assert 0.90 <= covered <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("snr", [2, 4, 8, 16])
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("design", [TEN, FIVE], ids=["ten", "five"])
def test_the_set_holds_the_true_best_mix_wherever_it_lies(design: Values, truth: str, snr: float) -> None:
    if len(design) == 5 and truth == "oblique":
        pytest.skip("no surface of the common model")
    best = TRUTHS[truth].best(20)
    studies = TRUTHS[truth].studies(design, snr, 1000)
    covered = np.mean([fit_surface(design, y).compatible(best)[0] >= 0.05 for y in studies])
    assert covered >= 0.93
    if snr <= 4 and truth != "a corner":  # beyond, the grid is coarser than what the data see
        assert covered <= 0.99


@pytest.mark.parametrize("snr", [4, 8, 16])
@pytest.mark.parametrize("truth", TRUTHS)
def test_taking_the_fitted_best_loses_at_most_a_third_of_what_a_random_arm_loses(truth: str, snr: float) -> None:
    true, highest = TRUTHS[truth], TRUTHS[truth](simplex(200)).max()
    for design in (TEN, FIVE) if truth != "oblique" else (TEN,):
        lost = [highest - true(fit_surface(design, y).optimum()[None])[0] for y in true.studies(design, snr, 100)]
        assert np.mean(lost) <= (highest - true(design)).mean() / 3


@pytest.mark.parametrize("truth", [INSIDE, OBLIQUE, NEAR_EDGE, LEVEL_AT_EDGE, NEAR_CORNER])
def test_without_noise_the_optimum_is_exact_and_the_set_one_point(truth: Truth) -> None:
    (y,) = truth.studies(TEN, 1e7, 1)
    surface = fit_surface(TEN, y)
    assert surface.optimum() == pytest.approx(truth.top, abs=1e-5)
    assert surface.confidence_set() == pytest.approx(truth.best(20)[None])


@pytest.mark.parametrize("design", [TEN, FIVE], ids=["ten", "five"])
def test_seeds_that_agree_to_the_bit_are_no_error(design: Values) -> None:
    surface = fit_surface(design, np.repeat(INSIDE(design)[:, None], 3, axis=1))
    assert surface.optimum() == pytest.approx(INSIDE.top)
    assert len(surface.confidence_set()) == 1
    flat = fit_surface(design, np.full((len(design), 3), 0.7))
    assert flat.predict(CENTRE)[0] == pytest.approx(0.7)
    assert flat.lack_of_fit is not None
    assert flat.lack_of_fit > 0.5


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_the_optimum_is_the_highest_point_of_the_triangle(coefficients: list[float]) -> None:
    some = fit_surface(TEN, INSIDE.studies(TEN, 4, 1)[0])
    b = np.array(coefficients)
    surface = Surface("quadratic", some.points, b, some.covariance, some.sigma, some.df, None)
    found, steps = surface.optimum(), 60
    highest = surface.predict(simplex(steps))[0].max()
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    # A level point's neighbour on the grid is lower by the curvature alone; at most two steps lie between.
    assert highest - 1e-12 <= surface.predict(found)[0][0] <= highest + 4 * np.abs(b[3:]).max() / steps**2 + 1e-12


@pytest.mark.parametrize("design", [TEN, FIVE], ids=["ten", "five"])
def test_neither_the_order_of_arms_and_seeds_nor_what_a_seed_adds_to_all_changes_the_answer(design: Values) -> None:
    (y,) = NEAR_EDGE.studies(design, 4, 1)
    rng = np.random.default_rng(0)
    arms = rng.permutation(len(design))
    one = fit_surface(design, y)
    shuffled = fit_surface(design[arms], y[arms][:, rng.permutation(3)])
    shifted = fit_surface(design, y + np.array([0.1, -0.3, 0.05]))
    for other in (shuffled, shifted):
        assert other.sigma == pytest.approx(one.sigma)
        assert other.lack_of_fit == pytest.approx(one.lack_of_fit)
        assert other.covariance == pytest.approx(one.covariance)
        assert other.optimum() == pytest.approx(one.optimum())
        assert other.compatible(simplex(10)) == pytest.approx(one.compatible(simplex(10)), abs=1e-6)
    assert shuffled.coefficients == pytest.approx(one.coefficients)
    assert shifted.predict(design)[0] == pytest.approx(one.predict(design)[0] - 0.05)


@pytest.mark.parametrize("design", [TEN, FIVE], ids=["ten", "five"])
def test_the_fit_is_least_squares_with_an_effect_for_every_seed(design: Values) -> None:
    (y,) = INSIDE.studies(design, 4, 1, seeds=4)
    surface = fit_surface(design, y)
    x = terms(design, surface.model)
    effects = np.vstack([np.eye(3), -np.ones(3)])  # they sum to 0
    everything = np.vstack([np.hstack([x, np.tile(effect, (len(x), 1))]) for effect in effects])
    solution = np.linalg.lstsq(everything, y.T.ravel())[0]
    covariance = noise(y)[0] ** 2 * np.linalg.inv(everything.T @ everything)
    m = x.shape[1]
    assert surface.coefficients == pytest.approx(solution[:m])
    assert surface.covariance == pytest.approx(covariance[:m, :m])
    value, error = surface.predict(design)
    assert value == pytest.approx(x @ solution[:m])
    assert error == pytest.approx(np.sqrt(np.diag(x @ covariance[:m, :m] @ x.T)))


def test_an_interval_of_the_prediction_holds_the_truth_as_often_as_it_says() -> None:
    rng, points, within = np.random.default_rng(5), np.array([CENTRE, CORNERS[0], (0.7, 0.1, 0.2)]), []
    for _ in range(400):
        surface = fit_surface(TEN, INSIDE(TEN)[:, None] + 0.2 * rng.normal(size=(10, 3)))
        value, error = surface.predict(points)
        within.append(np.abs(value - INSIDE(points)) <= stats.t.isf(0.025, surface.df) * error)
    assert (np.abs(np.mean(within, axis=0) - 0.95) < 0.03).all()


@pytest.mark.parametrize("design", [TEN, FIVE], ids=["ten", "five"])
def test_lack_of_fit_is_seldom_claimed_of_a_quadratic_and_seen_in_another_surface(design: Values) -> None:
    p = [fit_surface(design, y).lack_of_fit for y in INSIDE.studies(design, 4, 500)]
    assert 0.02 <= np.mean([one is not None and one < 0.05 for one in p]) <= 0.08
    bumpy = INSIDE.studies(design, 16, 1)[0]
    bumpy[len(design) - 2] += 0.5
    found = fit_surface(design, bumpy).lack_of_fit
    assert found is not None
    assert found < 0.001
    six = np.array([*CORNERS, *MIDDLES])
    assert fit_surface(six, INSIDE.studies(six, 4, 1)[0]).lack_of_fit is None


@pytest.mark.parametrize("design", [TEN, FIVE], ids=["ten", "five"])
def test_a_point_is_as_far_from_the_data_as_the_nearest_surface_that_is_highest_there(design: Values) -> None:
    surface = fit_surface(design, INSIDE.studies(design, 3, 1)[0])
    grid = simplex(5)
    rivals, inverse = terms(grid, surface.model), np.linalg.inv(surface.covariance)

    def distance(b: Values) -> float:
        return float((b - surface.coefficients) @ inverse @ (b - surface.coefficients))

    def slope(b: Values) -> Values:
        return 2 * inverse @ (b - surface.coefficients)

    for point, p in zip(rivals, surface.compatible(grid, steps=5), strict=True):
        rows = point - rivals
        under = {"type": "ineq", "fun": lambda b, rows=rows: rows @ b, "jac": lambda b, rows=rows: rows}
        start = np.zeros(len(surface.coefficients))
        nearest = minimize(distance, start, jac=slope, constraints=under, method="SLSQP", tol=1e-12)
        # As many independent rivals are as high as the point as there are directions that the surface was held off in.
        held = np.linalg.matrix_rank(rows[np.abs(rows @ nearest.x) < 1e-6], tol=1e-6)
        expected = 1.0 if nearest.fun < 1e-6 else stats.f.sf(nearest.fun / held, held, surface.df)
        assert p == pytest.approx(expected, abs=1e-4)


@given(
    st.sampled_from([TEN, FIVE]),
    st.integers(2, 4),
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 20, 360, 10_000]),
)
def test_any_accuracies_have_a_set_around_the_fitted_best_that_grows_with_its_level(
    design: Values, seeds: int, seed: int, images: int
) -> None:
    y = np.random.default_rng(seed).integers(0, images + 1, (len(design), seeds)) / images
    surface = fit_surface(design, y)
    grid = simplex(8)
    wide, narrow = surface.confidence_set(0.99, steps=8), surface.confidence_set(0.8, steps=8)
    nearest = grid[np.argmin(((grid - surface.optimum()) ** 2).sum(1))]
    assert holds(narrow, nearest)
    assert all(holds(grid, point) for point in wide)
    assert all(holds(wide, point) for point in narrow)
    p = surface.compatible(grid, steps=8)
    assert ((p >= 0) & (p <= 1)).all()
    assert p.max() == 1


def test_the_model_is_the_one_that_the_arms_identify() -> None:
    assert fit_surface(TEN, INSIDE.studies(TEN, 4, 1)[0]).model == "quadratic"
    on_a_line = np.array([*CORNERS, CENTRE, CENTRE, CENTRE, PUBLISHED])  # seven, five of which differ
    for design in (FIVE, FIVE[:4], on_a_line):
        surface = fit_surface(design, INSIDE.studies(design, 4, 1)[0])
        assert surface.model == "common"
        assert surface.coefficients.shape == (4,)


@pytest.mark.parametrize(
    ("points", "shape", "says"),
    [
        (FIVE[:3], (3, 3), "3 arms do not tell"),
        (np.array([CENTRE] * 8), (8, 3), "8 arms do not tell"),
        (np.array([(t, 1 - t, 0) for t in np.linspace(0, 1, 7)]), (7, 3), "at least four"),
        (FIVE, (5, 1), "two seeds"),
        (FIVE, (4, 3), "one point an arm"),
        (FIVE[:, :2], (5, 3), "no mixes"),
        (FIVE + 0.1, (5, 3), "sum to 1"),
        (np.array([*FIVE[:4], (1.5, -0.5, 0)]), (5, 3), "sum to 1"),
        (np.array([*FIVE[:4], (np.nan, 0.5, 0.5)]), (5, 3), "sum to 1"),
    ],
)
def test_arms_that_identify_no_surface_are_refused_in_words(points: Values, shape: tuple[int, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        fit_surface(points, np.zeros(shape))
