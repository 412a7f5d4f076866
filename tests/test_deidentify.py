"""What leaves stage 01 about a person."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.prepare_cases import deidentify


@given(st.text(), st.text(), st.binary(min_size=1), st.binary(min_size=1))
def test_pseudonyms_depend_on_secret_and_value(first, second, secret, other):
    assert deidentify.pseudonym(secret, "patient", first) == deidentify.pseudonym(
        secret, "patient", first
    )
    assert (
        deidentify.pseudonym(secret, "patient", first)
        == deidentify.pseudonym(secret, "patient", second)
    ) == (first == second)
    assert deidentify.pseudonym(secret, "patient", first) != deidentify.pseudonym(
        secret, "file", first
    )
    if secret.rstrip(b"\0") != other.rstrip(b"\0"):
        assert deidentify.pseudonym(secret, "patient", first) != deidentify.pseudonym(
            other, "patient", first
        )


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("056Y", "50-59"),
        ("56", "50-59"),
        (56, "50-59"),
        (56.0, "50-59"),
        ("018M", "0-9"),
        ("010D", "0-9"),
        ("003W", "0-9"),
        ("89", "80-89"),
        ("90", "90+"),
        ("103Y", "90+"),
        ("90+", "90+"),
        ("414", ""),
        ("", ""),
        (None, ""),
        (float("nan"), ""),
        ("unknown", ""),
        ("50-59", "50-59"),
        ("0", "0-9"),
        ("12.03.1956", ""),
        ("56,0", "50-59"),
        ("50–59", "50-59"),
        ("56 Jahre", "50-59"),
        ("24 months", "0-9"),
    ],
)
def test_age_bands(age, band):
    assert deidentify.age_band(age) == band


@given(st.integers(90, 120))
def test_all_above_89_are_one_band(age):
    assert deidentify.age_band(age) == "90+"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Male", "M"), ("f", "F"), ("w", "F"), ("männlich", "M"), ("O", ""), ("", ""), (None, "")],
)
def test_sex(value, expected):
    assert deidentify.sex(value) == expected


@pytest.mark.parametrize(
    ("value", "modality", "expected"),
    [
        ("PA", "xray", "PA"),
        ("AP supine", "xray", "AP"),
        ("LATERAL", "xray", "LL"),
        ("LL", "xray", "LL"),
        ("frontal", "xray", ""),
        ("p.a.", "xray", "PA"),
        ("", "ct", "axial"),
    ],
)
def test_view(value, modality, expected):
    assert deidentify.view(value, modality) == expected


@pytest.mark.parametrize(
    "same",
    [
        ("00012345", "12345"),
        ("12345", "12345.0"),
        ("AbC-1 ", "abc-1"),
        ("nih 00012", "nih 12"),
        (7, "7"),
        ("Müller-7", "Mu\u0308ller-7"),
        ("\uff11\uff12", "12"),
    ],
)
def test_one_person_under_two_spellings(same):
    assert deidentify.person(same[0]) == deidentify.person(same[1]) != ""


@pytest.mark.parametrize(
    "value", ["ANONYMOUS", "Anonymized^", "  ", None, "unknown", "N/A", "de-identified"]
)
def test_placeholders_name_nobody(value):
    assert deidentify.person(value) == ""


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_different_numbers_are_different_persons(first, second):
    assert (deidentify.person(first) == deidentify.person(second)) == (first == second)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        ("50+", "50+"),
        (">50", "50+"),
        ("≥ 65", "65+"),
        ("95+", "90+"),
        ("90+", "90+"),
        ("50+ y", "50+"),
    ],
)
def test_an_open_band_of_age_stays_open(age, expected):
    assert deidentify.age_band(age) == expected
