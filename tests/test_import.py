from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("tvm", "ortools", "onnxruntime", "onnx", "matplotlib", "pandas", "pydantic", "scipy", "rich", "torch")


def test_importing_the_planner_loads_no_heavy_library() -> None:
    code = f"import sys, planner; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.split() == []


def test_every_name_that_the_planner_offers_is_there() -> None:
    import planner

    assert all(hasattr(planner, name) for name in planner.__all__)
    assert planner.__all__ == sorted(planner.__all__)
