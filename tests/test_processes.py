from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from planner.measuring.processes import Process, end_with_parent

POOL = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from planner.measuring.processes import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        sys.stdin.readline()
"""


def test_a_process_lives_until_it_has_ended_and_not_in_another_boot_or_place() -> None:
    here = Process.here()
    assert here.alive()
    for other in ({"boot": "another"}, {"host": "another"}, {"started": here.started - 60}):
        assert not replace(here, **other).alive()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time()
        process = replace(here, pid=child.pid, started=started)
        assert process.alive()
        child.kill()
        # Ended, but not yet waited for: it is gone all the same.
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not process.alive()
        child.wait()
        assert not process.alive()


def test_a_worker_ends_when_the_process_that_started_it_is_killed(tmp_path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
        parent.wait()
        psutil.wait_procs([worker], timeout=20)
        assert not worker.is_running()


def test_a_process_without_a_parent_to_end_with_says_so() -> None:
    with pytest.raises(RuntimeError, match="was not started by multiprocessing"):
        end_with_parent()
