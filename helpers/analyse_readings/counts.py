"""Counts what was read by whom and how many images were labelled alike: the design, the flow of
answers, the numbers of the published poster.
"""

import numpy as np
import pandas as pd

from helpers.analyse_readings import image_sets, joined
from helpers.statistics import accuracy, design
from helpers.table_columns import LABELS


def describe(key, shown, readers, labels, confidence) -> dict:
    """The design: what was read by whom, which images are related, and what is associated with the
    truth.
    """
    training = key["training"].fillna(False).astype(bool)
    people = joined.not_withdrawn(readers)
    sources = shown.assign(generator=shown["generator"].fillna(""))
    of_source = sources.groupby(["modality", "origin", "generator"]).size()
    real = shown["truth"] == 0
    return {
        "images": len(shown),
        "real": int(real.sum()),
        "generated": int((~real).sum()),
        "patients": int(shown["cluster"][real].nunique()),
        "prompts": int(shown["cluster"][~real].nunique()),
        "clustered": image_sets.clusters(shown) is not None,
        "imbalance": {
            by: design.imbalance(shown["truth"], shown[by])
            for by in ("modality", "finding", "view")
        },
        "by_source": of_source.rename("images").reset_index().to_dict("records"),
        "repeats": int((key["repeat_of"].notna() & ~training).sum()),
        "training": int(training.sum()),
        "readers": len(people),
        "complete_images": int(labels.notna().all(axis=1).sum()),
        "confidence_asked": bool(confidence.notna().any().any()),
        "simulated_readers": int(people["simulated"].fillna(False).sum()),
        "prior_ai": int(people["prior_ai"].fillna(False).sum()),
        "categories": LABELS,
    }


def flow(design: dict, key, readers, answers) -> dict:
    """Counts of the flow diagram, from presentations to answers that count; `design`: describe."""
    first = answers[answers["presentation"] == 1]
    expected = design["images"] * design["readers"]
    return {
        "presentations": len(key),
        **{name: design[name] for name in ("training", "repeats", "images")},
        "registered": len(readers),
        "withdrawn": len(readers) - design["readers"],
        "readers": design["readers"],
        "expected_answers": expected,
        "answers": len(first),
        "missing_answers": expected - len(first),
        "uncertain_answers": int((first["label"] == "uncertain").sum()),
        "repeat_answers": int((answers["presentation"] > 1).sum()),
    }


def headline(labels: pd.DataFrame, shown: pd.DataFrame, found: pd.DataFrame) -> list[dict]:
    """The numbers of the published poster, per modality and origin: images labelled alike by every
    reader, images called fake by at least two, and conditions.
    """
    rows, groups = [], image_sets.clusters(shown)
    for (origin, modality), images in shown.groupby(["origin", "modality"]).groups.items():
        chosen = labels.loc[images]
        row = {
            "modality": modality,
            "origin": origin,
            "images": len(chosen),
            "readers": chosen.shape[1],
        }
        counted = {f"all_{label}": joined.all_are(chosen, label) for label in LABELS}
        for name, yes in (counted | {"two_fake": joined.at_least_two(chosen, "fake")}).items():
            own = None if groups is None else groups[yes.index]
            row[name] = accuracy.share(yes, own, of=accuracy.unit(shown["truth"][images]))
            row[name]["chance"] = by_chance(labels, yes.index, name)
        said = found[(found["modality"] == modality) & (found["origin"] == origin)].head(6)
        said = said[["finding", "name", "answers", "images", "of_answers"]]
        rows.append(row | {"conditions": said.to_dict("records")})
    return rows


def by_chance(labels: pd.DataFrame, images: pd.Index, name: str) -> float:
    """The share of `images` expected by chance: every reader gives each label as often as now, but
    to random images. None without images; missing answers stay missing.
    """
    rates = {label: ((labels == label).sum() / labels.notna().sum()).fillna(0) for label in LABELS}
    given = labels.loc[images].notna()
    patterns, times = np.unique(given, axis=0, return_counts=True)
    found = [_counted(name, *(rates[label][pattern] for label in LABELS)) for pattern in patterns]
    return float(np.average(found, weights=times)) if len(images) else None


def _counted(name: str, real: pd.Series, fake: pd.Series, uncertain: pd.Series) -> float:
    if name.startswith("all_"):
        return float({"real": real, "fake": fake, "uncertain": uncertain}[name[4:]].prod())
    votes = np.array([1.0])
    for for_it, against in zip(*((fake, 0 * fake) if name == "two_fake" else (real, fake))):
        votes = np.convolve(votes, [against, 1 - for_it - against, for_it])
    return float(votes[len(fake) + (2 if name == "two_fake" else 1) :].sum())


def fooled(images: pd.DataFrame) -> dict:
    """Generated images that somebody labelled (`generated`), those of them that more readers called
    real than fake, and how many of these are near copies of a training case.
    """
    generated = images[(images["origin"] == "generated") & (images["readers"] > 0)]
    found = {"generated": len(generated), "fooled": int(generated["fooled"].sum())}
    if "distance" not in images or images["distance"].isna().all():
        return found | {"distance_known": False}
    measured = generated[generated["distance"].notna()]
    deceived, copies = measured["fooled"], measured["copy"].fillna(False).astype(bool)
    return found | {
        "distance_known": True,
        "measured": len(measured),
        "median_distance_fooled": measured.loc[deceived, "distance"].median(),
        "median_distance_other": measured.loc[~deceived, "distance"].median(),
        "fooled_measured": int(deceived.sum()),
        "fooled_copies": int((deceived & copies).sum()),
    }
