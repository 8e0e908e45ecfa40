"""The accuracy over all mixes of depth, width and resolution, and where it is highest.

A mix is a point of the triangle: the shares of depth, width and resolution in a cost factor (`Exponents`), sum 1. The
surface is a quadratic polynomial in Scheffé's form (1958, J. R. Stat. Soc. B 20), which needs no constant there.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats  # type: ignore[import-untyped]

from triscale.errors import UserError
from triscale.studies.comparing import complete, noise

Values = npt.NDArray[np.float64]

# quadratic: b_d·d + b_w·w + b_r·r + b_dw·d·w + b_dr·d·r + b_wr·w·r. common: one coefficient for the three products.
Model = Literal["quadratic", "common"]

_PAIRS = tuple(combinations(range(3), 2))
_FACES = tuple(face for size in (1, 2, 3) for face in combinations(range(3), size))
# Beyond it the third digit of an arm's shares decides what the surface is.
_CONDITION = 1e3


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface. Its level is that of the seeds of the study; its shape does not depend on them.

    points: float64 [arms, 3]. coefficients: float64 [terms], in the order of the model's terms (6 or 4). covariance:
    theirs, float64 [terms, terms]. sigma: the noise of one run, with df degrees of freedom (`comparing.noise`).
    lack_of_fit: how likely means so far off the surface are by noise alone (F test); None where there are no more arms
    than terms.
    """

    model: Model
    points: Values
    coefficients: Values
    covariance: Values
    sigma: float
    df: int
    lack_of_fit: float | None

    def predict(self, points: Values) -> tuple[Values, Values]:
        """(accuracy, its standard error) at points [m, 3], or at one point [3]: float64 [m] each."""
        x = terms(np.atleast_2d(points), self.model)
        return x @ self.coefficients, np.sqrt(np.einsum("mi,ij,mj->m", x, self.covariance, x))

    def optimum(self) -> Values:
        """The mix where the surface is highest, float64 [3], exactly.

        A quadratic's maximum over the triangle is the stationary point of the inside, of an edge, or a corner; where
        a face has a whole line of them, or none, one of its own edges holds the maximum as well.
        """
        linear, blending = self.coefficients[:3], np.zeros((3, 3))
        for pair, value in zip(_PAIRS, np.broadcast_to(self.coefficients[3:], 3), strict=True):
            blending[pair] = blending[pair[::-1]] = value
        found = []
        for face in map(list, _FACES):
            shares = _stationary(linear[face], blending[np.ix_(face, face)])
            if shares is not None and (shares >= 0).all():
                found.append(np.zeros(3))
                found[-1][face] = shares
        return found[int(np.argmax(self.predict(np.array(found))[0]))]

    def compatible(self, points: Values, steps: int = 20) -> Values:
        """How well the data bear that the highest point of the true surface is each of points [m, 3]: p values [m].

        Of the surfaces that are nowhere on the grid of 1/steps higher than at the point, the likeliest is found: in
        coordinates where the coefficients' errors are equal and independent, the projection onto a polyhedral cone. The
        squared distance, over the number k of rivals that hold it off, is compared with F(k, df). This is valid for
        every number of arms and seeds and wherever the maximum lies, at an edge or on a ridge too (Al Mohamad, van
        Zwet, Cator and Goeman 2018, arXiv 1806.01325; F for χ² since sigma is estimated).
        """
        root = np.linalg.cholesky(self.covariance)
        # Nothing depends on the level: without it the digits are left to the shape.
        shape = np.concatenate([self.coefficients[:3] - self.coefficients[:3].mean(), self.coefficients[3:]])
        z = np.linalg.solve(root, shape)
        rivals = terms(simplex(steps), self.model) @ root
        mine = terms(np.atleast_2d(points), self.model) @ root
        squared, held = np.array([_outside(z, one - rivals) for one in mine]).T
        fewest = np.maximum(held, 1)
        p: Values = np.where(held > 0, stats.f.sf(squared / fewest, fewest, self.df), 1.0)
        return p

    def confidence_set(self, level: float = 0.95, steps: int = 20) -> Values:
        """The mixes on the grid of 1/steps that may be the best one, float64 [m, 3], as `compatible` judges; the one
        nearest to the fitted optimum is always among them.

        If the surface is of the model's form and noise is normal, the set holds the grid's best mix in at least `level`
        of all studies. It does so in more of them where the data see finer than the grid's step, and in nearly all
        where the best mix is a corner: there the surface need not be level, and few studies speak against it.
        """
        grid = simplex(steps)
        kept = self.compatible(grid, steps) >= 1 - level
        kept[np.argmin(((grid - self.optimum()) ** 2).sum(1))] = True
        return grid[kept]


def fit_surface(points: Values, y: Values) -> Surface:
    """The least-squares surface through a study's arms. points: shares [arms, 3]; y: accuracies [arms, seeds].

    The model is "quadratic" where the arms identify its six terms, else "common". Raises `UserError` where they do not
    identify four either, for points that are no shares, and as `comparing.complete` does.
    """
    points, y = _shares(points), complete(y)
    if len(points) != len(y):
        raise UserError(f"{len(points)} points do not go with the accuracies of {len(y)} arms; give one point an arm")
    model = _identified(points)
    x, seeds = terms(points, model), y.shape[1]
    sigma, df = noise(y)
    # Every arm has every seed, so that the seeds' effects leave all differences of the arms' means.
    coefficients = np.linalg.lstsq(x, y.mean(1))[0]
    spare = len(x) - x.shape[1]
    off = seeds * float(((y.mean(1) - x @ coefficients) ** 2).sum())
    return Surface(
        model=model,
        points=points,
        coefficients=coefficients,
        covariance=sigma**2 / seeds * np.linalg.inv(x.T @ x),
        sigma=sigma,
        df=df,
        lack_of_fit=float(stats.f.sf(off / spare / sigma**2, spare, df)) if spare else None,
    )


def simplex(steps: int) -> Values:
    """All points whose shares are multiples of 1/steps: float64 [(steps + 1)(steps + 2)/2, 3]."""
    return np.array([(d, w, steps - d - w) for d in range(steps + 1) for w in range(steps + 1 - d)]) / steps


def terms(points: Values, model: Model) -> Values:
    """What the coefficients multiply at points [m, 3]: float64 [m, 6], or [m, 4] of the common model."""
    products = np.stack([points[:, i] * points[:, j] for i, j in _PAIRS], axis=1)
    return np.hstack([points, products if model == "quadratic" else products.sum(1, keepdims=True)])


def _shares(points: Values) -> Values:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise UserError(f"points of shape {list(points.shape)} are no mixes; three shares an arm are")
    for point in points:
        if not (point >= 0).all() or abs(point.sum() - 1) > 1e-6:
            raise UserError(f"{point.tolist()} is no mix of depth, width and resolution; shares sum to 1")
    return points


def _identified(points: Values) -> Model:
    models: tuple[Model, ...] = ("quadratic", "common")
    for model in models:
        x = terms(points, model)
        if len(x) >= x.shape[1] and np.linalg.cond(x) < _CONDITION:
            return model
    raise UserError(
        f"{len(points)} arms do not tell what depth, width and resolution each do; a surface needs at least four that "
        "differ, such as all depth, all width, all resolution and a third of each"
    )


def _stationary(linear: Values, blending: Values) -> Values | None:
    """Where linear·x + x'·blending·x/2 is stationary among x that sum to 1, [m]; None where no single point is."""
    m = len(linear)
    bordered = np.ones((m + 1, m + 1))
    bordered[:m, :m], bordered[m, m] = blending, 0.0
    try:
        shares: Values = np.linalg.solve(bordered, np.append(-linear, 1.0))[:m]
    except np.linalg.LinAlgError:
        return None
    return shares


def _outside(z: Values, rows: Values) -> tuple[float, int]:
    """(squared distance of z [t] from the cone where no row [m, t] has a negative product, how many rows hold it off).

    By Moreau's decomposition what is missing is the nearest point to -z among the sums of rows with weights of at
    least 0; the weights that are above 0 belong to independent rows.
    """
    norms = np.linalg.norm(rows, axis=1)
    apart = norms > 1e-9 * norms.max()  # not the point itself, where it is on the grid
    rows = rows[apart] / norms[apart, None]
    scale = float(np.linalg.norm(z)) or 1.0
    weights, _ = optimize.nnls(rows.T, -z / scale)
    return scale**2 * float(((weights @ rows) ** 2).sum()), int(np.count_nonzero(weights))
