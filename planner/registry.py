"""Find the modules of a folder by name: a new approximation, device or command is one new file."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

from planner.errors import InputError

__all__ = ["discover", "get"]


def discover(package: str) -> tuple[str, ...]:
    """List the modules in a package, without importing any of them.

    Args:
        package: Dotted name of the package, such as ``"planner.approximations"``.

    Returns:
        The names of its modules in alphabetical order; those that begin with an underscore are private and
        left out, and so is ``base``, where a package keeps what its modules share.

    Raises:
        InputError: The package does not exist.

    >>> "plan" in discover("planner.commands")
    True
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise InputError(f"there is no package {package!r} to look for modules in")
    folders = [str(Path(folder)) for folder in spec.submodule_search_locations]
    names = (module.name for module in pkgutil.iter_modules(folders))
    return tuple(sorted(name for name in names if not name.startswith("_") and name != "base"))


def get(package: str, name: str) -> ModuleType:
    """Import one module of a package by the name users know it by.

    Args:
        package: Dotted name of the package.
        name: Name of the module; a hyphen stands for an underscore.

    Returns:
        The imported module.

    Raises:
        InputError: No such module; the message lists those that exist.
    """
    existing = discover(package)
    module = name.replace("-", "_")
    if module not in existing:
        kind = package.rpartition(".")[2].removesuffix("s")
        raise InputError(f"unknown {kind} {name!r}; there are: {', '.join(existing) or 'none'}")
    return importlib.import_module(f"{package}.{module}")
