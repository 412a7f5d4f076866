"""What the study's own questions found: counts, agreement, generated against real images, one block
against another, and what was noticed before anybody was told.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from helpers import protocol
from helpers.analyse_readings import joined, results
from helpers.statistics import accuracy, agreement
from helpers.statistics import clusters as cluster

READERS, GENERAL = "these readers", "readers in general"
TRUTH = "generated minus real"


def main_block(asked: str, designed: protocol.Protocol) -> str:
    """The block whose labels are analysed as the published study's were: the one that is `asked`
    for (parameter `block` of 08), else the first scored one with the published question.

    Raises AnalysisError for a block that does not ask it.
    """
    able = [
        block.block
        for block in designed.scored()
        if protocol.LABEL in {question.id for question in designed.asked(block.block)}
    ]
    if asked and asked not in able:
        raise joined.AnalysisError(
            f"block: '{asked}' is no block with the question '{protocol.LABEL}'; those are"
            f" {', '.join(able)}."
        )
    return asked or able[0]


def of_block(frame: pd.DataFrame, block: str) -> pd.DataFrame:
    """The rows of a block."""
    return frame[frame["block"] == block].reset_index(drop=True)


def analyse(
    designed: protocol.Protocol, key: pd.DataFrame, given: pd.DataFrame, readers: pd.DataFrame
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Results under `own_questions`, and the tables they rest on (name without .csv -> frame).

    `key`: of all blocks; `given`: answers.csv of 07. Training cases, repeats and readers who
    withdrew are left out.
    """
    answers = scored(key, given, readers)
    asked = {
        (block.block, one.id): one
        for block in designed.scored()
        for one in designed.asked(block.block)
    }
    tables = {
        "question_answers": answers[["reader", "block", "image_id", "origin", "question", "value"]],
        "question_counts": pd.DataFrame(list(_counts(answers, asked))),
        "question_agreement": _agreements(answers, asked),
        "question_means": pd.DataFrame(list(_means(answers, asked))),
        "question_contrasts": pd.DataFrame(list(_contrasts(answers, designed, asked))),
    }
    found = {
        name.partition("_")[2]: results.records(frame)
        for name, frame in tables.items()
        if name != "question_answers"
    }
    found["blocks"] = [
        {
            "block": block.block,
            "title": block.title,
            "images": int(answers[answers["block"] == block.block]["image_id"].nunique()),
            **{name: getattr(block, name) for name in ("unaware", "tell_truth", "after_days")},
        }
        for block in designed.blocks
    ]
    found["texts"] = {one.id: one.text for one in designed.questions}
    found["noticed"] = noticed(designed, answers, given, readers)
    return {"own_questions": results.plain(found)}, tables


def scored(key: pd.DataFrame, given: pd.DataFrame, readers: pd.DataFrame) -> pd.DataFrame:
    """Every answer that counts about an image, with its truth: columns of answers.csv and reader,
    image_id, origin, truth (1 generated), cluster, and number (steps of a scale, 1 for yes, 1 for a
    right label; missing for what is no number).
    """
    names = joined.reader_names(readers)
    first = key[~key["training"].fillna(False).astype(bool) & key["repeat_of"].isna()]
    shown = joined.images(first.drop_duplicates("image_id"))
    rows = given[given["reader_id"].isin(names) & given["blind_id"].notna()]
    rows = rows.merge(first[["blind_id", "image_id", "origin"]], on="blind_id")
    said = rows["value"].map({"true": 1.0, "false": 0.0})
    steps = pd.to_numeric(rows["value"], errors="coerce").astype(float)
    right = (rows["value"] == "fake") == (rows["origin"] == "generated")
    right &= rows["value"] != "uncertain"
    number = said.astype(float).fillna(steps)
    return rows.assign(
        reader=rows["reader_id"].map(names),
        truth=(rows["origin"] == "generated").astype(int),
        cluster=rows["image_id"].map(shown["cluster"]),
        number=number.mask(rows["question"] == protocol.LABEL, right.astype(float)),
    )


def _of(answers: pd.DataFrame, block: str, question: str) -> pd.DataFrame:
    return answers[(answers["block"] == block) & (answers["question"] == question)]


def _counts(answers: pd.DataFrame, asked: dict) -> Iterator[dict]:
    """How often each option was chosen, by origin, with the share's interval."""
    for (block, name), question in asked.items():
        offered = dict(question.options) or {"true": "yes", "false": "no"}
        if question.kind in ("text", "number"):
            continue
        for origin, rows in _of(answers, block, name).groupby("origin"):
            chosen = rows["value"].str.split("|")
            for value, text in offered.items():
                hits = chosen.map(lambda values, value=value: value in values).astype(bool)
                if question.kind == "findings" and not hits.any():
                    continue
                found = accuracy.share(hits, rows["cluster"])
                kept = ("count", "total", "estimate", "low", "high", "reason")
                yield {
                    "block": block,
                    "question": name,
                    "origin": origin,
                    "value": value,
                    "text": text,
                } | {part: found[part] for part in kept}


def _agreements(answers: pd.DataFrame, asked: dict) -> pd.DataFrame:
    """Agreement between readers on every question with one answer; steps of a scale by quadratic
    weights.
    """
    frames = []
    for (block, name), question in asked.items():
        if question.kind not in ("choice", "scale", "yes/no", "side"):
            continue
        rows = _of(answers, block, name)
        wide = rows.pivot(index="image_id", columns="reader", values="value")
        groups = rows.drop_duplicates("image_id").set_index("image_id")["cluster"]
        scale = question.kind == "scale"
        values = [value for value, _ in question.options] or ["true", "false"]
        if wide.shape[1] < 2:
            continue
        found = agreement.coefficients(
            wide.astype(float) if scale else wide,
            [int(value) for value in values] if scale else values,
            weights="quadratic" if scale else "identity",
            metric="ordinal" if scale else "nominal",
            clusters=groups.reindex(wide.index),
            scale="atanh",
        )
        frames.append(
            found.rename_axis("coefficient").reset_index().assign(block=block, question=name)
        )
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return results.without_few(table) if frames else table


def _numeric(answers: pd.DataFrame, block: str, name: str) -> pd.DataFrame:
    return _of(answers, block, name).dropna(subset=["number"])


def _means(answers: pd.DataFrame, asked: dict) -> Iterator[dict]:
    """The mean of every question with a number, by origin, over these readers."""
    for (block, name), question in asked.items():
        if question.kind not in ("scale", "yes/no") and name != protocol.LABEL:
            continue
        for origin, rows in _numeric(answers, block, name).groupby("origin"):
            yield {"block": block, "question": name, "origin": origin} | difference(rows, None)


def _contrasts(answers: pd.DataFrame, designed, asked: dict) -> Iterator[dict]:
    """Generated minus real images within a block, and a later block minus an earlier one: of every
    reader, of these readers, and of readers in general.
    """
    blocks = [block.block for block in designed.scored()]
    for (block, name), question in asked.items():
        if question.kind not in ("scale", "yes/no") and name != protocol.LABEL:
            continue
        rows = _numeric(answers, block, name)
        told = {"question": name, "block": block}
        if name != protocol.LABEL and rows["truth"].nunique() == 2:
            yield from _everyone(rows, rows["truth"], told | {"contrast": TRUTH})
        for later in blocks[blocks.index(block) + 1 :]:
            if (later, name) in asked:
                both = pd.concat([rows, _numeric(answers, later, name)])
                side = (both["block"] == later).astype(int)
                yield from _everyone(both, side, told | {"contrast": f"{later} minus {block}"})


def _everyone(rows: pd.DataFrame, side: pd.Series, told: dict) -> Iterator[dict]:
    for reader in sorted(rows["reader"].unique(), key=lambda name: int(name[1:])):
        own = rows["reader"] == reader
        if side[own].nunique() == 2:
            yield told | {"reader": reader} | difference(rows[own], side[own])
    yield told | {"reader": READERS} | difference(rows, side)
    yield told | {"reader": GENERAL} | difference(rows, side, general=True)


def difference(rows: pd.DataFrame, side: pd.Series | None, general: bool = False) -> dict:
    """The mean `number` where `side` is 1 minus that where it is 0 (without `side` the mean), with
    a 95 % t interval; an image in both is a pair.

    Cluster-robust over prompts and patients; in `general` over readers and these (two-way: Cameron,
    Gelbach and Miller, J Bus Econ Stat 2011), with the degrees of freedom of the smaller number.
    """
    side = pd.Series(1, index=rows.index) if side is None else side
    values, later = rows["number"].to_numpy(float), side.to_numpy() == 1
    means = [values[chosen].mean() if chosen.any() else np.nan for chosen in (~later, later)]
    influence = np.where(later, 1, -1) * (values - np.where(later, means[1], means[0]))
    influence = influence / np.where(later, max(later.sum(), 1), max((~later).sum(), 1))
    groups, people = cluster.codes(rows["cluster"], len(rows)), pd.factorize(rows["reader"])[0]
    found = {"before": means[0], "after": means[1], "answers": len(rows)}
    found |= {"images": rows["image_id"].nunique(), "readers": len(set(people))}
    found["estimate"] = means[1] - means[0] if (~later).any() else means[1]
    variance, number = cluster.variance(influence, groups), len(set(groups))
    reason = "" if number >= cluster.FEWEST else f"{number} prompts and patients are too few"
    if general:
        both = pd.factorize(pd.MultiIndex.from_arrays([groups, people]))[0]
        of_readers, each = cluster.variance(influence, people), cluster.variance(influence, both)
        variance = max(variance + of_readers - each, variance, of_readers)
        number = min(number, found["readers"])
        few = found["readers"] < results.FEW_READERS
        reason = f"fewer than {results.FEW_READERS} readers" if few else reason
    if not reason and not variance > 0:
        reason = "all answers are alike"
    half = np.nan if reason else stats.t(number - 1).ppf(0.975) * np.sqrt(variance)
    low, high = found["estimate"] - half, found["estimate"] + half
    return found | {"low": low, "high": high, "reason": reason}


def noticed(designed, answers: pd.DataFrame, given: pd.DataFrame, readers: pd.DataFrame) -> dict:
    """What was noticed in unaware blocks: readers whose own words name generation, readers who say
    afterwards that they had thought of it, and images called unusual by origin. {} without such
    blocks.
    """
    unaware = [block.block for block in designed.blocks if block.unaware]
    if not unaware:
        return {}
    names = joined.reader_names(readers)
    own = given[given["reader_id"].isin(names)]
    written = {one.id for one in designed.questions if one.kind == "text"}
    words = own[own["block"].isin(unaware) & own["question"].isin(written)]
    naming = words[words["value"].str.contains(protocol.NAMES_GENERATION)]["reader_id"].nunique()
    later = own[(own["question"] == "noticed") & ~own["block"].isin(unaware)]
    found = {
        "words": _share(naming, len(names)),
        "said": _share(int((later["value"] == "true").sum()), len(later)),
    }
    marked = answers[(answers["question"] == "unusual") & answers["block"].isin(unaware)]
    for origin, rows in marked.groupby("origin"):
        found[origin] = accuracy.share(rows["number"] == 1, rows["cluster"])
    if marked["truth"].nunique() == 2:
        found["difference"] = difference(marked, marked["truth"])
        found["general"] = difference(marked, marked["truth"], general=True)
    return found


def _share(count: int, total: int) -> dict:
    low, high = accuracy.wilson(count, total)
    share = count / total if total else None
    return {
        "count": count,
        "total": total,
        "estimate": share,
        "low": low,
        "high": high,
        "reason": "",
    }
