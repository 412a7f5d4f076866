"""The README keeps its promises: short, its links lead somewhere, its commands exist."""

import csv
import re
import shutil

import pytest
from conftest import ROOT

from helpers import protocol_tables
from helpers.runner import folders, new_study

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def test_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_every_notebook_is_in_the_table():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in README


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.M)))
)
def test_every_make_target_exists(target):
    assert re.search(rf"^[a-z ]*\b{target}\b[a-z ]*:", MAKEFILE, flags=re.M)


def test_every_study_named_exists():
    for name in re.findall(r"STUDY=([a-z]+)", README):
        assert name == "mine" or (ROOT / "params" / name).is_dir()


def test_the_example_question_fits_a_new_study(tmp_path, monkeypatch):
    monkeypatch.setenv("PARAMS", str(tmp_path))
    shutil.copytree(ROOT / "params" / "rehearsal", tmp_path / "rehearsal")
    new_study.copy("mine", "rehearsal")
    example = README.partition("This row adds a question")[2].partition("`make study`")[0]
    row = dict(re.findall(r"(\w+) `([^`]+)`", example))
    path = folders.params_folder("mine") / "questions.csv"
    header = path.read_text().partition("\n")[0].split(",")
    with path.open("a", newline="") as file:
        csv.DictWriter(file, header).writerow(row)
    designed = protocol_tables.load(path.parent)
    assert row["id"] in [question.id for question in designed.questions_of(row["block"])]


def test_ci_runs_what_the_readme_says():
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make lint" in ci
    assert "make test" in ci
    assert "make test " in README


def test_no_placeholder_is_left():
    assert not re.findall(r"⏱\d\d|[A-Z]+_TABLE|[A-Z]+_OPERATIONS", README)
