"""A tracker of TVM's RPC and servers on loopback, in processes that end with the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

KEY = "loopback"


class Loopback:
    """A tracker and its servers."""

    def __init__(self, logs: Path) -> None:
        self.port = free_port()
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []
        self.servers: list[subprocess.Popen[bytes]] = []
        self._tracker = self._start("rpc_tracker", "--port", str(self.port), "--port-end", str(self.port + 1))
        wait(lambda: reaches(self.port), "the tracker")

    @property
    def address(self) -> str:
        return f"tvm_rpc:127.0.0.1:{self.port}/{KEY}"

    def add_server(self) -> subprocess.Popen[bytes]:
        """Start a server; it may take a moment until it reports, see `wait_for`."""
        port = free_port()
        server = self._start(
            "rpc_server", "--tracker", f"127.0.0.1:{self.port}", "--key", KEY, "--custom-addr", "127.0.0.1",
            "--port", str(port), "--port-end", str(port + 1),
        )  # fmt: skip
        self.servers.append(server)
        return server

    def running(self) -> int:
        """Count the servers that have not been killed."""
        self.servers = [server for server in self.servers if server.poll() is None]
        return len(self.servers)

    def sessions(self, server: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """Find the processes that serve a session of a server: it has a child that listens, which has one a session."""
        return [child for process in psutil.Process(server.pid).children() for child in process.children()]

    def wait_for(self, free: int) -> None:
        """Wait until so many servers are free."""
        from planner.devices._servers import Tracker

        tracker = Tracker(host="127.0.0.1", port=self.port, key=KEY)
        wait(lambda: tracker.servers()[1] == free, f"{free} free servers")

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._logs / "rpc.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"tvm.exec.{what}", "--host", "127.0.0.1", *arguments],
                stdout=log,
                stderr=log,
                env=os.environ | {"TVM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a process and all that it has started, sessions included, by their ids."""
        family = [process.pid]
        if process.poll() is None:
            family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def close(self) -> None:
        for process in reversed(self._processes):
            self.kill(process)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answering(listening: socket.socket, text: bytes) -> None:
    """Answer whoever connects with a text, until the socket is closed."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(text)

    threading.Thread(target=serve, daemon=True).start()


def reaches(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def wait(done, what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} took longer than {seconds} s")
        time.sleep(0.05)
