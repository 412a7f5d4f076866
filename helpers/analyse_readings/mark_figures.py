"""Figures of what readers marked: on the images that were marked most alike, and by source."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from helpers import figures
from helpers.analyse_readings.marks import RADIUS, counted

HEAT = LinearSegmentedColormap.from_list(
    "marks", [(1, 0.8, 0, 0), (1, 0.6, 0, 0.45), (1, 0.35, 0, 0.65), (0.9, 0, 0, 0.85)]
)
ACROSS = 4


def most_alike(marks: pd.DataFrame, most: int) -> list[str]:
    """The image_ids on which most readers marked the same place; among equals, those that most
    readers marked.
    """
    groups = marks.groupby("image_id")
    places = {image: (counted(own).max(), own["reader"].nunique()) for image, own in groups}
    return sorted(places, key=lambda image: (*(-n for n in places[image]), image))[:most]


def on_images(marks: pd.DataFrame, pictures: dict[str, np.ndarray], readers: int) -> Figure:
    """The marks on the images; colour: how many readers marked that place. `pictures`: grey values
    from 0 to 1 by image_id.
    """
    figure, every = figures.panels(len(pictures), ACROSS, (2.05, 2.45))
    maps = {image: counted(marks[marks["image_id"] == image]) for image in pictures}
    top = max(heat.max() for heat in maps.values())
    for axes, (image, picture) in zip(every.flat, pictures.items()):
        own = marks[marks["image_id"] == image]
        axes.axis("off")
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
        axes.imshow(maps[image], cmap=HEAT, vmin=0, vmax=top, extent=(0, 1, 1, 0))
        for mark in own.itertuples():
            style = {"fill": False, "edgecolor": "#56B4E9", "linewidth": 0.8}
            point = mark.width == mark.height == 0
            box = Rectangle((mark.x, mark.y), mark.width, mark.height, **style)
            axes.add_patch(Circle((mark.x, mark.y), RADIUS / 2, **style) if point else box)
        most, marking = maps[image].max(), own["reader"].nunique()
        said = f"{marking} of {readers} readers marked,\n{most} at one place"
        axes.set_title(f"{own['origin'].iloc[0]}\n{said}", fontsize=8.5)
    return figure


def by_source(marks: pd.DataFrame, answers: dict[str, int]) -> Figure:
    """Where each source is marked, as the share of its `answers` (source -> number)."""
    sources: Sequence[str] = sorted(answers)
    figure, every = figures.panels(len(sources), ACROSS, (2.05, 2.6))
    shares = {name: counted(marks[marks["source"] == name]) / answers[name] for name in sources}
    top = max(max(share.max() for share in shares.values()), 0.01)
    for axes, name in zip(every.flat, sources):
        drawn = axes.imshow(shares[name], cmap="Oranges", vmin=0, vmax=top, extent=(0, 1, 1, 0))
        thirds = [1 / 3, 2 / 3]
        axes.set(xticks=thirds, yticks=thirds, xticklabels=[], yticklabels=[])
        axes.grid(True, color="#999999", linewidth=0.5)
        axes.set_title(textwrap.fill(name, 24), fontsize=8.5)
    label = "share of the answers"
    figure.colorbar(drawn, ax=every, shrink=0.8, format=figures.percents(), label=label)
    return figure
