"""What a process takes that loads a built module and runs it: started by ``memory.py``, prints JSON.

``python benchmarks/processes.py MODULE NETWORK IMAGE.npy`` imports nothing of the product: TVM's runtime is all that an
artefact needs.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import psutil

RUNS = 100


def main(module: str, network: str, image: str) -> int:
    """Load the runtime, then the module, then run it; say what is resident after each."""
    import tvm
    from tvm import relax

    device = tvm.cpu()
    given = tvm.runtime.tensor(np.load(image), device)
    this = psutil.Process()
    runtime = this.memory_info().rss
    machine = relax.VirtualMachine(tvm.runtime.load_module(module), device)
    loaded = this.memory_info().rss
    function = machine[network]
    for _ in range(RUNS):
        function(given)
    resident = this.memory_info().rss
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc keeps pages of what was freed, such as the weights' serialised form
        libc.malloc_trim(0)
    kept = this.memory_info().rss
    name = str(Path(module).resolve())
    mapped = sum(part.rss for part in this.memory_maps() if part.path == name)
    figures = {
        "runtime_bytes": runtime,
        "loaded_bytes": loaded - runtime,
        "resident_bytes": resident - runtime,
        "kept_bytes": kept - runtime,
        "mapped_bytes": mapped,
    }
    sys.stdout.write(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
