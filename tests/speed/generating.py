"""How fast stage 02 generates, beside a plain loop and the limit that the service itself sets."""

import asyncio
import math
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pandas as pd
from faulty_service import ImageServer

from helpers import tables
from helpers.generate_openai import answers, prompts, requests, service
from helpers.runner import folders, parameters, runs
from speed import measurement

MODEL = "gpt-image-2-2026-04-21"


def measure(
    images: int = 48,
    latency_seconds: float = 2.0,
    allowed: int = 8,
    in_flight: int = 16,
    looped: int = 4,
) -> pd.DataFrame:
    """Wall time of stage 02 against a service that takes `latency_seconds` and works on `allowed`
    requests at once.

    The plain loop is timed on `looped` images and scaled to all; the limit is rounds of `allowed`
    requests. More are tried (`in_flight`) than allowed, as a user who doesn't know the limit does.
    """
    with ImageServer(sketch=True, latency_seconds=latency_seconds) as server, _elsewhere():
        began = time.monotonic()
        asyncio.run(_loop(_generation(server, looped, in_flight)))
        loop = (time.monotonic() - began) / looped * images
    with (
        ImageServer(
            sketch=True, latency_seconds=latency_seconds, in_flight_limit=allowed
        ) as server,
        _elsewhere(),
    ):
        made = _generation(server, images, in_flight)
        began = time.monotonic()
        asyncio.run(requests.generate(made))
        ours = time.monotonic() - began
    limit = math.ceil(images / allowed) * latency_seconds
    what = f"{images} images, {latency_seconds:g} s an answer, {allowed} at once"
    best = "baseline: rounds x latency, what no client can beat"
    return pd.DataFrame(
        [
            measurement.row(
                "02 generating",
                what,
                loop,
                ours,
                "s",
                f"baseline: one after the other, timed on {looped}",
            ),
            measurement.row(
                "02 generating", f"{what}: the service's own limit", limit, ours, "s", best
            ),
        ]
    )


@contextmanager
def _elsewhere():
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {"OUTPUTS": folder, "KEYS": str(Path(folder) / "keys")}),
    ):
        yield


def _generation(server, images, in_flight):
    declared = parameters.schema(folders.NOTEBOOKS / "02_generate_openai.ipynb")
    values = {key: parameter.default for key, parameter in declared.items()}
    values |= {"provider": "rehearsal", "base_url": server.url, "quality": "low"}
    values |= {"budget_usd": 100.0, "in_flight": in_flight}
    run = runs.Run("speed", "02_generate_openai", values)
    asked = service.of(run)
    row = {"prompt_id": "one", "modality": "xray", "prompt": "chest X-ray", "count": images}
    table = tables.check(pd.DataFrame([row]), "prompts").assign(caption="")
    return requests.Generation(run, asked, prompts.orders(table, asked))


async def _loop(made):
    """What one writes first: a loop that sends, waits, decodes and writes."""
    async with made.service.client() as client:
        for number, order in enumerate(made.orders):
            content, _ = await made.send(client, order, f"loop-{number}")
            path = made.run.folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(answers.read(content, None).content)
