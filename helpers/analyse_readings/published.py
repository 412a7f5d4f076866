"""Compares the published study's numbers, as printed, with this study's.

Ali, Murad and Shah, "Spot the fake lungs" (arXiv 2211.00902, AICS 2022), and its poster "Towards
Foundation AI Models for Medical Data". Numbers that are not in these are called not published.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers.analyse_readings import texts
from helpers.analyse_readings.report_figures import COEFFICIENTS
from helpers.figures import COLOURS, intervals, legend_above, percent_axis
from helpers.statistics import accuracy, design
from helpers.table_columns import LABELS

# The poster's galleries and counts: generated images only, two readers.
COUNTS = {
    ("ct", "all_real"): (3, 20),
    ("ct", "all_uncertain"): (2, 20),
    ("xray", "all_real"): (5, None),
    ("xray", "all_uncertain"): (2, None),
}
WORDS = {
    "all_real": "labelled real by every reader",
    "all_uncertain": "that left every reader uncertain",
}
DESIGN = (
    ("readers", "2 radiologists", lambda d: f"{d['readers']} readers"),
    (
        "readers with prior knowledge of AI",
        "1 of 2",
        lambda d: f"{d['prior_ai']} of {d['readers']}",
    ),
    (
        "real images in the read",
        "not published; the labels are of generated images only",
        lambda d: str(d["real"]),
    ),
    ("hidden repeats", "not published", lambda d: str(d["repeats"])),
    ("full table of labels", "not published", lambda d: "tables/answers.csv of 08"),
    ("prompts and training recipe", "not published", lambda d: "params/ and the manifests"),
)


def comparison(results: dict, xrays: int) -> pd.DataFrame:
    """One row per published number: as printed with Wilson's interval, and this study's.

    Columns as table_columns.TABLES["comparison"]. `xrays` is the assumed number of X-rays behind
    the published counts, which is not published.
    """
    read, rows = results["design"], []
    generated = {r["modality"]: r for r in results["headline"] if r["origin"] == "generated"}
    for (modality, measure), (count, total) in COUNTS.items():
        here, kind = generated.get(modality, {}).get(measure), texts.KINDS[modality]
        low, high = accuracy.wilson(count, total or xrays)
        notes = [] if total else [f"our assumption: {xrays} X-rays"]
        notes += [f"published: 2 readers; here: {read['readers']}"] * (read["readers"] != 2)
        row = {
            "what": f"{kind} {WORDS[measure]}",
            "note": "; ".join(notes),
            "published": f"{count} of {total or 'an unpublished number'}",
            "published_share": count / (total or xrays),
            "published_low": low,
            "published_high": high,
            "here": f"no generated {kind} with the answers that this needs",
        }
        if here and here["total"]:
            row["here"] = f"{here['count']} of {here['total']}"
            row |= {"share": here["estimate"], "low": here["low"], "high": here["high"]}
        rows.append(row)
    facts = [{"what": w, "published": said, "here": own(read)} for w, said, own in DESIGN]
    return pd.DataFrame(rows + facts)


def bounds() -> pd.DataFrame:
    """The range of agreement on the CT images that the published counts allow, for 5, 8, 10 and
    for any number that both called fake.
    """
    real, images = COUNTS["ct", "all_real"]
    both = {"real": real, "uncertain": COUNTS["ct", "all_uncertain"][0]}
    found = {"any": design.bounds(images, both, LABELS)}
    for fake in (5, 8, 10):
        found[str(fake)] = design.bounds(images, both | {"fake": fake}, LABELS)
    return pd.concat(found, names=["both_fake", "coefficient"]).reset_index()


def figure(table: pd.DataFrame) -> Figure:
    """The published shares and this study's, 95 % Wilson intervals."""
    rows = table[table["published_share"].notna()].iloc[::-1].reset_index(drop=True)
    drawn, axes = plt.subplots(figsize=(8.2, 0.9 + 0.62 * len(rows)))
    for shift, colour, marker, label, columns in (
        (0.14, "#000000", "D", "published", ("published_share", "published_low", "published_high")),
        (-0.14, COLOURS["fake"], "o", "this study", ("share", "low", "high")),
    ):
        places = rows.index + shift
        intervals(axes, places, rows, colour, marker, columns, label=label, markersize=7)
    axes.set_yticks(rows.index, rows["what"])
    percent_axis(axes, xlabel="share of the generated images (95 % interval)")
    legend_above(axes)
    return drawn


def bounds_figure(table: pd.DataFrame, results: dict) -> Figure:
    """The range of every coefficient that the published counts allow, and this study's estimate on
    its CT images.
    """
    drawn, axes = plt.subplots(figsize=(8.2, 4.2))
    names = [name for name in COEFFICIENTS if name != "percent"][::-1]
    for both_fake, said, colour, width, shift in (
        ("any", "any number", "#BBBBBB", 9, 0.0),
        ("5", "5", "#56B4E9", 5, -0.2),
        ("8", "8", "#0072B2", 5, 0.0),
        ("10", "10", "#000000", 5, 0.2),
    ):
        rows = table[table["both_fake"] == both_fake].set_index("coefficient").reindex(names)
        rows = rows.astype({"low": float, "high": float})
        places, label = np.arange(len(names)) + shift, f"{said} called fake by both"
        axes.hlines(places, rows["low"], rows["high"], color=colour, linewidth=width, label=label)
        # A range of a single point would be invisible.
        axes.plot(rows["low"], places, "|", color=colour, markersize=width)
    measured = pd.DataFrame(results["agreement"]).set_index(["group", "coefficient"])["estimate"]
    # Where one modality or one kind of image was read, the generated CT images have a shorter name.
    groups = ["ct generated"]
    groups += ["generated"] * ("xray" not in measured.index)
    groups += ["ct"] * (results["design"]["real"] == 0)
    for group in [group for group in groups if group in measured.index][:1]:
        here, label = measured[group].astype(float).reindex(names), "this study, generated CT"
        axes.plot(here, range(len(names)), "o", color=COLOURS["fake"], markersize=8, label=label)
    axes.set_yticks(range(len(names)), [COEFFICIENTS[name] for name in names])
    axes.set(xlim=(-1.05, 1.05), xlabel="agreement that the published counts allow")
    legend_above(axes, fontsize=9)
    return drawn


def could_show(table: pd.DataFrame, results: dict) -> list[str]:
    """One sentence each on what the published design could and could not show, and on this study's
    numbers.
    """
    kappa = table[table["coefficient"] == "cohen"].set_index("both_fake").to_dict("index")
    real = results["design"]["real"]
    return texts.paragraphs(texts.fill("published.md", kappa=kappa, real=real))
