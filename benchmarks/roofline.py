"""What the machine can do at most: multiply matrices with OpenBLAS, and copy memory.

    python benchmarks/roofline.py --threads 1

It prints one JSON object.  Run it in a process of its own: OpenBLAS counts its threads when numpy is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

SIZE = 1024
COPIED_BYTES = 256 << 20
"""Far more than any cache holds."""
ROUNDS = 20


def measure(threads: int) -> dict[str, float]:
    """Measure in a process of its own; GFLOP/s of a product of 1024x1024 matrices, GB/s read and written by a copy."""
    command = [sys.executable, __file__, "--threads", str(threads)]
    counts = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(command, env=os.environ | counts, check=True, capture_output=True, text=True)  # noqa: S603
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _fastest_s(function: Callable[[], object]) -> float:
    """Time a function; a limit is what was reached once, so the fastest run counts."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    """Measure and print."""
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
    product = np.empty_like(a)
    gemm_s = _fastest_s(lambda: np.matmul(a, b, out=product))
    source = np.ones(COPIED_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        copy_s = _fastest_s(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))
    found = {
        "threads": threads,
        "gemm_gflops": 2 * SIZE**3 / gemm_s / 1e9,
        "copy_gbps": 2 * COPIED_BYTES / copy_s / 1e9,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
