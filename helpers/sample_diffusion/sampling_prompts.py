"""The prompts of stage 04, read without torch: a study checks them before anything runs."""

from pathlib import Path

import pandas as pd

from helpers import findings


class SamplingError(RuntimeError):
    """Images that cannot be drawn; the message says what to do."""


def read_prompts(path: Path, modality: str) -> pd.DataFrame:
    """The prompts of one modality: columns prompt_id, modality, view, finding, side, wording,
    count, and `prompt` as text.

    Raises SamplingError naming the file and the column or row that does not fit.
    """
    prompts = pd.read_csv(path, dtype="string", keep_default_na=False)
    needed = ("prompt_id", "modality", "view", "finding", "side", "count")
    if missing := [column for column in needed if column not in prompts.columns]:
        raise SamplingError(
            f"{Path(path).name}: column '{missing[0]}' is missing; it needs {', '.join(needed)}."
        )
    prompts = prompts[prompts.modality == modality].reset_index(drop=True)
    if repeated := list(prompts.prompt_id[prompts.prompt_id.duplicated()]):
        raise SamplingError(f"{Path(path).name}: prompt_id '{repeated[0]}' is there twice.")
    if not prompts["count"].str.fullmatch(r"\d+").all():
        raise SamplingError(f"{Path(path).name}: column 'count' must hold whole numbers.")
    wording = (
        prompts["wording"] if "wording" in prompts else pd.Series("caption", index=prompts.index)
    )
    texts = []
    for row, words in zip(prompts.itertuples(), wording):
        try:
            texts.append(
                findings.prompt(
                    row.modality,
                    row.view,
                    [f for f in row.finding.split("|") if f],
                    row.side,
                    words or "caption",
                )
            )
        except ValueError as error:
            raise SamplingError(f"{Path(path).name}: prompt '{row.prompt_id}': {error}") from None
    return prompts.assign(prompt=texts, count=prompts["count"].astype(int))
