"""Every YAML fits its notebook, every CSV that one names is there, every study can be planned."""

import pytest
import yaml
from conftest import ROOT

from helpers.runner import parameters, planning

# Those that come along: a study of one's own in params/ is its owner's business.
STUDIES = ("pairs", "paper", "pilot", "rehearsal", "training", "unaware")


@pytest.mark.parametrize("name", STUDIES)
def test_study_can_be_planned(name, monkeypatch, tmp_path):
    monkeypatch.setenv("OUTPUTS", str(tmp_path))
    assert planning.plan(name, [])


@pytest.mark.parametrize(
    "path",
    [path for name in STUDIES for path in sorted((ROOT / "params" / name).glob("[0-9]*.yaml"))],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_yaml_says_only_what_differs(path):
    declared = parameters.schema(ROOT / "notebooks" / f"{path.stem.split('.')[0]}.ipynb")
    values = parameters.check(parameters.read_yaml(path), declared, str(path))
    # The published protocol is spelled out, each choice with its mark; elsewhere a repeated default
    # would hide what differs.
    same = [
        key
        for key, value in values.items()
        if value == declared[key].default and path.parent.name != "paper"
    ]
    assert not same, f"{same[0]} repeats the notebook's default"
    for value in values.values():
        if isinstance(value, str) and value.endswith((".csv", ".txt")):
            assert (path.parent / value).is_file(), f"{value} is not beside {path.name}"


@pytest.mark.parametrize("name", STUDIES)
def test_study_says_what_it_is(name):
    told = yaml.safe_load((ROOT / "params" / name / "study.yaml").read_text())
    for key in ("title", "question"):
        assert told.get(key), f"params/{name}/study.yaml lacks '{key}'"
    for text in ("consent.txt", "questions.csv", "blocks.csv"):
        assert (ROOT / "params" / name / text).read_text().strip(), f"params/{name}/{text} is empty"


def test_unknown_study_names_the_known_ones():
    with pytest.raises(parameters.ParameterError, match="known: .*rehearsal"):
        planning.plan("xyz", [])
