"""One list of findings: labels and text in, captions and prompts out, and back again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import findings
from helpers.reading import setting

KNOWN = [finding for finding in findings.FINDINGS if finding != "other"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("No Finding", ["no_finding"]),
        ("Effusion|Pneumonia", ["effusion", "pneumonia"]),
        ("Infiltration", ["infiltrates"]),
        ("Pleural_Thickening|Fibrosis", ["fibrosis", "pleural_thickening"]),
        ("COVID-19", ["covid19"]),
        ("COVID", ["covid19"]),
        ("Lung_Opacity", ["opacity"]),
        ("Viral Pneumonia", ["pneumonia"]),
        ("NORMAL", ["no_finding"]),
        ("Support Devices", ["devices"]),
        ("No Lung Opacity / Not Normal", ["other"]),
        ("Pleural Effusion, Cardiomegaly", ["effusion", "cardiomegaly"]),
        ("Effusion (left)", ["effusion"]),
        ("lung cancer cohort", []),
        ("non-COVID", []),
        ("NonTB", []),
        ("COVID-19 negative", []),
        ("covid_neg", []),
        ("BacterialPneumonia", ["pneumonia"]),
        ("", []),
        (None, []),
        (float("nan"), []),
    ],
)
def test_labels_of_data_sets(label, expected):
    assert findings.from_label(label) == expected


@pytest.mark.parametrize(
    ("text", "expected", "side"),
    [
        ("small left pleural effusion without pneumothorax", ["effusion"], "left"),
        ("No pneumothorax, effusion or consolidation.", [], ""),
        ("no evidence of pneumothorax, small right effusion", ["effusion"], "right"),
        ("Heart size normal. Clear lungs.", ["no_finding"], ""),
        ("heart size is normal", [], ""),
        ("no nodule but right mass", ["mass"], "right"),
        ("right lower lobe opacity; left lung clear", ["opacity"], "right"),
        ("bilateral infiltrates, typical of COVID-19", ["infiltrates", "covid19"], "bilateral"),
        ("enlarged heart, no oedema", ["cardiomegaly"], ""),
        ("effusion cannot be excluded", ["effusion"], ""),
        ("Pleural effusion: none. Nodule: left", ["nodule"], "left"),
        (
            "Pneumothorax: absent; lungs: no consolidation, small right effusion",
            ["effusion"],
            "right",
        ),
        ("non-contrast CT with nodule and non-specific opacities", ["nodule", "opacity"], ""),
        ("non-COVID pneumonia", ["pneumonia"], ""),
        ("Pneumothorax is absent. Mass in the left lung", ["mass"], "left"),
        ("opacities in the left and the right lung", ["opacity"], "bilateral"),
        ("", [], ""),
    ],
)
def test_free_text_with_its_denials(text, expected, side):
    assert findings.in_text(text) == expected
    assert findings.side_in_text(text) == side


@given(
    st.sampled_from(KNOWN),
    st.sampled_from(["", *findings.SIDES]),
    st.sampled_from(["xray", "ct"]),
    st.sampled_from(findings.WORDINGS),
)
def test_what_a_prompt_says_is_read_back(finding, side, modality, wording):
    prompt = findings.prompt(modality, "PA", [finding], side, wording)
    assert findings.in_text(prompt) == [finding]
    assert findings.side_in_text(prompt) == ("" if finding in findings.UNSIDED else side)


@given(st.lists(st.sampled_from(KNOWN), unique=True), st.randoms())
def test_a_caption_depends_on_the_set_of_findings_not_on_their_order(chosen, random):
    shuffled = random.sample(chosen, len(chosen))
    assert findings.caption("xray", "PA", chosen) == findings.caption("xray", "PA", shuffled)


@given(st.text())
def test_any_text_can_be_read(text):
    assert set(findings.in_text(text)) <= set(findings.FINDINGS)
    assert set(findings.from_label(text)) <= set(findings.FINDINGS)
    assert findings.side_in_text(text) in ("", *findings.SIDES)


def test_unknown_ids_sides_modalities_and_wordings_are_named():
    with pytest.raises(ValueError, match="efusion"):
        findings.caption("xray", "PA", ["efusion"])
    with pytest.raises(ValueError, match="middle"):
        findings.caption("xray", "PA", [], "middle")
    with pytest.raises(ValueError, match="mri"):
        findings.caption("mri", "", [])
    with pytest.raises(ValueError, match="poem"):
        findings.prompt("xray", "PA", [], "", "poem")


def test_every_label_of_every_layout_is_understood_or_nothing():
    from helpers.prepare_cases.data_sets import CHEXPERT_LABELS

    assert all(findings.from_label(label) for label in CHEXPERT_LABELS)


def test_the_page_and_the_report_call_a_finding_by_the_same_name():
    page = json.loads((setting.STATIC / "texts.en.json").read_text())
    assert page["findings"] == findings.FINDINGS
