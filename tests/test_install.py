"""pyproject.toml holds the only list of packages; constraints.txt and environment.yml agree with
it.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for line in [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    if not line.startswith(PROJECT["name"])
]
PACKAGES = metadata.packages_distributions()
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.M
    )
}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_every_package_is_a_range_with_an_exact_version_in_it(requirement):
    assert requirement.specifier, "a range is missing"
    assert not any(s.operator == "==" for s in requirement.specifier), (
        "exact versions belong into constraints.txt"
    )
    assert canonicalize_name(requirement.name) in PINS, f"constraints.txt lacks {requirement.name}"
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])
    if requirement.marker and not requirement.marker.evaluate():
        return  # for another Python
    assert (
        metadata.version(requirement.name).split("+")[0]
        == PINS[canonicalize_name(requirement.name)]
    ), "installed is another version than constraints.txt says"


def imported(sources) -> dict[str, str]:
    """Top-level modules that Python sources import, each with a file that imports it."""
    found = {}
    for path, source in sources:
        for node in ast.walk(ast.parse(source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found |= {name.partition(".")[0]: path for name in names}
    return found


@pytest.mark.parametrize("place", ["helpers", "notebooks", "tests"])
def test_every_import_is_declared(place):
    sources = [(path, path.read_text()) for path in (ROOT / place).rglob("*.py")]
    for path in (ROOT / place).glob("*.ipynb"):
        sources += [
            (path, re.sub(r"^\s*[%!].*|\bawait\b *", "", "".join(cell["source"]), flags=re.M))
            for cell in json.loads(path.read_text())["cells"][2:]
            if cell["cell_type"] == "code"
        ]
    own = {"helpers", "speed", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    extras = PROJECT["optional-dependencies"]
    lists = [
        PROJECT["dependencies"],
        *(v for k, v in extras.items() if place == "tests" or k != "test"),
    ]
    declared = {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}
    for module, path in imported(sources).items():
        if module not in own and module not in sys.stdlib_module_names:
            names = {canonicalize_name(name) for name in PACKAGES.get(module, [module])}
            assert names & declared, (
                f"{path.name} imports {module}: pyproject.toml does not declare it"
            )


def test_what_has_private_parts_in_use_is_bounded_above():
    voila = next(r for r in REQUIREMENTS if r.name == "voila")
    assert any(s.operator == "<" for s in voila.specifier)


def test_conda_users_get_the_same_install():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(
        str(d).partition("=")[2]
        for d in environment["dependencies"]
        if str(d).startswith("python=")
    )
    assert SpecifierSet(PROJECT["requires-python"]).contains(python + ".0")
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    cpu = "--extra-index-url https://download.pytorch.org/whl/cpu"
    assert pip == [cpu, "-c constraints.txt", "-e .[all]"], "packages are listed in pyproject alone"
    assert cpu.split()[1] in (ROOT / "Makefile").read_text(), "the same index as make's"


def test_nothing_pulls_in_torchvision():
    assert not {"torchvision", "irrcac", "krippendorff"} & set(PINS)


def listed(*which: str) -> list[str]:
    """The committed files of this checkout, and others of the kinds that git is asked for."""
    files = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", *which]
    said = subprocess.run(files, capture_output=True, check=True, text=True).stdout
    return [name for name in said.split("\0") if name]


def test_a_checkout_has_nothing_beside_what_is_known():
    """No file of an experiment, and no name that another system cannot write."""
    names = listed()
    assert {name.partition("/")[0] for name in names} == {
        *("README.md", "LICENSE", "Makefile", "pyproject.toml", "constraints.txt"),
        *("environment.yml", "helpers", "notebooks", "params", "outputs", "tests"),
        *(".ci", ".gitignore"),
    }
    assert not [name for name in names if re.search(r'[<>:"|?*\\]', name)]


def clone(folder: Path, *settings: str) -> Path:
    """The committed and changed files of this checkout as a repository of its own."""
    for name in listed("--others", "--exclude-standard"):
        if (ROOT / name).is_file() and name.startswith(
            ("helpers", "notebooks", "pyproject", "constraints", "Makefile", "README")
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], *settings):
        subprocess.run([*git, *command], check=True)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return clone(tmp_path_factory.mktemp("checkout") / "study")


@pytest.fixture
def clean(tmp_path):
    """The Python of an environment that has pip and setuptools and nothing else."""
    venv.create(tmp_path / "clean", with_pip=False, symlinks=True)
    site = next((tmp_path / "clean").glob("lib/*/site-packages"))
    here = Path(metadata.distribution("pip").locate_file(""))
    for pattern in ("pip*", "setuptools*", "_distutils_hack*"):
        for path in here.glob(pattern):
            (site / path.name).symlink_to(path)
    return tmp_path / "clean" / "bin" / "python"


def colab(
    python: Path, folder: Path, repository: str, **environment
) -> subprocess.CompletedProcess:
    """The Colab cell as Colab runs it, in another folder than /content."""
    cell = "".join(json.loads(NOTEBOOK.read_text())["cells"][1]["source"])
    assert cell.count('repository = ""') == cell.count("/content/study") == 1
    cell = cell.replace('repository = ""', f"repository = {repository!r}")
    cell = cell.replace("/content/study", str(folder))
    program = (
        "import sys, types\n"
        "sys.modules |= {name: types.ModuleType(name) for name in ('google', 'google.colab')}\n"
        f"try:\n    exec({cell!r})\n"
        "except Exception as error:\n    sys.exit('\\n'.join(error._render_traceback_()))\n"
        "import helpers; print(helpers.__file__)"
    )
    settings = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", **environment}
    command = [python, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | settings, cwd=folder.parent
    )


NOTEBOOK = ROOT / "notebooks" / "01_prepare_cases.ipynb"


def test_the_colab_cell_installs_the_study_in_a_clean_environment(clean, checkout, tmp_path):
    done = colab(clean, tmp_path / "content", str(checkout))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "content/helpers/__init__.py")
    again = [clean, "-c", "import helpers; print(helpers.__file__)"]
    asked = subprocess.run(again, capture_output=True, text=True, cwd="/")
    assert asked.stdout == done.stdout, "a restarted runtime finds it too"


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        ("", "fill in the field `repository` above"),
        ("https://nowhere.invalid/study.git", "https://nowhere.invalid/study.git: fatal: "),
        ("{checkout}", "No matching distribution found"),
    ],
)
def test_the_colab_cell_says_in_one_sentence_what_is_missing(
    clean, checkout, tmp_path, repository, said
):
    """The last one: the repository can be reached, the packages' index cannot."""
    repository = repository.format(checkout=checkout)
    index = {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "PIP_NO_DEPS": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    done = colab(clean, tmp_path / "content", repository, **index)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("The study is not installed (") and said in done.stderr


def test_the_colab_cell_does_nothing_elsewhere(clean, tmp_path):
    cell = "".join(json.loads(NOTEBOOK.read_text())["cells"][1]["source"])
    done = subprocess.run([clean, "-c", cell], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:some/study.git", "https://github.com/some/study.git"),
        ("ssh://git@git.example.org/some/study", "https://git.example.org/some/study"),
        ("https://me:secret@example.org/study.git", "https://example.org/study.git"),
        ("https://me:pass@secret@example.org/study", "https://example.org/study"),
        ("ssh://git@example.org:2222/some/study", "https://example.org/some/study"),
        ("alice@example.org:study.git", "https://example.org/study.git"),
        ("/srv/secret/study.git", ""),
        ("file:///home/secret/study", ""),
        ("https://example.org/a&b#secret", ""),
        ("", ""),
    ],
)
def test_the_address_in_the_colab_cells_is_that_of_the_remote(tmp_path, remote, address):
    settings = [["remote", "add", "origin", remote]] if remote else []
    folder = clone(tmp_path / "clone", *settings)
    done = subprocess.run(["make", "colab"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and (address or "has no remote") in done.stdout
    for path in (folder / "notebooks").iterdir():
        cell = "".join(json.loads(path.read_text())["cells"][1]["source"])
        assert f'\nrepository = "{address}"  # @param' in cell and "secret" not in cell


@pytest.mark.parametrize(
    ("command", "given", "left_out"),
    [
        (["study", "FORCE=0"], [], "--force"),
        (["study", "FORCE=no", "ONLY=01_a 02_b"], ["--only '01_a' --only '02_b'"], "--force"),
        (["study", "FORCE=1", "SET=01.words=it's"], ["--force", "--set '01.words=it'\\''s'"], "!"),
        (["status", "SET=01.seed=7"], ["--set '01.seed=7'"], "--force"),
        (["verify", "SET=01.seed=7"], ["study verify 'rehearsal'"], "--set"),
    ],
)
def test_make_hands_on_what_it_is_given(command, given, left_out):
    said = subprocess.run(["make", "-n", *command], cwd=ROOT, capture_output=True, text=True)
    line = next(line for line in said.stdout.splitlines() if "-m helpers.study" in line)
    assert all(part in said.stdout for part in given) and left_out not in line


def test_an_environment_is_not_silently_pointed_at_another_checkout(tmp_path):
    """Two checkouts and one VENV: the second is told whose it is and changes nothing."""
    (tmp_path / "shared" / "bin").mkdir(parents=True)
    python = tmp_path / "shared" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "shared" / "study.stamp").touch()
    second = clone(tmp_path / "second")
    for target in ("status", "study", "lab", "new"):
        done = subprocess.run(
            ["make", target, f"VENV={tmp_path / 'shared'}"],
            cwd=second,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert f"belongs to the checkout that has {ROOT}/helpers/__init__.py" in done.stderr
