"""Runs of stage 02 for tests: real parameters, the real client, a real server on loopback."""

import asyncio

import pandas as pd
import pytest

from helpers import tables
from helpers.generate_openai import paid_images, prompts, requests, service
from helpers.runner import folders, parameters, runs
from helpers.services import retry_policy

MODEL = "gpt-image-2-2026-04-21"
EACH = 196 * 30e-6  # USD of an image's output tokens at low quality


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setattr(retry_policy, "FIRST_WAIT_SECONDS", 0.02)


def run_of(**values):
    """A run of 02 with its notebook's defaults but for `values`, and quality low."""
    declared = parameters.schema(folders.NOTEBOOKS / "02_generate_openai.ipynb")
    defaults = {key: parameter.default for key, parameter in declared.items()}
    unknown = values.keys() - declared.keys()
    assert not unknown, unknown
    return runs.Run("s", "02_generate_openai", defaults | {"quality": "low"} | values)


def service_of(**values):
    return service.of(run_of(**{"base_url": "http://127.0.0.1:9"} | values))


def table(*prompts_and_counts):
    rows = [
        {"prompt_id": f"p{number}", "modality": "xray", "finding": "effusion", "side": "left"}
        | {"prompt": prompt, "count": count}
        for number, (prompt, count) in enumerate(prompts_and_counts)
    ]
    return tables.check(pd.DataFrame(rows), "prompts").assign(caption="a caption")


def generation(
    server, count=6, prompt="chest X-ray with left pleural effusion", cases_found=None, **values
):
    """What is to be done at a server: `count` images of a prompt, or of each of several."""
    run = run_of(**{"base_url": server.url} | values)
    asked = service.of(run)
    words = [prompt] if isinstance(prompt, str) else prompt
    return requests.Generation(
        run, asked, prompts.orders(table(*((each, count) for each in words)), asked, cases_found)
    )


def generate(made):
    asyncio.run(requests.generate(made))
    return made.ledger.frame()


def on_disk(made):
    return [order for order in made.orders if paid_images.on_disk(made.paid, order.image_id)]
