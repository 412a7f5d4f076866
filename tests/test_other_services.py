"""The files in params/services, each against a server of the shape that it is for."""

import asyncio
from urllib.parse import urlsplit

import pytest
from conftest import ROOT
from generations import elsewhere, generate, on_disk, run_of, table  # noqa: F401
from other_services import SHAPES, images_only, png, serving

from helpers.generate_openai import prompts, requests, service
from helpers.runner import parameters, planning

FILES = sorted((ROOT / "params" / "services").glob("*.yaml"))


def test_every_file_has_its_server():
    assert {path.stem for path in FILES} == SHAPES.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_makes_images_at_a_server_of_its_shape(path, monkeypatch):
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, "the-key")
    declared = parameters.schema(ROOT / "notebooks" / "02_generate_openai.ipynb")
    given = parameters.check(parameters.read_yaml(path), declared, str(path))
    shape, models = SHAPES[path.stem]
    answer = images_only(shape, models)

    def answer_or_file(method, where, headers, body):
        file = where.startswith("/files/")
        return (200, png(1024, 1024)) if file else answer(method, where, headers, body)

    with serving(answer_or_file) as (address, seen):
        here = address + urlsplit(given["base_url"]).path
        run = run_of(**{"quality": "medium"} | given | {"base_url": here, "image_size": 128})
        asked = service.of(run)
        said = asyncio.run(service.preflight(asked))
        made = requests.Generation(run, asked, prompts.orders(table(("chest CT", 2)), asked))
        ledger = generate(made)
    assert said and len(on_disk(made)) == 2 == len(seen)
    assert (ledger["status"] == "ok").all()
    free = given.get("price_image") == 0
    assert (ledger["cost_usd"] > 0).all() != free
    prompts_sent = {str(sorted(each["body"].items())) for each in seen}
    assert len(prompts_sent) == (2 if "seed_field" in given else 1), "a seed for each image"


def test_the_folder_of_services_is_no_study():
    with pytest.raises(parameters.ParameterError) as caught:
        planning.plan("services", [])
    assert "rehearsal" in str(caught.value) or "cannot be named" in str(caught.value)
    with pytest.raises(parameters.ParameterError) as caught:
        planning.plan("nowhere", [])
    assert "services" not in str(caught.value)
