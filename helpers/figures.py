"""The study's colours, theme and one function per published figure."""

import matplotlib.pyplot as plt
import seaborn as sns

# Okabe and Ito's palette: told apart by colour-blind readers and in grey print.
COLOURS = {"real": "#0072B2", "fake": "#D55E00", "generated": "#D55E00", "uncertain": "#999999"}
READERS = ["#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def theme() -> None:
    """Set the study's look for every figure made after it: white, light grid, text that prints."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=[COLOURS["real"], COLOURS["fake"], COLOURS["uncertain"], *READERS],
        rc={
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 12,
            "font.family": "DejaVu Sans",
            "svg.fonttype": "none",
            "svg.hashsalt": "study",
            "image.cmap": "gray",
        },
    )
    plt.rcParams["figure.constrained_layout.use"] = True
