"""Questions that a reader answers once: about himself or herself, and in parts without images."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from helpers import protocol
from helpers.analyse_readings import joined
from helpers.statistics import accuracy
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import column_names

ALL = "all readers"
ELSEWHERE = {"years", "specialty", "prior_ai"}  # the report has them in its table of readers
FEW = f"fewer than {FEW_READERS} readers"


def counts(designed: protocol.Protocol, said: pd.DataFrame) -> pd.DataFrame:
    """How many readers gave each answer, over all readers and by their answers to the questions
    about themselves; `said`: joined.once.
    """
    groups, rows = joined.fields(designed, said), []
    for block, questions in designed.once().items():
        for question in questions:
            if question.id in ELSEWHERE:
                continue
            own = said[(said["block"] == block) & (said["question"] == question.id)]
            about = {"block": block, "question": question.id, "kind": question.kind}
            rows += [about | row for row in _counted(question, own["value"], ALL)]
            for name in groups if question.kind != "text" else ():
                group = own["reader"].map(groups[name])
                if question.text != name and group.nunique() > 1:
                    rows += [
                        about | row
                        for value, part in own.groupby(group, observed=True)
                        for row in _counted(question, part["value"], f"{name}: {value}")
                    ]
    table = pd.DataFrame(rows, columns=column_names("question_once"))
    return table.astype({"count": "Int64", "total": "Int64"})


def _counted(question: protocol.Question, values: pd.Series, group: str) -> Iterator[dict]:
    about = {"group": group, "total": len(values)}
    if question.kind == "number":
        numbers = values.astype(float)
        for name, number in zip(("lowest", "median", "highest"), numbers.quantile([0, 0.5, 1])):
            yield about | {"value": name, "text": name, "estimate": number}
        return
    offered = dict(question.options) or {"true": "yes", "false": "no"}
    offered = {value: value for value in values.unique()} if question.kind == "text" else offered
    chosen = values.str.split("|") if question.kind in protocol.MANY else values.map(lambda v: [v])
    for value, text in offered.items():
        count, total = int(chosen.map(lambda those, one=value: one in those).sum()), len(values)
        enough = total >= FEW_READERS
        low, high = accuracy.wilson(count, total) if enough else (np.nan, np.nan)
        share = {"estimate": count / total if total else np.nan, "low": low, "high": high}
        reason = "" if enough else FEW
        yield about | {"value": value, "text": text, "count": count} | share | {"reason": reason}
