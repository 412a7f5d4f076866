"""Figures of stages 03 and 04: the training curve, and how often samples show what their captions
say.
"""

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from helpers import figures


def curve(training: pd.DataFrame, simulated: bool = False) -> Figure:
    """Loss and held-out loss by step, the learning rate below, from the table `training`."""
    figures.theme()
    figure, (losses, rate) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, height_ratios=(3, 1))
    steps = training.step.astype(float)
    losses.plot(
        steps,
        training.loss.astype(float),
        color=figures.COLOURS["uncertain"],
        label="training cases",
    )
    held_out = training.dropna(subset="validation_loss")
    if len(held_out):
        losses.plot(
            held_out.step.astype(float),
            held_out.validation_loss.astype(float),
            "o-",
            color=figures.COLOURS["real"],
            label="held-out cases, fixed noise",
        )
    losses.set(ylabel="mean squared error", title="Loss", yscale="log")
    for formatter in (losses.yaxis.set_major_formatter, losses.yaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}")
    losses.legend()
    rate.plot(steps, training.learning_rate.astype(float), color=figures.COLOURS["uncertain"])
    rate.set(ylabel="learning rate", xlabel="optimiser steps")
    return figures.mark(figure, simulated)


def obedience(measured: pd.DataFrame, simulated: bool = False) -> Figure:
    """Agreement with the caption per finding, with 95 % intervals, beside the chance level.
    `obeyed` comes from caption_check.measure.
    """
    figures.theme()
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(measured) + 1.4))
    places = range(len(measured))
    ends, colour = ("agreement", "low", "high"), figures.COLOURS["generated"]
    figures.intervals(axes, places, measured, colour, ends=ends, label="samples")
    axes.plot(measured.chance, places, "|", markersize=14, color="black", label="chance")
    axes.plot(
        measured.on_cases,
        places,
        "s",
        markerfacecolor="none",
        color=figures.COLOURS["real"],
        label="held-out cases",
    )
    axes.set(
        yticks=list(places),
        yticklabels=measured.what.str.replace("_", " "),
        xlim=(-0.02, 1.02),
        xlabel="share in which the classifier sees what the caption says",
    )
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figures.mark(figure, simulated)
