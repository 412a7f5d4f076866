"""The model card that goes with every checkpoint."""

from pathlib import Path

import jinja2
import pandas as pd

from helpers import findings
from helpers.diffusion import base_models, families
from helpers.runner import runs

TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"


def text(
    run: runs.Run,
    frame: pd.DataFrame,
    training: pd.DataFrame,
    sources: dict[str, str],
    pipeline,
) -> str:
    """The README.md of a checkpoint: data, recipe, result, licence of the base, the warning about
    memorisation.
    """
    train = frame[frame.split == "train"]
    losses = pd.Series(dtype=float)  # by step
    if "validation_loss" in training:
        losses = training.set_index("step")["validation_loss"].dropna()
    found = train.finding.fillna("").str.split("|").explode().map(findings.FINDINGS)
    page = jinja2.Template(TEMPLATE.read_text(), trim_blocks=True, keep_trailing_newline=True)
    return page.render(
        run=run,
        recipe=run.parameters,
        base=base_models.public_name(run.parameters.base),
        train=train,
        held_out=int((frame.split == "validation").sum()),
        found=list(found.value_counts().items()),
        licences=list(train.licence.fillna("not given").value_counts().items()),
        sources=sources,
        family=families.of(pipeline).name,
        prediction=families.predicts(pipeline),
        steps=int(training.step.max()) if len(training) else 0,
        losses=losses,
    )
