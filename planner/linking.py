"""Linking compiled modules where there may be no C compiler."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planner.errors import InputError

__all__ = ["link", "linker"]


def link(module: Any, path: Path, command: Sequence[str]) -> None:
    """Link a module into a shared library; written aside, then renamed.

    Args:
        module: What has ``export_library``.
        path: The library.
        command: What links, from :func:`linker`.
    """
    aside = path.with_name(path.name + ".part.so")
    try:
        module.export_library(str(aside), fcompile=_linking(command))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def linker(mtriple: str | None = None) -> tuple[str, ...]:
    """Find something that links: a C compiler on PATH, else ziglang from PyPI, which links for other machines too.

    Args:
        mtriple: Kind of machine to link for; None for one like this.

    Raises:
        InputError: Neither is there; the message names what to install.
    """
    zig = importlib.util.find_spec("ziglang") is not None
    if mtriple is not None:
        found = shutil.which(f"{mtriple}-gcc")
        if found:
            return (found,)
        if zig:
            return (sys.executable, "-m", "ziglang", "cc", "-target", mtriple)
        raise InputError(
            f"no linker for {mtriple}: expected {mtriple}-gcc on PATH, or the Python package ziglang; "
            "install that with `pip install blinkplan[linker]`"
        )
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found:
            return (found,)
    if zig:
        return (sys.executable, "-m", "ziglang", "cc")
    raise InputError(
        "no linker: expected cc, gcc or clang on PATH, or the Python package ziglang; "
        "install one with `pip install blinkplan[linker]` or `apt-get install gcc`"
    )


def _linking(command: Sequence[str]) -> Any:
    def run_linker(output: str, objects: Sequence[str], options: Sequence[str] | None = None, **_: Any) -> None:
        run = [*command, "-shared", "-fPIC", "-o", output, *objects, *(options or ())]
        done = subprocess.run(run, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise RuntimeError(f"linking failed: {' '.join(run)}\n{done.stderr[-2000:]}")

    run_linker.output_format = "so"  # type: ignore[attr-defined]
    return run_linker
