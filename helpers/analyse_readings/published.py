"""The published study's numbers, as printed, beside this study's.

Ali, Murad and Shah, "Spot the fake lungs" (arXiv 2211.00902, AICS 2022), and its poster "Towards
Foundation AI Models for Medical Data". What could not be read there is said to be not published.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from helpers.analyse_readings import texts
from helpers.figures import COEFFICIENTS, COLOURS
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
    "all_uncertain": "left every reader uncertain",
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

    Columns as table_columns.TABLES["comparison"]. `xrays`: how many X-rays the published counts are
    taken to be of; the number itself is not published.
    """
    read, rows = results["design"], []
    generated = {r["modality"]: r for r in results["headline"] if r["origin"] == "generated"}
    for (modality, measure), (count, total) in COUNTS.items():
        here, kind = generated.get(modality, {}).get(measure), texts.KINDS[modality]
        low, high = accuracy.wilson(count, total or xrays)
        notes = [] if total else [f"our assumption: {xrays} X-rays, as in the protocol"]
        notes += [f"published: 2 readers; here: {read['readers']}"] * (read["readers"] != 2)
        row = {"what": f"{kind} {WORDS[measure]}", "note": "; ".join(notes)}
        row["published"] = f"{count} of {total or 'an unpublished number'}"
        row |= {"published_share": count / (total or xrays)}
        row |= {"published_low": low, "published_high": high}
        row["here"] = f"no generated {kind} with the answers that this needs"
        if here and here["total"]:
            row["here"] = f"{here['count']} of {here['total']}"
            row |= {"share": here["estimate"], "low": here["low"], "high": here["high"]}
        rows.append(row)
    facts = [{"what": w, "published": said, "here": own(read)} for w, said, own in DESIGN]
    return pd.DataFrame(rows + facts)


def bounds(
    images: int = 20, both: dict | None = None, fake: tuple[int, ...] = (5, 8, 10)
) -> pd.DataFrame:
    """What the published counts still allow for agreement on the CT images, for chosen and for any
    number both called fake.
    """
    both = both or {"real": 3, "uncertain": 2}
    found = {"any": design.bounds(images, both, LABELS)}
    for count in fake:
        found[str(count)] = design.bounds(images, both | {"fake": count}, LABELS)
    return pd.concat(found, names=["both_fake", "coefficient"]).reset_index()


def figure(table: pd.DataFrame) -> Figure:
    """The published shares and this study's, 95 % Wilson intervals."""
    rows = table[table["published_share"].notna()].iloc[::-1].reset_index(drop=True)
    drawn, axes = plt.subplots(figsize=(8.2, 0.9 + 0.62 * len(rows)))
    for shift, colour, marker, label, columns in (
        (0.14, "#000000", "D", "published", ("published_share", "published_low", "published_high")),
        (-0.14, COLOURS["fake"], "o", "this study", ("share", "low", "high")),
    ):
        estimate, low, high = (rows[column].astype(float) for column in columns)
        axes.hlines(rows.index + shift, low, high, color=colour, linewidth=2)
        axes.plot(estimate, rows.index + shift, marker, color=colour, label=label, markersize=7)
    axes.set(
        yticks=rows.index,
        yticklabels=rows["what"],
        xlim=(-0.02, 1.02),
        xlabel="share of the generated images (95 % interval)",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)
    plt.close(drawn)
    return drawn


def bounds_figure(table: pd.DataFrame, results: dict) -> Figure:
    """The range of every coefficient that the published counts allow, and this study's estimate on
    its CT images.
    """
    drawn, axes = plt.subplots(figsize=(8.2, 4.2))
    names = [name for name in COEFFICIENTS if name != "percent"][::-1]
    styles = {"any": ("#BBBBBB", 9), "5": ("#56B4E9", 5), "8": ("#0072B2", 5), "10": ("#000000", 5)}
    shifts = {"any": 0.0, "5": -0.2, "8": 0.0, "10": 0.2}
    for both_fake, part in table.groupby("both_fake", sort=False):
        colour, width = styles.get(both_fake, ("#E69F00", 5))
        rows = part.set_index("coefficient").reindex(names)
        label = (
            "any number both called fake"
            if both_fake == "any"
            else f"{both_fake} called fake by both"
        )
        axes.hlines(
            [i + shifts.get(both_fake, 0) for i in range(len(names))],
            rows["low"].astype(float),
            rows["high"].astype(float),
            color=colour,
            linewidth=width,
            label=label,
        )
        # A range that is a point would not be seen.
        axes.plot(
            rows["low"].astype(float),
            [i + shifts.get(both_fake, 0) for i in range(len(names))],
            "|",
            color=colour,
            markersize=width,
        )
    here = {r["coefficient"]: r for r in results["agreement"] if r["group"] == "ct generated"} or {
        r["coefficient"]: r for r in results["agreement"] if r["group"] == "ct"
    }
    known = [
        (i, here[name]["estimate"])
        for i, name in enumerate(names)
        if name in here and here[name]["estimate"] is not None
    ]
    if known:
        places, values = zip(*known)
        axes.plot(
            values,
            places,
            "o",
            color=COLOURS["fake"],
            markersize=8,
            label="this study, generated CT",
        )
    axes.set(
        yticks=range(len(names)),
        yticklabels=[COEFFICIENTS[name] for name in names],
        xlim=(-1.05, 1.05),
        xlabel="agreement that the published counts allow",
    )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False, fontsize=9)
    plt.close(drawn)
    return drawn


def could_show(table: pd.DataFrame, results: dict) -> list[str]:
    """What the published design could and could not show, and where this study's numbers lie, one
    sentence each.
    """
    kappa = table[table["coefficient"] == "cohen"].set_index("both_fake")
    spans = [
        f"{texts.value(row['low'])} to {texts.value(row['high'])} if both called {fake} fake"
        for fake, row in kappa.iterrows()
        if fake != "any"
    ]
    said = [
        (
            "With 3 of 20 CT images called real and 2 left uncertain by both, Cohen's kappa lies"
            f" between {texts.value(kappa.low['any'])} and"
            f" {texts.value(kappa.high['any'])}: {', '.join(spans)}. How many both called fake"
            " is not published."
        ),
        (
            f"3 of 20 has the 95 % interval {texts.interval(*accuracy.wilson(3, 20))}, 2 of 20"
            f" {texts.interval(*accuracy.wilson(2, 20))}: 20 images say little about a share."
        ),
        (
            "It could show that some generated images pass for real, and what radiologists see in"
            " them."
        ),
        (
            "It could not show how well they detect generated images: without real images there are"
            " no false alarms, no d′ and no ROC curve."
        ),
        (
            "It could not separate the effect of prior knowledge of AI from the difference between"
            " two people."
        ),
    ]
    if results["design"]["real"]:
        said.append(
            f"This study also read {results['design']['real']} real images, so it knows how often"
            " real ones are called fake."
        )
    else:
        said.append("No real image was read in this study either, so it has the same limit.")
    return said
