"""From prompts.csv to orders with lasting identities."""

import pytest
from generations import elsewhere, service_of  # noqa: F401

from helpers import tables
from helpers.generate_openai import prompts

HEADER = "prompt_id,modality,view,finding,side,wording,prompt,count\n"


def read(tmp_path, text):
    path = tmp_path / "prompts.csv"
    path.write_text(HEADER + text)
    return prompts.read_prompts(path)


def test_prompts_are_worded_or_given_in_full(tmp_path):
    table = read(
        tmp_path,
        'a,xray,PA,effusion,left,sentence,,2\n,ct,axial,infiltrates,bilateral,,"CT of lungs,'
        ' bilateral infection",3\n',
    )
    assert (
        "left pleural effusion" in table["prompt"][0]
        and table["prompt"][1] == "CT of lungs, bilateral infection"
    )
    assert table["prompt_id"][0] == "a" and table["prompt_id"][1].startswith("p")
    assert "bilateral infiltrates" in table["caption"][1]
    again = read(
        tmp_path, ',ct,axial,infiltrates,bilateral,,"CT of lungs, bilateral infection",9\n'
    )
    assert again["prompt_id"][0] == table["prompt_id"][1]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("a,xray,PA,efusion,,caption,,2\n", tables.TableError, "did you mean 'effusion'"),
        ("a,xray,PA,effusion,,poem,,2\n", tables.TableError, "row 2, column 'wording'"),
        ("a,mri,PA,effusion,,caption,,2\n", tables.TableError, "modality"),
        ("a,xray,PA,effusion,,caption,,two\n", tables.TableError, "count"),
        ("a,xray,PA,effusion,,caption,,100000000000000000000\n", tables.TableError, "count"),
        (
            "a,xray,PA,effusion,,caption,,2\na,xray,PA,nodule,,caption,,2\n",
            prompts.PromptError,
            "twice",
        ),
        ("a,xray,PA,effusion,,caption,,-1\n", prompts.PromptError, "0 or more"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, error, says):
    with pytest.raises(error, match=says):
        read(tmp_path, text)


def test_a_higher_count_adds_images_and_keeps_the_old_ones(tmp_path):
    few = prompts.orders(read(tmp_path, "a,xray,PA,effusion,left,caption,,3\n"), service_of())
    many = prompts.orders(
        read(tmp_path, "a,xray,PA,effusion,left,caption,,5\nb,ct,axial,nodule,,caption,,2\n"),
        service_of(),
    )
    assert len(many) == 7 and len({order.image_id for order in many}) == 7
    assert [order.image_id for order in few] == [order.image_id for order in many[:3]]


def test_two_lines_with_the_same_words_are_different_images(tmp_path):
    same = prompts.orders(
        read(tmp_path, "a,xray,PA,effusion,left,,x,3\nb,xray,PA,nodule,,,x,2\n"), service_of()
    )
    assert len({order.image_id for order in same}) == 5


def test_a_blank_prompt_is_written_out_like_a_missing_one(tmp_path):
    table = read(
        tmp_path, "a,xray,PA,effusion,left,caption,,1\nb,xray,PA,effusion,left,caption,   ,1\n"
    )
    assert (
        table["prompt"][0] == table["prompt"][1] and "left pleural effusion" in table["prompt"][1]
    )


def test_a_prompt_longer_than_the_request_takes_is_refused_before_anything_is_sent(tmp_path):
    table = read(tmp_path, f"a,xray,PA,effusion,left,,{'x' * 1001},1\n")
    assert len(prompts.orders(table, service_of())) == 1
    dalle = service_of(model="dall-e-2", size="256x256", quality="auto")
    with pytest.raises(prompts.PromptError, match="1001 characters"):
        prompts.orders(table, dalle)


@pytest.mark.parametrize("budget", [1.0, 1e308])
def test_more_images_than_any_budget_meant_are_refused(tmp_path, budget):
    """1e308 USD divided by the price of an image is infinite."""
    few = read(tmp_path, "a,xray,PA,effusion,left,caption,,3\n")
    service = service_of(budget_usd=budget)
    assert len(prompts.orders(few, service)) == 3
    if budget == 1.0:
        many = read(tmp_path, "a,xray,PA,effusion,left,caption,,100001\n")
        with pytest.raises(prompts.PromptError, match="asks for 100,001 images.* covers about"):
            prompts.orders(many, service)
