"""Simulated reads whose true values are known: for tests of intervals and comparisons.

A reader of skill d sees an image as ± d / 2 (generated, real), plus what every reader sees in this
image or in all images of its prompt or patient, plus noise of his or her own; the sum has standard
deviation 1 and is cut into seven steps, from "real, sure" over "uncertain" to "fake, sure".
"""

import numpy as np
from scipy import stats

CUTS = np.array([-1.2, -0.7, -0.25, 0.25, 0.7, 1.2])
EDGES = np.r_[-12, CUTS, 12]
SHARED = 0.4  # of the variance: what readers see alike
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(61)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def clusters(random, images: int) -> np.ndarray:
    """Prompts of the generated and patients of the real images, as in published studies: 40 images
    from 11 prompts, 20 from 16 patients.
    """
    half = images // 2
    patients = random.integers(0, round(half * 0.8), half)
    return np.r_[patients, images + random.integers(0, max(round(half / 3.6), 5), half)]


def reads(random, skills: np.ndarray, truth: np.ndarray, groups, alike=0.0, missing=0.0):
    """Scores -3 to 3 (images, studies, readers), nan where missing, of readers with `skills`
    (studies, readers) or (images, studies, readers).

    `groups`: the prompt or patient of each image, `alike`: the correlation of images of one.
    """
    studies, readers = skills.shape[-2:]
    shared = np.sqrt(SHARED - alike) * random.standard_normal((len(truth), studies))
    shared += np.sqrt(alike) * random.standard_normal((groups.max() + 1, studies))[groups]
    noise = np.sqrt(1 - SHARED) * random.standard_normal((len(truth), studies, readers))
    scores = np.digitize(
        (truth[:, None, None] - 0.5) * skills + shared[..., None] + noise, CUTS
    ) - float(len(CUTS) // 2)
    scores[random.random(scores.shape) < missing] = np.nan
    return scores


def steps(skill) -> np.ndarray:
    """How likely the seven steps are, (skills, 2 for real and generated, 7)."""
    shift = np.asarray(skill, dtype=float)[..., None, None] * np.array([[-0.5], [0.5]])
    return np.diff(stats.norm.cdf(EDGES - shift), axis=-1)


def area(skill) -> np.ndarray:
    """The true area under the curve of the seven steps."""
    real, fake = np.moveaxis(steps(skill), -2, 0)
    return (fake * (np.cumsum(real, axis=-1) - real / 2)).sum(axis=-1)


def called(skill) -> np.ndarray:
    """How likely real, uncertain and fake are, (skills, 2, 3)."""
    chance = steps(skill)
    return np.stack([chance[..., :3].sum(-1), chance[..., 3], chance[..., 4:].sum(-1)], axis=-1)


def given_image(skills: np.ndarray) -> np.ndarray:
    """`called` for images of which is known what readers see alike, (nodes, readers, 2, 3)."""
    shift = skills[:, None] * np.array([-0.5, 0.5])
    edges = np.array([-12, CUTS[2], CUTS[3], 12])
    seen = np.sqrt(SHARED) * NODES[:, None, None, None] + shift[..., None]
    return np.diff(stats.norm.cdf((edges - seen) / np.sqrt(1 - SHARED)), axis=-1)


def agreement(skills: np.ndarray) -> dict[str, float]:
    """The true unweighted coefficients of these readers over half real, half generated images."""
    chance, readers = given_image(skills), len(skills)
    alike = (chance.sum(axis=1) ** 2 - (chance**2).sum(axis=1)).sum(axis=-1).mean(axis=-1)
    observed = WEIGHTS @ alike / (readers * (readers - 1))
    own = called(skills).mean(axis=1)
    mean = own.mean(axis=0)
    pooled = mean @ mean
    different = (own.sum(axis=0) ** 2 - (own**2).sum(axis=0)).sum() / (readers * (readers - 1))
    by = {"percent": 0.0, "conger": different, "fleiss": pooled, "krippendorff": pooled}
    by |= {"gwet": mean @ (1 - mean) / 2, "brennan_prediger": 1 / 3}
    by |= {"cohen": different, "scott": pooled} if readers == 2 else {}
    return {name: (observed - expected) / (1 - expected) for name, expected in by.items()}


def all_are(skills: np.ndarray, label: int, kind: int) -> float:
    """How likely every reader gives this label to an image of this kind."""
    return float(WEIGHTS @ given_image(skills)[:, :, kind, label].prod(axis=1))


def two_fake(skills: np.ndarray, kind: int, missing: float) -> float:
    """How likely at least two of those who answer call an image fake, if at least two answer."""

    def at_least_two(chances):
        votes = [np.ones(len(NODES)), np.zeros(len(NODES))]
        for p in chances.T:
            votes = [votes[0] * (1 - p), votes[1] * (1 - p) + votes[0] * p]
        return 1 - votes[0] - votes[1]

    fake = given_image(skills)[:, :, kind, 2] * (1 - missing)
    rated = at_least_two(np.full_like(fake, 1 - missing))
    return float(WEIGHTS @ at_least_two(fake) / rated[0])
