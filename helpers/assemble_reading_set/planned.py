"""The power of a reading set of this size and the images it needs, computed before anybody
reads.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures
from helpers.plurals import counted
from helpers.runner import runs
from helpers.statistics import planning
from helpers.statistics.differences import FEW_READERS

COUNTS = (5, 6, 8, 10, 15)


def plan(run: runs.Run, drawn: pd.DataFrame) -> tuple[pd.DataFrame, Figure, list[str]]:
    """Write the table planning.csv and its curves (figures/planning.png); return both, and one
    sentence per question for which this reading set is too small.
    """
    settings = run.parameters
    read = drawn[~drawn["training"] & ~drawn["repeat"]]
    uncertain, fake = settings.uncertain_share, settings.prevalence
    shares = (1 - fake - uncertain, uncertain, fake)
    counts = sorted({settings.readers, *COUNTS})
    hoped = (settings.area_hoped, settings.difference_hoped)
    spread = {
        "reader_sd": settings.reader_sd,
        "correlation": settings.reader_correlation,
        "alpha": 0.05,
    }
    real = float((read["origin"] == "real").mean())
    # With one kind of image there is no area: the table is then that of an equal split.
    split = {"real": real if 0 < real < 1 else 0.5}
    if shares[0] <= 0:
        raise runs.RunError(
            f"{run.name}: prevalence and uncertain_share leave no share for the answer real."
        )
    try:
        planning.refuse([settings.readers], [planning.LEAST], *hoped, **spread)
        kappas = (settings.kappa_expected, settings.kappa_hoped)
        sizes = planning.needed(counts, *hoped, kappas, shares, settings.power, **spread, **split)
    except ValueError as error:
        raise runs.RunError(
            f"{run.name}: its parameters for sample size and power are not possible: {error}."
        ) from None
    table = planning.powers(counts, [len(read)], *hoped, **spread, **split).merge(
        sizes, on="readers"
    )
    run.write("planning.csv", table)
    figures.theme()
    figure = figures.mark(curves(settings, read, counts, spread | split), run.simulated)
    run.write_bytes("figures/planning.png", figures.as_bytes(figure, "png"))
    return table, figure, too_small(settings, read, spread)


def too_small(settings, read: pd.DataFrame, spread: dict) -> list[str]:
    """One sentence per question that this design answers with less than the wanted power."""
    real = int((read["origin"] == "real").sum())
    kinds = read[read["origin"] == "generated"]["generator"].value_counts()
    people, powers = counted(settings.readers, "reader"), {}
    if real and len(kinds):
        of = (settings.area_hoped, settings.readers, real, int(kinds.sum()))
        found = (
            f"With {people}, {real} real and {kinds.sum()} generated images a mean area of"
            f" {settings.area_hoped:g} differs from chance"
        )
        powers[found] = float(planning.power_of_area(*of, **spread))
    if real and len(kinds) > 1 and settings.readers >= FEW_READERS:
        of = (settings.difference_hoped, settings.area_hoped, settings.readers, real)
        found = (
            f"With {people} and {kinds.iloc[1]} images each, two generators whose mean areas"
            f" differ by {settings.difference_hoped:g} are distinguished"
        )
        powers[found] = float(planning.power_of_difference(*of, int(kinds.iloc[1]), **spread))
    return [
        f"{found} in {100 * power:.0f} % of such studies."
        for found, power in powers.items()
        if power < settings.power
    ]


def curves(settings, read: pd.DataFrame, counts: list[int], spread: dict) -> Figure:
    """Power over the number of images: one line per number of readers, the planned one black, with
    a band over published spreads between readers. `spread`: as planning.powers takes it.
    """
    images, real = len(read), int((read["origin"] == "real").sum())
    below = f"images ({real} of {images} real, as in this study)"
    if not 0 < real < images:
        below = "images, if half of them were real"
    sizes = list(range(12, max(240, 2 * images) + 1, 4))
    hoped = (settings.area_hoped, settings.difference_hoped)
    found = planning.powers(counts, sizes, *hoped, **spread)
    ends = [
        planning.powers([settings.readers], sizes, *hoped, **spread | {"reader_sd": sd})
        for sd in (planning.ALIKE, planning.UNLIKE)
    ]
    figure, panels = plt.subplots(1, 2, figsize=(8.2, 3.2), sharey=True)
    titles = {
        "power_area": f"area of {settings.area_hoped:g} against 0.5",
        "power_difference": f"two generators, {settings.difference_hoped:g} apart",
    }
    greys = iter(plt.get_cmap("viridis")(np.linspace(0.15, 0.85, len(counts))))
    colours = {count: "black" if count == settings.readers else next(greys) for count in counts}
    for axes, (name, title) in zip(panels, titles.items()):
        axes.fill_between(sizes, ends[0][name], ends[1][name], color="#000000", alpha=0.12)
        for count, part in found.groupby("readers"):
            width = 2.5 if count == settings.readers else 1.3
            label = counted(count, "reader") + (" (planned)" if count == settings.readers else "")
            axes.plot(sizes, part[name], color=colours[count], linewidth=width, label=label)
        axes.axhline(settings.power, color="#888888", linewidth=1, linestyle="--")
        axes.axvline(images, color="#888888", linewidth=1, linestyle=":")
        axes.set(ylim=(0, 1.03), xlabel=below, title=title)
    panels[0].yaxis.set_major_formatter(figures.percents())
    panels[0].set_ylabel("power")
    panels[0].legend(fontsize=8, loc="lower right")
    band = f" (band: {planning.ALIKE:g} to {planning.UNLIKE:g})"
    few = f" Below {FEW_READERS} readers: for these readers alone; generators are not compared."
    general = settings.readers >= FEW_READERS
    return figures.stand_alone(
        figure,
        "What the reading set can show: power by images and readers",
        f"Two-sided tests at 5 %. Dashed: the power asked for"
        f" ({100 * settings.power:.0f} %); dotted: this study's {images} images. Readers' areas:"
        f" standard deviation {settings.reader_sd:g}{band if general else ''}, correlation"
        f" {settings.reader_correlation:g}." + ("" if general else few),
    )
