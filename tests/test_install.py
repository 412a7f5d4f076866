"""pyproject.toml holds the only list of packages; constraints.txt and environment.yml agree with
it.
"""

import ast
import json
import re
import sys
import tomllib
from importlib import metadata

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
            (path, re.sub(r"^\s*[%!].*|\bawait\b", "", "".join(cell["source"]), flags=re.M))
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
    assert pip == ["-c constraints.txt", "-e .[all]"], "packages are listed in pyproject.toml alone"


def test_nothing_pulls_in_torchvision():
    assert not {"torchvision", "irrcac", "krippendorff"} & set(PINS)
