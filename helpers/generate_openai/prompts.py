"""The prompts of a study, and one order with a permanent id for every image."""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from helpers import findings, tables
from helpers.generate_openai import shapes
from helpers.services import budget

MOST_IMAGES = 100_000  # beyond what the budget covers, or of images that cost nothing
LONGEST_PROMPT = {"gpt-image": 32_000, "dall-e": 1000}


class PromptError(ValueError):
    """A prompts table that cannot be sent; the message names file and line."""


@dataclass(frozen=True)
class Order:
    """One image to be generated."""

    image_id: str
    prompt_id: str
    prompt: str
    modality: str
    view: str
    finding: str
    side: str
    caption: str
    replicate: int
    size: str
    ratio: float

    @property
    def group(self) -> str:
        """Orders that fail together: a refused prompt is refused for all its images."""
        return self.prompt


def read_prompts(path: Path) -> pd.DataFrame:
    """The prompts table with every prompt in full: given, or made from modality, view, finding,
    side and wording.

    Raises TableError for wrong columns, PromptError for an unknown finding, a duplicate id or a
    count below 0.
    """
    table = tables.filled_in(path, "prompts")
    written, captions = [], []
    for number, row in enumerate(
        table.astype(object).where(table.notna(), "").to_dict("records"), 2
    ):
        try:
            ids = [part for part in row["finding"].split("|") if part]
            captions.append(findings.caption(row["modality"], row["view"], ids, row["side"]))
            written.append(
                # The ledger, a CSV file, cannot keep a carriage return alone.
                re.sub(r"\r(?!\n)", "\n", row["prompt"])
                if row["prompt"].strip()
                else findings.prompt(
                    row["modality"], row["view"], ids, row["side"], row["wording"] or "caption"
                )
            )
        except ValueError as error:
            raise PromptError(f"{path} line {number}: {error}") from None
    table = table.assign(prompt=written, caption=captions)
    table["prompt_id"] = [
        given if pd.notna(given) else stable_id("p", text)
        for given, text in zip(table["prompt_id"], written)
    ]
    if table["prompt_id"].duplicated().any():
        twice = table.loc[table["prompt_id"].duplicated(), "prompt_id"].iloc[0]
        raise PromptError(
            f"{path}: prompt '{twice}' appears twice; give one line a higher count or another"
            " wording."
        )
    if (table["count"] < 0).any():
        raise PromptError(f"{path}: count must be 0 or more.")
    return table


def orders(prompts: pd.DataFrame, service, cases: dict | None = None) -> list[Order]:
    """One order for every image: `count` replicates of every prompt, in the shapes of `cases`
    (shapes.of_cases).

    Raises PromptError for a prompt that is too long.
    """
    _check_count(int(prompts["count"].sum()), service)
    wanted, longest = [], LONGEST_PROMPT[service.shape]
    # Lines with the same words continue the count, or their images would be the same.
    numbered = Counter()
    names = ("prompt_id", "prompt", "modality", "view", "finding", "side", "caption")
    for row in prompts.astype(object).where(prompts.notna(), "").to_dict("records"):
        if len(row["prompt"]) > longest:
            raise PromptError(
                f"Prompt '{row['prompt_id']}' has {len(row['prompt'])} characters, but this request"
                f" allows {longest}."
            )
        for _ in range(row["count"]):
            replicate = numbered[row["prompt"]]
            numbered[row["prompt"]] += 1
            name = identity(service, row["prompt"], replicate)
            shape = shapes.drawn(cases or {}, service, row["modality"], name)
            wanted.append(Order(name, *(row[key] for key in names), replicate, *shape))
    return wanted


def _check_count(count: int, service) -> None:
    """Raises PromptError for more images than a budget covers or a study can have."""
    settings = service.parameters
    each = budget.estimate(
        service.price, "", settings.size, service.quality or "auto", [], False
    ).usd
    covered = settings.budget_usd / each if each else MOST_IMAGES
    if count > max(covered, MOST_IMAGES):
        limit = (
            f"a budget of {settings.budget_usd:g} USD covers about {int(covered):,}: lower the"
            " counts or raise budget_usd"
            if each
            else f"the most is {covered:,}"
        )
        raise PromptError(f"{settings.prompt_table} asks for {count:,} images; {limit}.")


def identity(service, prompt: str, replicate: int) -> str:
    """The image's id: a hash of provider, model, prompt, size, quality and replicate number (and of
    extra fields sent along). The case that gave the shape is not part of it, so a paid image keeps
    its id when the cases change.
    """
    settings = service.parameters
    size = f"{settings.size} in the shapes of cases" if settings.cases else settings.size
    parts = [settings.provider, settings.model, prompt, size, settings.quality, replicate]
    parts += [service.extra_body] if service.extra_body else []
    return stable_id("g", json.dumps(parts, sort_keys=True))


def stable_id(prefix: str, text: str) -> str:
    """A short id that follows from a text."""
    return prefix + hashlib.sha256(text.encode()).hexdigest()[:16]
