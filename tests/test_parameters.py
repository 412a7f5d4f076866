"""The parameters cell is the schema: what it doesn't declare is refused before anything runs."""

import pytest
from conftest import notebook
from hypothesis import given
from hypothesis import strategies as st

from helpers.runner import parameters

CELL = """study: str = "rehearsal"  # folder in params/
steps: int = 600  # optimiser steps
learning_rate: float = 1.0e-4  # per step
method: str = "full"  # one of: full, lora; what is trained
ema: bool = True  # keep an average
targets: list = ["to_q", "to_v"]  # layers
"""


@pytest.fixture
def declared(tmp_path):
    notebook(tmp_path / "03_train.ipynb", CELL)
    return parameters.schema(tmp_path / "03_train.ipynb")


def test_schema_reads_types_defaults_and_comments(declared):
    assert {name: p.type for name, p in declared.items()} == {
        "study": str,
        "steps": int,
        "learning_rate": float,
        "method": str,
        "ema": bool,
        "targets": list,
    }
    assert declared["method"].choices == ["full", "lora"]
    assert declared["steps"].comment == "optimiser steps"


def test_a_choice_may_be_empty(tmp_path):
    cell = 'prediction: str = ""  # one of: empty, epsilon; empty: the same as the base\n'
    notebook(tmp_path / "03_train.ipynb", cell)
    declared = parameters.schema(tmp_path / "03_train.ipynb")
    assert parameters.check({"prediction": ""}, declared, "here") == {"prediction": ""}
    with pytest.raises(parameters.ParameterError, match="must be one of: empty, epsilon"):
        parameters.check({"prediction": "empty"}, declared, "here")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stepps": 3}, "unknown key 'stepps' (did you mean 'steps'?)"),
        ({"steps": "many"}, "'steps' must be int, not 'many'"),
        ({"steps": 3.5}, "'steps' must be int"),
        ({"steps": True}, "'steps' must be int"),
        ({"learning_rate": "1e-4"}, "a number like 1e-4 needs a dot"),
        ({"learning_rate": float("nan")}, "'learning_rate' must be float, not nan"),
        ({"learning_rate": float("inf")}, "'learning_rate' must be float, not inf"),
        ({"method": False}, "must be str, not False (a text that YAML would read otherwise needs"),
        ({"targets": "to_q"}, '(its items in quotes: ["to_q"])'),
        ({"method": "lorra"}, "one of: full, lora (did you mean 'lora'?)"),
        ({"ema": "yes please"}, "'ema' must be bool"),
        ({"targets": [1, 2]}, "'targets' must be list"),
        ({"openai_api_key": "sk"}, "looks like a secret"),
        ({"password": "x"}, "looks like a secret"),
    ],
)
def test_what_does_not_fit_names_file_and_key(declared, values, said):
    with pytest.raises(parameters.ParameterError) as error:
        parameters.check(values, declared, "params/x/03_train.yaml")
    assert str(error.value).startswith("params/x/03_train.yaml: ")
    assert said in str(error.value)


@given(
    steps=st.integers(),
    rate=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
    targets=st.lists(st.text()),
)
def test_what_fits_passes_unchanged(tmp_path_factory, steps, rate, targets):
    path = tmp_path_factory.mktemp("n") / "03_train.ipynb"
    notebook(path, CELL)
    given_values = {"steps": steps, "learning_rate": rate, "targets": targets}
    checked = parameters.check(given_values, parameters.schema(path), "here")
    assert checked == given_values
    assert type(checked["learning_rate"]) is float


@pytest.mark.parametrize(
    "line",
    ["steps = 3", "steps: int = 2 + 1", "steps: tuple = (1, 2)", "import os", "api_key: str = ''"],
)
def test_a_line_that_is_no_typed_literal_is_refused(tmp_path, line):
    notebook(tmp_path / "03_train.ipynb", line)
    with pytest.raises(
        parameters.ParameterError, match="line 1 of the parameters cell|looks like a secret"
    ):
        parameters.schema(tmp_path / "03_train.ipynb")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: [1", "not valid YAML"),
        ("- a\n- b", "lines `key: value`"),
        ("a: {b: 1}", "scalar or a list"),
        ("a:", "leave a line out"),
        ("a: 1\nb: 2\na: 3", "line 3: not valid YAML ('a' is there twice)."),
        ('a: 1\n"a": 3', "line 2: not valid YAML ('a' is there twice)."),
        ("a: 010", "line 1: not valid YAML (010 means 8 in YAML: write 8, or use quotes)."),
        ("a: 1:30.5", "(1:30.5 means 90.5 in YAML: write 90.5, or use quotes)."),
        ("a: !!int abc", "not valid YAML (invalid literal"),
        ("a: !!bool maybe", "not valid YAML ('maybe')"),
        ("a: !!int ''", "not valid YAML (string index"),
        ("a: " + "9" * 5000, "not valid YAML (Exceeds the limit"),
        ("a: " + "[" * 5000, "not valid YAML (maximum recursion"),
        ("a: [b, 1:30]", "(1:30 means 90 in YAML: write 90, or use quotes)."),
        ("tit\u200cle: Lungs", "the key 'tit\\u200cle' has an invisible character"),
        ("a: 1\0", "not valid YAML (unacceptable character #x0000"),
        ("a: 1".encode("utf-16"), "x.yaml is not UTF-8: save it in that encoding."),
        ("# Größe".encode("latin-1"), "x.yaml is not UTF-8: save it in that encoding."),
    ],
)
def test_bad_yaml_is_one_sentence(tmp_path, text, said):
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(parameters.ParameterError) as error:
        parameters.read_yaml(tmp_path / "x.yaml")
    assert said in str(error.value)
    assert str(tmp_path / "x.yaml") in str(error.value) and "\n" not in str(error.value)


def test_a_date_and_a_number_in_quotes_are_texts_and_other_numbers_what_they_look_like(tmp_path):
    text = "\ufeffa: 2026-11-28\nb: '010'\nc: [0, -7, 1_000, 0x10, 0.5]"
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    found = parameters.read_yaml(tmp_path / "x.yaml")
    assert found == {"a": "2026-11-28", "b": "010", "c": [0, -7, 1000, 16, 0.5]}


def test_set_takes_the_run_with_or_without_its_title():
    names = ["01_prepare_cases", "03_finetune_diffusion.lora"]
    chosen = parameters.read_set(
        ["03_finetune_diffusion.lora.steps=200; 03_finetune_diffusion.lora.ema=false", "01.seed=7"],
        names,
    )
    assert chosen == {
        "03_finetune_diffusion.lora": {"steps": 200, "ema": False},
        "01_prepare_cases": {"seed": 7},
    }
    with pytest.raises(parameters.ParameterError, match="did you mean '01_prepare_cases'"):
        parameters.read_set(["01_prepare_case.seed=7"], names)
    for value in ("Model #2", "#2", "x  # why"):
        with pytest.raises(parameters.ParameterError, match="a # begins a comment"):
            parameters.read_set([f"01.label={value}"], names)
    for value, read in (("'Model #2'", "Model #2"), ("a#2", "a#2"), ('["a #2"]', ["a #2"])):
        chosen = parameters.read_set([f"01.label={value}"], names)
        assert chosen == {"01_prepare_cases": {"label": read}}
    with pytest.raises(parameters.ParameterError, match=r"must read run\.key=value"):
        parameters.read_set(["seed"], names)
    for twice in (["01.seed=7; 01_prepare_cases.seed=8"], ["01.seed=7", "01.seed=7"]):
        with pytest.raises(parameters.ParameterError, match=r"cases\.seed is there twice"):
            parameters.read_set(twice, names)
    with pytest.raises(parameters.ParameterError, match=r"not valid YAML \(010 means 8 in YAML"):
        parameters.read_set(["01.seed=010"], names)
