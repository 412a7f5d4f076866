"""What is associated with right answers (a mixed model), and what changes during the read."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import special
from statsmodels.stats.multitest import multipletests

from helpers.plurals import counted
from helpers.statistics import drift, mixed_model
from helpers.statistics.clusters import FEWEST
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import column_names

FEW_ANSWERS = 10  # minimum numbers of right and of wrong answers
RARE = "the rarer ones"  # name for all levels of an effect with few images
BIAS = "readers' bias towards “fake” or “real”"  # name of a random effect
ENDS = ["estimate", "low", "high"]
ORDER = {
    "accuracy over position": ("right", "share"),
    "time over position": ("time", "share"),
    "time of right answers": ("time", "right"),
}


def first_answers(answers: pd.DataFrame, shown: pd.DataFrame, policy: str) -> pd.DataFrame:
    """The first answers with right (0 or 1; uncertain answers are wrong, or missing if `policy` is
    dropped), share (0 for a reader's first image, 1 for the last), time (log of the seconds), kind
    (modality and source) and cluster.
    """
    position = answers["position"].astype(float)
    place = position.groupby(answers["reader"])
    span = place.transform("max") - place.transform("min")
    share = (position - place.transform("min")) / span.where(span > 0)
    right = answers["label"] == answers["truth"].map({0: "real", 1: "fake"})
    left = (answers["label"] == "uncertain") & (policy == "dropped")
    seconds = answers["seconds"].astype(float)
    made = answers["generator"].astype(object).where(answers["truth"] == 1, "real images")
    table = answers.assign(
        right=right.astype(float).mask(left),
        share=share,
        time=np.log(seconds.where(seconds > 0)),
        made=made.fillna("not stated"),
        cluster=answers["image_id"].map(shown["cluster"]),
    )
    table["kind"] = table["modality"].astype(str) + " " + table["made"]
    return table[table["presentation"] == 1]


def changes(first: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables drift (accuracy and time over position, time against being right) and drift_course
    (both in each fifth of the read).
    """
    slopes = pd.DataFrame(
        [
            {"measure": measure, "outcome": outcome}
            | drift.mean_slope(drift.slopes(first, outcome, by), FEW_READERS)
            for measure, (outcome, by) in ORDER.items()
        ]
    )
    known = first[first["share"].notna()]
    course = pd.concat(
        [
            drift.course(known, outcome, FEW_READERS).assign(measure=measure, outcome=outcome)
            for measure, outcome in (("accuracy", "right"), ("seconds", "time"))
        ],
        ignore_index=True,
    )
    for table, lowest in ((slopes, -1), (course, 0)):
        told, timed = table[ENDS].astype(float), table["outcome"] == "time"
        # A line through few answers may lead out of the range of shares.
        table[ENDS] = np.exp(told).where(timed, told.clip(lowest, 1), axis=0)
    return {
        "drift": slopes[column_names("drift")],
        "drift_course": course.drop(columns="outcome"),
    }


def model(first: pd.DataFrame) -> tuple[pd.DataFrame, dict]:
    """Odds ratios of right answers (table model_effects), and the facts of the model: answers,
    readers ("random", or "these" with fewer than FEW_READERS), number_of_readers, spread (standard
    deviations of the random effects in log odds) and reason (why there is no model).
    """
    known = first[first["right"].notna() & first["share"].notna()]
    number = known["reader"].nunique()
    general = number >= FEW_READERS
    about = {"answers": len(known), "readers": "random" if general else "these", "spread": {}}
    about["number_of_readers"] = number
    columns, rows = [], []
    if not (reason := lacking(known, first)):
        columns, rows = design(known, general)
        reason = "" if columns else "no effect has levels that differ"
    if not reason:
        fixed = np.column_stack([*base(known, general), *(c for *_, c in columns)])
        right = known["right"].to_numpy(dtype=float)
        try:
            fit = mixed_model.logistic(right, fixed, shared(known, general, fixed))
            about["spread"] = fit.spread
            rows = [
                dict(zip(("effect", "level", "reference"), said)) | ratio(fit, place)
                for place, (*said, _) in enumerate(columns, fixed.shape[1] - len(columns))
            ] + rows
        except mixed_model.NoFit as error:
            reason = str(error)
    table = adjusted(pd.DataFrame(rows).reindex(columns=column_names("model_effects")))
    table["reason"] = table["reason"].astype(object).fillna("")
    return table, about | {"reason": reason}


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with p_holm: its p-values, if any, adjusted by Holm's method."""
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = multipletests(table["p"][tested], method="holm")[1]
    return table


def lacking(known: pd.DataFrame, first: pd.DataFrame) -> str:
    """The reason why no model is possible; empty if it is possible. `first`: all first answers."""
    right = int(known["right"].sum())
    if first["share"].isna().all():
        return "no reader has several answers with known positions"
    if known.empty:
        return "all answers are “uncertain” and left out"
    if known["reader"].nunique() < 2:
        return (
            "one reader with answers that count: no image has two of them, so images and chance"
            " cannot be separated"
        )
    if min(right, len(known) - right) < FEW_ANSWERS:
        return f"fewer than {FEW_ANSWERS} right or {FEW_ANSWERS} wrong answers"
    return ""


def ratio(fit: mixed_model.Fit, place: int) -> dict:
    """The odds ratio of the fixed effect at `place`, with its 95 % interval and test."""
    effect, se, df = fit.effects[place], np.sqrt(fit.covariance[place, place]), fit.df[place]
    half = special.stdtrit(df, 0.975) * se
    return {
        "estimate": np.exp(effect),
        "low": np.exp(effect - half),
        "high": np.exp(effect + half),
        "statistic": effect / se,
        "df": df,
        "p": 2 * special.stdtr(df, -abs(effect / se)),
    }


def base(known: pd.DataFrame, general: bool) -> list[np.ndarray]:
    """The intercept. With few readers, also one column for each reader except the last, alone and
    by truth, so that the effects are means over these readers.
    """
    columns = [np.ones(len(known))]
    if not general:
        dummies = pd.get_dummies(known["reader"]).to_numpy(dtype=float)
        own = list((dummies[:, :-1] - dummies[:, -1:]).T)
        columns += own
        if known["truth"].nunique() == 2:
            columns += [c * (known["truth"].to_numpy() - 0.5) for c in own]
    return columns


def shared(known: pd.DataFrame, general: bool, fixed: np.ndarray) -> dict:
    """The random effects: images, the prompts and patients that several images share and, with
    enough readers, the readers and each reader's tendency to say "fake".
    """
    found, each = {}, np.ones(len(known))

    def factor(name: str, amount: np.ndarray) -> mixed_model.Factor:
        codes = pd.factorize(known[name])[0]
        # An effect that does not vary within a level was estimated from the levels.
        means = pd.DataFrame(fixed).groupby(codes).transform("std").fillna(0).to_numpy()
        between = int((means < 1e-9).all(axis=0).sum())
        return mixed_model.Factor(codes, amount, max(codes.max() + 1.0 - between, 1.0))

    if general:
        found["readers"] = factor("reader", each)
        if known["truth"].nunique() == 2:
            found[BIAS] = factor("reader", known["truth"].to_numpy() - 0.5)
            found[BIAS].df = known["reader"].nunique() - 1.0
    found["images"] = factor("image_id", each)
    images = known.drop_duplicates("image_id")
    if images["cluster"].duplicated().any() and images["cluster"].nunique() >= FEWEST:
        found["prompts and patients"] = factor("cluster", each)
    return found


def design(known: pd.DataFrame, general: bool) -> tuple[list[tuple], list[dict]]:
    """The fixed effects as (effect, level, reference, column), and one row with the reason for each
    effect that is left out.
    """
    truth, made = known["truth"], known["made"]
    wanted = {
        "source": [("generated images", "real images", truth - 0.5)],
        "generator": levels(made, known["image_id"], truth == 1),
        "modality": levels(known["modality"], known["image_id"], reference="xray"),
        "finding": levels(
            known["true_finding"].fillna("not stated"), known["image_id"], reference="no_finding"
        ),
        **readers(known, general),
        "position": [("last image", "first image", known["share"] - 0.5)],
    }
    reasons = {effect: parts for effect, parts in wanted.items() if isinstance(parts, str)}
    columns = {}
    for effect in [effect for effect in wanted if effect not in reasons]:
        own = np.column_stack([np.asarray(column, dtype=float) for *_, column in wanted[effect]])
        if effect == "generator":  # a contrast among the generated images
            own -= own[truth == 1].mean(axis=0) * truth.to_numpy()[:, None]
        if np.ptp(own, axis=0).any():
            columns[effect] = own
        else:
            reasons[effect] = "it does not vary"
    reasons |= inseparable(np.column_stack(base(known, general)), columns)
    chosen = [
        (effect, level, reference, columns[effect][:, place])
        for effect, parts in wanted.items()
        if effect not in reasons
        for place, (level, reference, _) in enumerate(parts)
    ]
    return chosen, [
        {"effect": effect, "level": "", "reference": "", "reason": reasons[effect]}
        for effect in wanted
        if effect in reasons
    ]


def inseparable(readers: np.ndarray, columns: dict[str, np.ndarray]) -> dict[str, str]:
    """Effects that cannot be separated from the readers' columns or from other effects, and
    from what. None is kept, because the one kept would get the credit for the others.
    """

    def replaced(effect: str, others: Iterable[str]) -> bool:
        there = np.column_stack([readers, *(columns[other] for other in others)])
        needed = np.linalg.matrix_rank(there) + columns[effect].shape[1]
        return np.linalg.matrix_rank(np.column_stack([there, columns[effect]])) < needed

    found = {}
    for effect in columns:
        others = [other for other in columns if other != effect]
        if replaced(effect, others):
            alone = [other for other in others if replaced(effect, [other])]
            what = "who read" if replaced(effect, []) else " and ".join(alone) or "other effects"
            found[effect] = f"it cannot be separated from {what}"
    return found


def levels(values: pd.Series, images: pd.Series, inside=None, reference="") -> list[tuple] | str:
    """(level, reference, column) of every level except the reference, or the reason why there is
    none. If the wanted reference is missing, it is the most frequent level. Levels of fewer than
    FEWEST images form one level, RARE, or join the reference if they are still too few.
    """
    values = values.astype(object)
    chosen = values if inside is None else values[inside]
    counts = images[chosen.index].groupby(chosen).nunique().sort_values(ascending=False)
    rare = counts.index[counts < FEWEST]
    kept = [name for name in counts.index if name not in rare]
    if counts[rare].sum() >= FEWEST:
        kept.append(RARE)
        values = values.where(~values.isin(rare), RARE)
    if len(kept) < 2:
        few = f"only one level has {FEWEST} images or more"
        return few if len(counts) > 1 else "it does not vary"
    reference = reference if reference in kept else kept[0]
    return [(name, reference, (values == name).astype(float)) for name in kept if name != reference]


def readers(known: pd.DataFrame, general: bool) -> dict:
    """The effects of experience and of prior knowledge of AI, or why they are left out."""
    people = known.drop_duplicates("reader")
    years, knew = people["years"].astype(float), people["prior_ai"].astype("boolean")
    few = "" if general else f"fewer than {FEW_READERS} readers"
    experience, prior = (
        few or ("it is not known for every reader" if values.isna().any() else "")
        for values in (years, knew)
    )
    if not prior and not 2 <= knew.sum() <= len(knew) - 2:
        prior = "fewer than two readers with it, or without it"
    # An odds ratio of ten years says nothing where readers are not ten years apart.
    step = 10 if np.ptp(years) >= 10 else 1
    more = known["years"].astype(float) / step
    yes = known["prior_ai"].astype("boolean").fillna(False).astype(float)
    return {
        "experience": experience or [(counted(step, "more year"), "", more - more.mean())],
        "prior knowledge of AI": prior or [("yes", "no", yes)],
    }
