"""Generated images get the shapes of the real cases, as near as the service comes to them."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from faulty_service import ImageServer
from generations import elsewhere, generate, generation, on_disk, run_of, service_of, table  # noqa
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import images, tables
from helpers.files import write_atomically
from helpers.generate_openai import paid_images, prompts, shapes
from helpers.runner import folders
from helpers.services import connection

CASES = {"xray": [(419, 512), (512, 400), (512, 512)]}


def edges(size):
    return tuple(int(edge) for edge in size.split("x"))


@settings(deadline=None, max_examples=60)
@given(st.floats(0.05, 20), st.sampled_from(["256x256", "1024x1024", "2048x2048", "3840x2160"]))
def test_any_shape_becomes_a_size_that_todays_models_make(ratio, size):
    width, height = edges(shapes._in_steps(ratio, math.prod(edges(size)), shapes.SMALLEST_AREA))
    assert width % 16 == height % 16 == 0 and max(width, height) <= 3840
    assert width * height >= 655_360 and 1 / 3 <= width / height <= 3
    assert abs(math.log(width / height / min(max(ratio, 1 / 3), 3))) < 0.03


@pytest.mark.parametrize(
    ("model", "size", "ratio", "asked"),
    [
        ("gpt-image-2", "1024x1024", 1.0, "1024x1024"),
        ("gpt-image-2", "1024x1024", 4 / 3, "1152x864"),
        ("gpt-image-1.5", "1024x1024", 0.85, "1024x1024"),
        ("gpt-image-1.5", "1024x1024", 0.7, "1024x1536"),
        ("openai/gpt-image-1.5", "1024x1024", 1.4, "1536x1024"),
        ("dall-e-3", "1024x1024", 0.6, "1024x1792"),
        ("dall-e-2", "512x512", 0.6, "512x512"),
    ],
)
def test_the_nearest_size_that_a_model_makes(model, size, ratio, asked):
    assert shapes.nearest(service_of(model=model, size=size, price_image=0.1), ratio) == asked


def test_shapes_follow_from_the_seed_and_are_those_of_the_cases():
    asked = service_of(cases="01_prepare_cases")
    many = prompts.orders(table(("chest X-ray", 90)), asked, CASES)
    again = prompts.orders(table(("chest X-ray", 90)), asked, CASES)
    few = prompts.orders(table(("chest X-ray", 9)), asked, CASES)
    assert many == again and many[:9] == few, "a higher count changes none"
    counts = pd.Series([order.ratio for order in many]).value_counts()
    assert set(counts.index) == {419 / 512, 512 / 400, 1.0} and counts.min() > 15
    other = prompts.orders(table(("chest X-ray", 90)), service_of(cases="01", seed=1), CASES)
    assert [order.size for order in other] != [order.size for order in many]
    moved = prompts.orders(table(("chest X-ray", 90)), asked, {"xray": [(100, 200)]})
    assert [order.image_id for order in moved] == [order.image_id for order in many], (
        "other cases make no paid image another one"
    )


def test_without_cases_every_image_has_the_size_asked_for():
    orders = prompts.orders(table(("chest X-ray", 3)), service_of(), {})
    assert {order.size for order in orders} == {"1024x1024"}


def test_a_modality_without_cases_is_one_sentence():
    with pytest.raises(connection.ServiceError, match="01_prepare_cases has no xray images"):
        prompts.orders(table(("a", 1)), service_of(cases="01_prepare_cases"), {"ct": [(1, 1)]})


def test_the_shapes_of_a_finished_run_are_asked_for_recorded_and_kept(tmp_path):
    cases = folders.outputs_folder("s") / "01_prepare_cases"
    rows = pd.DataFrame({"image_id": ["a", "b"], "path": ["a.png", "b.png"], "modality": "xray"})
    rows = rows.assign(
        origin="real", sha256="0", width=[419, 512], height=[512, 400], bits=8, simulated=True
    )
    tables.write(rows, cases / "images.csv")
    manifest = {"run": cases.name, "status": "finished", "parameters": {}, "files": []}
    write_atomically(cases / "manifest.json", json.dumps(manifest).encode())
    with ImageServer(sketch=True) as server:
        values = {"cases": "01_prepare_cases", "image_size": 512, "quality": "low"}
        found = shapes.of_cases(run_of(**values))
        assert found == {"xray": [(419, 512), (512, 400)]}
        made = generation(server, 6, cases_found=found, **values)
        ledger = generate(made)
        sent = {record["size"] for record in server.requests}
    assert len(on_disk(made)) == 6 and set(ledger["size"]) == sent == {"928x1136", "1168x912"}
    assert ledger["error"].isna().all(), "each came in the size asked for"
    assert ledger["cost_usd"].sum() == pytest.approx(server.billed_usd)
    copies = paid_images.study_copies(made.run, made.orders)
    assert set(zip(copies["width"], copies["height"])) == {(419, 512), (512, 400)}


@pytest.mark.parametrize(("width", "height"), [(419, 512), (512, 400), (300, 512), (512, 512)])
@pytest.mark.parametrize("size", [512, 200, 4000])
def test_a_copy_has_exactly_the_shape_of_its_case(width, height, size):
    received = edges(shapes._in_steps(width / height, 1024**2, shapes.SMALLEST_AREA))
    array = np.full(received[::-1], 7, np.uint8)
    array[:, 0] = array[0] = 200
    copy = shapes.exact(array, width / height, size)
    longer = max(copy.shape)
    assert longer <= size and longer >= min(size, 0.97 * max(received))
    assert copy.shape == images.fitted(np.zeros((height * 9, width * 9), np.uint8), longer, 8).shape
    assert (copy[1:, 0] > 7).all() and (copy[0, 1:] > 7).all(), "no border is cut off"


def test_an_image_of_another_shape_than_asked_for_keeps_its_own():
    assert shapes.exact(np.zeros((600, 600), np.uint8), 0.7, 300).shape == (300, 300)
    assert shapes.exact(np.zeros((600, 400), np.uint8), 0.0, 300).shape == (300, 200)
