"""The figures of stage 02: the grid by finding, the spend, the latency."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from helpers import figures, findings

COLOURS = {
    "ok": "#0072B2",
    "refused": "#D55E00",
    "failed": "#999999",
    "unknown": "#E69F00",
    "submitted": "#56B4E9",
    "sent": "#000000",
}


def first_of_each(frame: pd.DataFrame, each: int = 4) -> pd.DataFrame:
    """The first images of every modality, finding and side, X-rays before CT, with a `title` for
    the contact sheet.
    """
    order = {name: place for place, name in enumerate(findings.FINDINGS)}
    rank = (
        frame["finding"]
        .fillna("other")
        .map(lambda found: order.get(found.split("|")[0], len(order)))
    )
    ranked = frame.assign(rank=rank).sort_values(
        ["modality", "rank", "side"], ascending=[False, True, True], kind="stable"
    )
    shown = (
        ranked.groupby(["modality", "finding", "side"], dropna=False, sort=False)
        .head(each)
        .drop(columns="rank")
    )
    titles = []
    for modality, found, side in zip(
        shown["modality"], shown["finding"].fillna("other"), shown["side"].fillna("")
    ):
        words = ", ".join(findings.FINDINGS.get(name, name).lower() for name in found.split("|"))
        titles.append(
            " ".join(word for word in ("CT" if modality == "ct" else "X-ray", side, words) if word)
        )
    return shown.assign(title=titles)


def spend(ledger: pd.DataFrame, budget_usd: float, simulated: bool = False) -> plt.Figure:
    """Money over time against the budget: the cumulative cost of attempts, by outcome, and the
    number of attempts per outcome.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.2), width_ratios=(2, 1), layout="constrained"
    )
    ordered = ledger.sort_values("requested_utc")
    left.step(
        np.arange(1, len(ordered) + 1),
        ordered["cost_usd"].fillna(0).cumsum().astype(float),
        where="post",
        color=COLOURS["ok"],
    )
    left.axhline(budget_usd, color=COLOURS["refused"], linestyle="--", linewidth=1)
    left.annotate(
        f"budget {budget_usd:g} USD",
        (1, budget_usd),
        va="bottom",
        fontsize=9,
        color=COLOURS["refused"],
    )
    left.set(
        xlabel="attempts, in the order of sending", ylabel="cumulative cost, USD", ylim=(0, None)
    )
    counts = ledger["status"].value_counts() if len(ledger) else pd.Series({"nothing sent": 0})
    right.barh(
        counts.index,
        counts.to_numpy(),
        color=[COLOURS.get(status, "#999999") for status in counts.index],
        height=0.5,
    )
    right.bar_label(right.containers[0], padding=3)
    right.set(xlabel="attempts", xlim=(0, max(1, counts.max()) * 1.18))
    right.invert_yaxis()
    right.grid(visible=False)
    return figures.mark(figure, simulated)


def latency(ledger: pd.DataFrame, simulated: bool = False) -> plt.Figure:
    """How long answers took: the seconds of every successful attempt, with the median and the 95th
    percentile.
    """
    seconds = ledger.loc[(ledger["status"] == "ok") & ledger["seconds"].notna(), "seconds"].astype(
        float
    )
    figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
    if seconds.empty:
        axis.text(0.5, 0.5, "no answers yet", ha="center", va="center", transform=axis.transAxes)
        return figures.mark(figure, simulated)
    axis.hist(
        seconds, bins=min(30, max(5, len(seconds) // 3)), color=COLOURS["ok"], edgecolor="white"
    )
    for share, name in ((0.5, "median"), (0.95, "95th percentile")):
        value = seconds.quantile(share)
        axis.axvline(
            value,
            color="#000000",
            linestyle="--" if share < 0.9 else ":",
            linewidth=1,
            label=f"{name} {value:.2g} s",
        )
    axis.set(xlabel="seconds from request to answer", ylabel="images", xlim=(0, None))
    axis.legend(frameon=False)
    return figures.mark(figure, simulated)


def refusals(ledger: pd.DataFrame) -> pd.DataFrame:
    """The prompts that the service refused, how often, and what it said."""
    refused = ledger[ledger["status"] == "refused"]
    return (
        refused.groupby(["prompt_id", "prompt", "error"], dropna=False)
        .size()
        .rename("images")
        .reset_index()
    )


def summary(ledger: pd.DataFrame, made: pd.DataFrame, folder):
    """The stage in one row: images, refusals, attempts, total USD, USD per image, and content
    credentials found and verified.
    """
    sidecars = [folder / "paid" / f"{name}.json" for name in made["image_id"]]
    credentials = [json.loads(path.read_text())["c2pa"] for path in sidecars]
    usd = float(ledger["cost_usd"].sum())
    row = {
        "images": len(made),
        "refused": ledger.loc[ledger["status"] == "refused", "image_id"].nunique(),
        "attempts": len(ledger),
        "perhaps billed, no answer": int((ledger["status"] == "unknown").sum()),
        "total USD": f"{usd:.4f}",
        "USD per image": f"{usd / max(1, len(made)):.4f}",
        "with content credentials": sum(found["present"] for found in credentials),
        "with a verified signature": sum(found.get("verified", False) for found in credentials),
    }
    return pd.DataFrame([row]).style.hide(axis="index")
