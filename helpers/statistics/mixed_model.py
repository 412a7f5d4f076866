"""Logistic models with crossed random effects: readers, images, and the prompts or patients of
images.

Fitted by penalised iteratively reweighted least squares and Laplace's approximation, as lme4's
glmer does with nAGQ = 0 (Bates et al., J. Stat. Softw. 67, 2015). With few readers, maximum
likelihood underestimates their spread. So the likelihood is restricted (integrated over the fixed
effects too), and a weak prior keeps the spread above 0 (Chung et al., Psychometrika 78, 2013).
statsmodels' BinomialBayesMixedGLM is not used: its variational standard errors ignore the random
effects (they are half as large for effects between readers), and its Laplace fit lets their
variances go to zero.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, special
from scipy.sparse.linalg import splu

WIDEST = 5.0  # standard deviation in log odds; above it everything is right or wrong
FARTHEST = 15.0  # log odds of a fixed effect; beyond it the likelihood has no maximum
ROUNDS, EXACT = 60, 1e-8


class NoFit(ValueError):
    """The model has no finite answer; the message says why."""


@dataclass
class Factor:
    """A random effect: the level of each answer, `codes` (answers,) 0, 1, …, and its weight in each
    answer (answers,). `df`: the degrees of freedom that its levels leave.
    """

    codes: np.ndarray
    amount: np.ndarray
    df: float


@dataclass
class Fit:
    """`effects` (fixed effects,) in log odds with `covariance` and `df` (Satterthwaite), `spread`
    by factor: the standard deviation of its random effects in log odds.
    """

    effects: np.ndarray
    covariance: np.ndarray
    df: np.ndarray
    spread: dict[str, float]


def logistic(
    right: np.ndarray, fixed: np.ndarray, factors: dict[str, Factor], restricted: bool = True
) -> Fit:
    """Fit a model of whether an answer is right (answers,), with fixed effects (answers, effects;
    including a column of ones) and random effects.

    `restricted` False: plain maximum likelihood. Raises NoFit if the answers are separated.
    """
    model = _Model(right, fixed, factors, restricted)
    # Search over variances: over standard deviations the slope is 0 at 0, where a search would
    # stop.
    start = np.full(len(factors), 0.25)
    best = optimize.minimize(
        lambda variance: model.unlikely(np.sqrt(variance)),
        start,
        method="L-BFGS-B",
        bounds=[(1e-6 if restricted else 0.0, WIDEST**2)] * len(start),
        options={
            "eps": 1e-4
        },  # the inner fit is exact to EXACT; a smaller step would measure its noise
    )
    spread = np.sqrt(best.x)
    for name, width in zip(factors, spread):
        if width > 0.99 * WIDEST:
            raise NoFit(f"too few answers to estimate the spread of {name}")
    if not best.success:
        raise NoFit(f"the search did not converge ({best.message})")
    model.unlikely(spread)
    effects, covariance = model.state[: fixed.shape[1]], model.covariance(spread)
    parts = []
    for place, factor in enumerate(factors.values()):
        without = np.where(np.arange(len(start)) == place, 0.0, spread)
        own = np.diag(covariance) - np.diag(model.covariance(without))
        parts.append(np.maximum(own, 0) ** 2 / factor.df)
    below = np.sum(parts, axis=0)
    total = np.diag(covariance) ** 2
    df = np.divide(total, below, out=np.full(len(total), np.inf), where=below > 0)
    return Fit(effects, covariance, df, dict(zip(factors, spread.tolist())))


class _Model:
    """The approximate likelihood as a function of the spreads; `state` has the fixed effects and
    the random ones in units of their spread, kept as the next start.
    """

    def __init__(self, right, fixed, factors, restricted):
        self.right, self.restricted, self.effects = right, restricted, fixed.shape[1]
        rows = np.arange(len(right))
        blocks = [
            sparse.csr_matrix((factor.amount, (rows, factor.codes))) for factor in factors.values()
        ]
        self.columns = sparse.hstack([sparse.csr_matrix(fixed), *blocks], format="csr")
        self.sizes = [block.shape[1] for block in blocks]
        penalised = np.r_[np.zeros(self.effects), np.ones(sum(self.sizes))]
        self.penalty = sparse.diags(penalised, format="csc")
        self.state = np.zeros(self.columns.shape[1])

    def scaled(self, spread) -> sparse.csr_matrix:
        scale = np.r_[np.ones(self.effects), np.repeat(spread, self.sizes)]
        return self.columns @ sparse.diags(scale)

    def unlikely(self, spread) -> float:
        """Minus twice the approximate log likelihood at these spreads."""
        columns, state = self.scaled(spread), self.state
        worst = self._deviance(columns, state)
        for _ in range(ROUNDS):
            chance = special.expit(columns @ state)
            curvature = self._curvature(columns, chance)
            slope = columns.T @ (self.right - chance) - self.penalty @ state
            step, before = splu(curvature).solve(slope), worst
            while (worst := self._deviance(columns, state + step)) > before + EXACT:
                step = step / 2
            state = state + step
            if np.abs(state[: self.effects]).max() > FARTHEST:
                raise NoFit("at some level of an effect all answers are right, or all are wrong")
            if np.abs(step).max() < EXACT**0.5:
                break
        else:
            raise NoFit(f"the fit did not converge within {ROUNDS} rounds")
        self.state = state
        self.weights = special.expit(columns @ state)
        curvature = self._curvature(columns, self.weights)
        if self.restricted:
            return worst + _log_determinant(curvature) - 2 * np.log(spread).sum()
        return worst + _log_determinant(curvature[self.effects :, self.effects :])

    def _deviance(self, columns, state) -> float:
        linear = columns @ state
        unlikely = np.logaddexp(0, linear) - self.right * linear
        return 2 * unlikely.sum() + (state[self.effects :] ** 2).sum()

    def _curvature(self, columns, chance) -> sparse.csc_matrix:
        weighted = sparse.diags(chance * (1 - chance)) @ columns
        return (columns.T @ weighted + self.penalty).tocsc()

    def covariance(self, spread) -> np.ndarray:
        """The covariance of the fixed effects, at the last fit's weights."""
        curvature = self._curvature(self.scaled(spread), self.weights)
        ones = np.eye(curvature.shape[0])[:, : self.effects]
        return splu(curvature).solve(ones)[: self.effects]


def _log_determinant(matrix: sparse.csc_matrix) -> float:
    return float(np.log(np.abs(splu(matrix.tocsc()).U.diagonal())).sum())
