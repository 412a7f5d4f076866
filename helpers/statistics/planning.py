"""Planning before a read: power over readers and images, and the images that kappa needs.

python -m helpers.statistics.planning --help     plans without a study (make plan ARGS=...)

Power is that of Obuchowski and Rockette's analysis with Hillis' degrees of freedom, by the
noncentral F distribution (Hillis, Obuchowski and Berbaum, Acad Radiol 18, 2011). The variances are
assumed; the defaults are published values. Half of the images are real, unless `real` says which
share.
"""

import argparse

import numpy as np
import pandas as pd
from scipy import stats

from helpers.statistics import design
from helpers.statistics.clusters import FEWEST
from helpers.statistics.differences import FEW_READERS

# Correlation of the areas of two readers over the same images (Obuchowski and Hillis, AJR 197,
# 2011), and of a reader's true areas in two conditions (the same; Rockette et al., Acad Radiol 6,
# 1999).
CORRELATION, STEADY = 0.3, 0.8
# Standard deviation of the readers' true areas: a quarter of the range that Obuchowski (AJR 175,
# 2000) calls large, and the value that Berks et al. (2010) found for generated images.
ALIKE, UNLIKE = 0.025, 0.09
# Numbers of images: below the first, the report gives no interval (for two generators beside as
# many real images); above the second, no study is searched for.
LEAST, MOST = 4 * FEWEST, 2000
OPTIONS = (
    ("--area", 0.7, "mean area under the ROC curve to detect against 0.5"),
    ("--difference", 0.1, "of the mean areas of two generators"),
    ("--reader-sd", 0.05, "standard deviation of the readers' true areas"),
    ("--correlation", CORRELATION, "of two readers' areas over the same images"),
    ("--power", 0.8, "for the numbers of images needed"),
    ("--alpha", 0.05, "level of the two-sided tests"),
)


def area_variance(area: float, real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """The variance of one reader's area over random images (Obuchowski, Invest Radiol 29, 1994)."""
    distance = 1.414 * stats.norm.ppf(area)
    parts = 5 * distance**2 + 8 + (distance**2 + 8) * generated / real
    return 0.0099 * np.exp(-(distance**2) / 2) * parts / generated


def rejected(
    effect: float, mean_square: np.ndarray, covariance: np.ndarray, readers: int, alpha: float
) -> np.ndarray:
    """The power of a two-sided test at `alpha` to find `effect` with random readers.

    `mean_square` is the expected mean square of readers, `covariance` that of two readers.
    """
    total = mean_square + readers * covariance
    df = (readers - 1) * (total / mean_square) ** 2
    critical = stats.f.ppf(1 - alpha, 1, df)
    return stats.ncf.sf(critical, 1, df, readers * effect**2 / total)


def power_of_area(
    area: float,
    readers: int,
    real: np.ndarray,
    generated: np.ndarray,
    reader_sd: float = 0.05,
    correlation: float = CORRELATION,
    alpha: float = 0.05,
) -> np.ndarray:
    """The power to find that a mean area differs from 0.5; numbers of images may be arrays.

    With fewer than FEW_READERS readers it holds for these readers only, as in the report: then only
    images are random.
    """
    error = area_variance(area, np.asarray(real, float), np.asarray(generated, float))
    covariance = correlation * error
    if readers >= FEW_READERS:
        mean_square = reader_sd**2 + error - covariance
        return rejected(area - 0.5, mean_square, covariance, readers, alpha)
    variance = (error - covariance) / readers + covariance
    df = np.asarray(real) + np.asarray(generated) - 2
    return stats.ncf.sf(stats.f.ppf(1 - alpha, 1, df), 1, df, (area - 0.5) ** 2 / variance)


def power_of_difference(
    difference: float,
    area: float,
    readers: int,
    real: np.ndarray,
    generated: np.ndarray,
    reader_sd: float = 0.05,
    correlation: float = CORRELATION,
    alpha: float = 0.05,
) -> np.ndarray:
    """The power to find that two generators with mean area `area` differ by `difference`.

    `generated`: images of each; both are compared with the same real images, so a reader's two
    areas share the part of the variance that comes from these.
    """
    real, generated = np.asarray(real, float), np.asarray(generated, float)
    error = area_variance(area, real, generated)
    common = generated / (real + generated)
    own = (1 - common) * error
    covariance = correlation * own
    mean_square = reader_sd**2 * (1 - STEADY) + own - covariance
    return rejected(difference, 2 * mean_square, 2 * covariance, readers, alpha)


def powers(
    readers: list[int],
    images: list[int],
    area: float,
    difference: float,
    real: float = 0.5,
    **spread: float,
) -> pd.DataFrame:
    """Power by readers and images: columns readers, images, power_area and power_difference (of two
    generators that made equal numbers of the generated images; nan below FEW_READERS readers).

    `real`: share of the images that are real. `spread`: reader_sd, correlation and alpha, as in
    `power_of_area`.
    """
    real, made = real * np.asarray(images), (1 - real) * np.asarray(images)
    parts = []
    for count in readers:
        one, two = power_of_area(area, count, real, made, **spread), np.nan
        if count >= FEW_READERS:
            two = power_of_difference(difference, area, count, real, made / 2, **spread)
        part = {"readers": count, "images": images, "power_area": one, "power_difference": two}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def needed(
    readers: list[int],
    area: float,
    difference: float,
    kappas: tuple[float, float],
    shares: tuple[float, ...],
    power: float = 0.8,
    alpha: float = 0.05,
    **spread: float,
) -> pd.DataFrame:
    """The smallest numbers of images that reach `power`: columns readers, images_area,
    images_difference (missing where MOST are too few), images_kappa_binary and images_kappa (of the
    `shares` of real, uncertain and fake answers; binary: fake or not). `kappas`: the kappa under
    the null hypothesis, and the kappa to detect. `spread`: as in `powers`, also `real`.
    """
    sizes = list(range(LEAST, MOST + 1, 4))
    found = powers(readers, sizes, area, difference, alpha=alpha, **spread)
    rows = pd.DataFrame({"readers": readers}).set_index("readers", drop=False)
    for name in ("area", "difference"):
        enough = found[found[f"power_{name}"] >= power]
        rows[f"images_{name}"] = enough.groupby("readers")["images"].min()
    for name, parts in (("kappa_binary", shares[-1]), ("kappa", shares)):
        rows[f"images_{name}"] = [
            design.sample_size(*kappas, parts, count, alpha, power) if count > 1 else None
            for count in readers
        ]
    return rows.reset_index(drop=True).astype("Int64")


def main(arguments: list[str] | None = None) -> None:
    """Print the power of studies of several sizes and the numbers of images needed."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.statistics.planning",
        description="Plan a read: the power of studies of several sizes and the images needed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    several = {"nargs": "+", "type": int, "metavar": "N"}
    parser.add_argument("--readers", default=[2, 5, 6, 8, 10, 15], **several)
    parser.add_argument(
        "--images", default=[40, 80, 120, 160, 240], help="half of them real", **several
    )
    for option, default, text in OPTIONS:
        parser.add_argument(option, type=float, default=default, metavar="X", help=text)
    parser.add_argument("--kappa", nargs=2, type=float, default=[0.4, 0.6], metavar="X",
                        help="kappa under the null hypothesis, and hoped-for kappa")  # fmt: skip
    parser.add_argument("--shares", nargs=3, type=float, default=[0.4, 0.1, 0.5], metavar="X",
                        help="expected shares of the answers real, uncertain, fake")  # fmt: skip
    options = vars(parser.parse_args(arguments))
    readers, images, power = options.pop("readers"), options.pop("images"), options.pop("power")
    kappas, shares = options.pop("kappa"), options.pop("shares")
    try:
        refuse(readers, images, **options)
        found = powers(readers, images, **options)
        sizes = needed(readers, kappas=kappas, shares=shares, power=power, **options)
    except ValueError as error:
        parser.error(str(error))
    titles = {
        "power_area": f"Power to distinguish a mean area of {options['area']:g} from 0.5",
        "power_difference": "Power to distinguish two generators whose areas differ by"
        f" {options['difference']:g}",
    }
    for name, title in titles.items():
        table = found.pivot(index="images", columns="readers", values=name)
        print(f"{title}, by images (rows) and readers\n")
        print((100 * table).map("{:.0f} %".format).replace("nan %", "–").to_string(), end="\n\n")
    print(
        f"Images needed for a power of {100 * power:.0f} % (–: over {MOST}, or too few readers)\n"
    )
    print(sizes.astype(object).where(sizes.notna(), "–").to_string(index=False))
    print(
        f"\nWith fewer than {FEW_READERS} readers: for these readers alone. Half of the images"
        " are real, every image is from\na different prompt or patient, and no answer is missing."
        " images_kappa: to distinguish"
        f" kappa {kappas[1]:g} from {kappas[0]:g}\nby the three labels; binary: fake or not."
    )


def refuse(readers, images, area, difference, reader_sd, correlation, alpha) -> None:
    """Raise ValueError, in one sentence, for impossible parameters."""
    possible = {
        "area must lie between 0.5 and 1": 0.5 < area < 1,
        "difference must be above 0, and area + difference / 2 at most 1": (
            0 < difference <= 2 * (1 - area)
        ),
        "the standard deviation of the readers must be at least 0": reader_sd >= 0,
        "correlation must lie between 0 and 1": 0 <= correlation < 1,
        "alpha must lie between 0 and 1": 0 < alpha < 1,
        f"at least 1 reader and {LEAST} images are needed": (
            min(readers) >= 1 and min(images) >= LEAST
        ),
    }
    if wrong := [sentence for sentence, holds in possible.items() if not holds]:
        raise ValueError(wrong[0])


if __name__ == "__main__":
    main()
