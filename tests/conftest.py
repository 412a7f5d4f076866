"""Shared fixtures. The fast test modules run first."""

import json
from pathlib import Path

import hypothesis
import pytest

from helpers.runner import folders, parameters

# No test is timed: how long an example takes says how busy the machine is.
hypothesis.settings.register_profile("study", deadline=None)
hypothesis.settings.load_profile("study")

ROOT = Path(__file__).resolve().parent.parent
SLOW_LAST = (  # the longest first, so that at the end no worker waits for another
    "test_finetune",
    "test_cluster",
    "test_whole_study",
    "browser",
    "test_study",
    "test_families",
    "test_sampling",
    "test_reading",
    "test_speed",
    "test_notebooks",
)


def pytest_collection_modifyitems(items):
    """Fast modules first, then those that train, or start kernels, servers or a browser."""

    def weight(item):
        name = str(item.path)
        return next((place for place, part in enumerate(SLOW_LAST, 1) if part in name), 0)

    items.sort(key=weight)


@pytest.fixture
def study_folders(tmp_path, monkeypatch):
    """PARAMS, OUTPUTS and KEYS in a temporary place, for this process and the kernels it starts."""
    for name in ("PARAMS", "OUTPUTS", "KEYS"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("CASES", raising=False)
    monkeypatch.setenv("STUDY_BATCH", "")  # a study that a test runs sets it
    return tmp_path


@pytest.fixture(scope="module")
def chromium():
    """One Chromium for a module of tests."""
    from reading_browser import launch

    playwright, opened = launch()
    yield opened
    opened.close()
    playwright.stop()


@pytest.fixture
def browser(chromium):
    """The module's Chromium; what a test opens in it is closed after the test."""
    yield chromium
    for context in chromium.contexts:
        context.close()


HEAD = 'study: str = "small"  # folder\nvariant: str = ""  # after the dot\n'
START = (
    "from helpers.runner import runs\nimport json, os, time\nrun = runs.start({name!r}, globals())"
)


@pytest.fixture
def small(study_folders, monkeypatch):
    """A study of three small notebooks: 01 counts (slowly, continuing), 02 doubles 01, 03 stands
    alone.
    """
    folder = study_folders
    monkeypatch.setenv("NOTEBOOKS", str(folder / "notebooks"))
    monkeypatch.setattr(folders, "NOTEBOOKS", folder / "notebooks")
    notebook(
        folder / "notebooks" / "01_count.ipynb",
        HEAD + "numbers: int = 4  # how many\nwait: float = 0.0  # seconds each",
        START.format(name="01_count"),
        "for i in range(numbers):\n    if not run.file(f'parts/{i}.json').exists():\n       "
        " time.sleep(wait)\n        run.write_json(f'parts/{i}.json', i)\n        run.say(f'counted"
        " {i}')",
        "run.finish()",
    )
    notebook(
        folder / "notebooks" / "02_double.ipynb",
        HEAD + 'counted: str = "01_count"  # run: doubled\nfactor: int = 2  # times',
        START.format(name="02_double"),
        "parts = sorted(run.reads(counted).folder.glob('parts/*.json'))",
        "run.write_json('doubled.json', [factor * json.loads(p.read_text()) for p in parts])",
        "run.finish()",
    )
    notebook(
        folder / "notebooks" / "03_alone.ipynb",
        HEAD + 'mishap: str = "none"  # one of: none, error, kill, full\n'
        'words: str = ""  # file: beside the YAML',
        START.format(name="03_alone"),
        "if mishap == 'error': raise ValueError('the data are odd')",
        "if mishap == 'kill': os.kill(os.getpid(), 9)",
        "if mishap == 'full':\n    with open('/dev/full', 'w') as f: f.write('x')",
        "run.write_json('alone.json', 1)\nrun.finish()",
    )
    (folder / "params" / "small").mkdir()
    for name in ("01_count", "02_double", "03_alone"):
        (folder / "params" / "small" / f"{name}.yaml").write_text("")
    return folder


def notebook(path: Path, parameters: str, *cells: str) -> None:
    """Write a small notebook: a parameters cell, then code cells."""
    import nbformat  # takes seconds, and the processes of few tests need it

    made = nbformat.v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    made.cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    made.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(made))


def manifest(folder: Path) -> dict:
    """The manifest of a run folder."""
    return json.loads((folder / "manifest.json").read_text())


def values(name, **changes):
    """The parameters of a notebook: its defaults but for `changes`."""
    declared = parameters.schema(folders.NOTEBOOKS / f"{name}.ipynb")
    defaults = {
        key: parameter.default
        for key, parameter in declared.items()
        if key not in ("study", "variant")
    }
    assert set(changes) <= set(defaults), "a parameter that the cell does not declare"
    return parameters.Record(defaults | changes)
