"""What the study's own questions found: counts, agreement, generated against real images, one block
against another, and what was noticed before anybody was told.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pandas as pd

from helpers import protocol, table_columns
from helpers.analyse_readings import joined, marks, pairs, questions_once, results
from helpers.statistics import accuracy, agreement
from helpers.statistics.differences import difference

TRUTH = "generated minus real"
EXAMPLES = 3  # in the readers' own words, of a question and origin
NUMBERED = ("scale", "yes/no", "number")


def main_block(wanted: str, designed: protocol.Protocol) -> str:
    """The block whose labels are analysed as the published study's were: the one that is `wanted`
    for (parameter `block` of 08), else the first scored one with the published question.

    Raises AnalysisError for a block that does not ask it.
    """
    able = [
        block.block
        for block in designed.scored()
        if protocol.LABEL in {question.id for question in designed.questions_of(block.block)}
    ]
    if wanted and wanted not in able:
        raise joined.AnalysisError(
            f"block: '{wanted}' does not ask the question '{protocol.LABEL}'; these blocks do:"
            f" {', '.join(able)}."
        )
    return wanted or able[0]


def of_block(frame: pd.DataFrame, block: str) -> pd.DataFrame:
    """The rows of a block."""
    return frame[frame["block"] == block].reset_index(drop=True)


def analyse(
    designed: protocol.Protocol,
    key: pd.DataFrame,
    given: pd.DataFrame,
    readers: pd.DataFrame,
    shown_at: Mapping = MappingProxyType({"size": 1}),
) -> tuple[dict, dict[str, pd.DataFrame]]:
    """Results under `own_questions`, and the tables they rest on (name without .csv -> frame).

    `key`: of all blocks; `given`: answers.csv of 07; `shown_at`: side of the images in pixels
    (size). Training cases, repeats and readers who withdrew are left out.
    """
    compared = pairs.of_key(key)
    answers = scored(key, given, readers, compared)
    said = joined.once(given, readers)
    questions = {
        (block.block, one.id): one
        for block in designed.scored()
        for one in designed.questions_of(block.block)
    }
    paired, more = pairs.analyse(designed, compared, answers)
    marked, drawn = marks.analyse(designed, answers, key, shown_at["size"])
    more |= drawn
    tables = more | {
        "question_answers": pd.concat([answers, said])[
            table_columns.column_names("question_answers")
        ],
        "question_once": questions_once.counts(designed, said),
        "question_counts": pd.DataFrame(list(_counts(answers, questions))),
        "question_agreement": _agreements(answers, questions),
        "question_means": pd.DataFrame(list(_means(answers, questions))),
        "question_contrasts": pd.DataFrame(list(_contrasts(answers, designed, questions))),
    }
    found = {
        **{
            name.partition("_")[2]: results.records(frame)
            for name, frame in tables.items()
            if name not in ("question_answers", *more)
        },
        "blocks": _blocks(designed, answers),
        "words": list(_words(answers, questions)),
        "titles": designed.titles(),
        "asked": _described(designed),
        "noticed": noticed(designed, answers, given, readers),
    }
    return results.plain({"own_questions": found} | paired | marked), tables


def _blocks(designed: protocol.Protocol, answers: pd.DataFrame) -> list[dict]:
    """Each block with the number of its images, and of those that an earlier one showed."""
    rows, earlier = [], set()
    for block in designed.blocks:
        own = {*answers.loc[answers["block"] == block.block, "image_id"]}
        about = {"block": block.block, "title": block.title, "images": len(own)}
        about["again"] = len(own & earlier)
        about |= {n: getattr(block, n) for n in ("unaware", "tell_truth", "after_days", "pairs")}
        rows.append(about)
        earlier |= own
    return rows


def _described(designed: protocol.Protocol) -> dict[str, dict]:
    """What the report says of every question, by block and id: text, kind, the ends of its scale,
    and whether it is asked once.
    """
    once = designed.once()
    return {
        block: {
            one.id: {
                "text": one.text,
                "kind": one.kind,
                "steps": len(one.options),
                "ends": " to ".join(_ends(one)),
                "follows": _follows(one, designed.questions_of(block)),
                "once": block in once and one.id not in questions_once.ELSEWHERE,
            }
            for one in designed.questions_of(block)
        }
        for block in (*once, *(block.block for block in designed.scored()))
    }


def _follows(question: protocol.Question, others: list[protocol.Question]) -> str:
    """“yes” to “Do you know AI?”: the answer after which a question is shown, or ""."""
    if not question.shown_when:
        return ""
    name, answer = question.shown_when
    before = next(one for one in others if one.id == name)
    words = dict(before.options) or {"true": "yes", "false": "no"}
    return f"“{words.get(answer, answer)}” to “{before.text}”"


def _ends(question: protocol.Question) -> list[str]:
    """1 Poor, 5 Excellent; a text that begins with its own number has no second one."""
    ends = question.options[:1] + question.options[-1:] if question.kind == "scale" else ()
    return [text if text.startswith(value) else f"{value} {text}" for value, text in ends]


def scored(
    key: pd.DataFrame, given: pd.DataFrame, readers: pd.DataFrame, compared: pd.DataFrame
) -> pd.DataFrame:
    """Every answer that counts about an image, with its truth: columns of answers.csv and reader,
    image_id, origin, truth (1 generated), cluster, and number (steps of a scale, 1 for yes, 1 for a
    right label; missing for what is not a number).

    About a pair (`compared`: pairs.of_key) the image_id is that of both, left|right, the origin
    "pair", and truth missing.
    """
    names = joined.reader_names(readers)
    first = key[~key["training"].fillna(False).astype(bool) & key["repeat_of"].isna()]
    shown = joined.images(first.drop_duplicates("image_id"))
    first = first.assign(cluster=first["image_id"].map(shown["cluster"]))
    kept = ["blind_id", "image_id", "origin", "cluster"]
    alone = first[~first["blind_id"].isin(compared["blind_id"])]
    both = compared.assign(image_id=compared["left"] + "|" + compared["right"], origin="pair")
    rows = given[given["reader_id"].isin(names) & given["blind_id"].notna()]
    rows = rows.merge(pd.concat([alone[kept], both[kept]]), on="blind_id")
    number = pd.to_numeric(rows["value"].replace({"true": "1", "false": "0"}), errors="coerce")
    right = (rows["value"] == "fake") == (rows["origin"] == "generated")
    right &= rows["value"] != "uncertain"
    return rows.assign(
        reader=rows["reader_id"].map(names),
        truth=rows["origin"].map({"real": 0.0, "generated": 1.0}),
        number=number.astype(float).mask(rows["question"] == protocol.LABEL, right.astype(float)),
    )


def _of(answers: pd.DataFrame, block: str, question: str) -> pd.DataFrame:
    return answers[(answers["block"] == block) & (answers["question"] == question)]


def _counts(answers: pd.DataFrame, questions: dict) -> Iterator[dict]:
    """How often each option was chosen, by origin, with the share's interval."""
    for (block, name), question in questions.items():
        offered = dict(question.options) or {"true": "yes", "false": "no"}
        if question.kind in ("text", "number", protocol.MARKS):
            continue
        for origin, rows in _of(answers, block, name).groupby("origin"):
            chosen, of = rows["value"].str.split("|"), accuracy.unit(rows["truth"])
            for value, text in offered.items():
                hits = chosen.map(lambda values, value=value: value in values).astype(bool)
                if question.kind == "findings" and not hits.any():
                    continue
                about = {"block": block, "question": name, "origin": origin, "value": value}
                yield about | {"text": text} | accuracy.share_row(hits, rows["cluster"], of)


def _words(answers: pd.DataFrame, questions: dict) -> Iterator[dict]:
    """How often something was written, by origin, one row for each of the longest answers."""
    for (block, name), question in questions.items():
        if question.kind != "text" or name == "description":  # has examples of its own
            continue
        for origin, rows in _of(answers, block, name).groupby("origin"):
            about = {"block": block, "question": name, "origin": origin, "answers": len(rows)}
            rows = rows.drop_duplicates("value").sort_values("value", key=lambda v: -v.str.len())
            for row in rows.head(EXAMPLES).itertuples():
                yield about | {"reader": row.reader, "value": row.value}


def _agreements(answers: pd.DataFrame, questions: dict) -> pd.DataFrame:
    """Agreement between readers on every question with one answer; steps of a scale by quadratic
    weights.
    """
    frames = []
    for (block, name), question in questions.items():
        if question.kind not in ("choice", "scale", "yes/no", "side"):
            continue
        rows = _of(answers, block, name)
        wide = rows.pivot(index="image_id", columns="reader", values="value")
        groups = rows.drop_duplicates("image_id").set_index("image_id")["cluster"]
        scale = question.kind == "scale"
        values = [value for value, _ in question.options] or ["true", "false"]
        if wide.shape[1] < 2:
            continue
        table = agreement.coefficients(
            wide.astype(float) if scale else wide,
            [int(value) for value in values] if scale else values,
            weights="quadratic" if scale else "identity",
            metric="ordinal" if scale else "nominal",
            clusters=groups.reindex(wide.index),
            scale="atanh",
        )
        table = results.without_few(table.rename_axis("coefficient").reset_index())
        frames.append(table.assign(block=block, question=name))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _numeric(answers: pd.DataFrame, block: str, name: str) -> pd.DataFrame:
    return _of(answers, block, name).dropna(subset=["number"])


def _means(answers: pd.DataFrame, questions: dict) -> Iterator[dict]:
    """The mean of every question with a number, by origin, over these readers."""
    for (block, name), question in questions.items():
        if question.kind not in NUMBERED and name != protocol.LABEL:
            continue
        for origin, rows in _numeric(answers, block, name).groupby("origin"):
            yield {"block": block, "question": name, "origin": origin} | difference(rows, None)


def _contrasts(answers: pd.DataFrame, designed, questions: dict) -> Iterator[dict]:
    """Generated minus real images within a block, and a later block minus an earlier one: of every
    reader, of these readers, and of readers in general.
    """
    blocks = [block.block for block in designed.scored() if not block.pairs]
    for (block, name), question in questions.items():
        numbered = question.kind in NUMBERED or name == protocol.LABEL
        if block not in blocks or not numbered:
            continue
        rows = _numeric(answers, block, name)
        about = {"question": name, "block": block}
        if name != protocol.LABEL and rows["truth"].nunique() == 2:
            yield from _everyone(rows, rows["truth"], about | {"contrast": TRUTH})
        for later in blocks[blocks.index(block) + 1 :]:
            if (later, name) in questions:
                both = pd.concat([rows, _numeric(answers, later, name)])
                side = (both["block"] == later).astype(int)
                yield from _everyone(both, side, about | {"contrast": f"{later} minus {block}"})


def _everyone(rows: pd.DataFrame, side: pd.Series, about: dict) -> Iterator[dict]:
    for reader in sorted(rows["reader"].unique(), key=lambda name: int(name[1:])):
        own = rows["reader"] == reader
        if side[own].nunique() == 2:
            yield about | {"reader": reader} | difference(rows[own], side[own])
    yield about | {"reader": pairs.THESE} | difference(rows, side)
    yield about | {"reader": pairs.GENERAL} | difference(rows, side, general=True)


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
        found[origin] = accuracy.share(
            rows["number"] == 1, rows["cluster"], of=accuracy.unit(rows["truth"])
        )
    if marked["truth"].nunique() == 2:
        found["difference"] = difference(marked, marked["truth"])
        found["general"] = difference(marked, marked["truth"], general=True)
    return found


def _share(count: int, total: int) -> dict:
    ends = accuracy.wilson(count, total)
    share = count / total if total else None
    return dict(zip(accuracy.SHARE_FIELDS, (count, total, share, *ends, "")))
