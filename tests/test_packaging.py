"""The wheel holds the three packages and what the demo needs, and nothing that belongs to others."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("planner", "solvers", "costmodels")
SOURCES = (*PACKAGES, "data", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources, and install it into an environment of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "full", "large"))
        else:
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    [wheel] = folder.glob("*.whl")
    python = folder / "environment" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    return folder


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ask(installed: Path, code: str) -> str:
    """Run code in the environment with the wheel, from a folder where no source lies; numpy is lent to it."""
    import numpy as np

    lent = f"import sys; sys.path.append({str(Path(np.__file__).parent.parent)!r})\n"
    python = installed / "environment" / "bin" / "python"
    return run(python, "-I", "-c", lent + code).strip()


def wheel_names(installed: Path) -> list[str]:
    [wheel] = installed.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_brings_the_three_packages_and_no_other(installed: Path) -> None:
    tops = {name.split("/")[0] for name in wheel_names(installed)}
    assert {top for top in tops if not top.startswith("blinkplan-")} == set(PACKAGES)


def test_every_module_of_the_checkout_is_in_the_wheel(installed: Path) -> None:
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert modules - set(wheel_names(installed)) == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_provided_by_blinkplan_alone(installed: Path, package: str) -> None:
    code = f"import importlib.metadata as m; print(sorted(set(m.packages_distributions()[{package!r}])))"
    assert ask(installed, code) == "['blinkplan']"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_says_that_it_is_typed(installed: Path, package: str) -> None:
    assert f"{package}/py.typed" in wheel_names(installed)


def test_an_installed_wheel_finds_what_the_demo_needs(installed: Path) -> None:
    code = """
from planner.dataset import read, shipped
print(shipped("models/quick.onnx"))
print(read(shipped("fashion_mnist.npz")))
"""
    model, data = ask(installed, code).splitlines()
    assert Path(model) == (installed / "environment/share/blinkplan/models/quick.onnx").resolve()
    assert Path(model).read_bytes() == (ROOT / "data/models/quick.onnx").read_bytes()
    assert data.startswith("fashion-mnist: 512 calibration, 1000 validation, 2000 test images")


def test_an_installed_wheel_names_what_is_shipped_when_asked_for_something_else(installed: Path) -> None:
    code = """
from planner.dataset import shipped
try:
    shipped("models/other.onnx")
except ValueError as error:
    print(error)
"""
    assert re.search(r"models/other\.onnx: not among .*models/quick\.onnx", ask(installed, code))


def test_the_command_is_called_blinkplan(installed: Path) -> None:
    commands = [path.name for path in (installed / "environment/bin").iterdir()]
    assert "blinkplan" in commands


def test_every_dependency_says_which_file_needs_it() -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start = lines.index("dependencies = [")
    block = lines[start + 1 : lines.index("]", start)]
    commented = False
    for line in block:
        if line.strip().startswith("#"):
            commented = True
        else:
            assert commented, f"{line.strip()} stands without its reason"
            commented = False


def test_every_declared_dependency_has_an_exact_version_to_test_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        *project["dependencies"],
        *(d for extra in project["optional-dependencies"].values() for d in extra),
    ]
    names = {re.split(r"[<>=!~ ]", requirement)[0].lower() for requirement in declared}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert names - pinned == set()


def test_setup_cfg_holds_packages_and_nothing_else() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert set(parser.sections()) == {"options", "options.packages.find", "options.package_data"}
    assert set(parser["options"]) <= {"packages", "package_dir", "include_package_data"}
