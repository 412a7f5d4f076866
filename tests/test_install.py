"""pyproject.toml holds the only list of packages; constraints.txt and environment.yml agree with
it.
"""

import re
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
