"""Measure what the solvers are promised to do, and write docs/solvers.md.

    python benchmarks/solvers.py --only one-model,many-models --json build/solvers.json --page docs/solvers.md

What is measured stands in solving.py. This file has the name of the package that it measures, and scripts find their
own folder first: whoever imports the package here is handed the package.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Behind everything else on the path, this folder's other files are still found, and this one no longer for the package.
sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != _HERE), str(_HERE)]

if __name__ == "__main__":
    from solving import main

    sys.exit(main())
else:
    del sys.modules[__name__]
    sys.modules[__name__] = importlib.import_module(__name__)
