"""Servers behind a tracker of TVM's RPC: taking them, talking to them with a limit on the time, and losing them.

A server is talked to by one thread of its own, so that several are talked to at once.  What a server does not answer in
time counts as lost, as does a server whose connection breaks: what was asked of it is then asked of another one.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from planner.errors import InputError

__all__ = ["LostError", "Server", "Tracker"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 5.0
"""Seconds for a tracker to answer, and for a server that is said to be free to be handed over."""


class LostError(Exception):
    """Say that a server no longer answers, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """Where servers report, and the key of those that are wanted.

    Attributes:
        host: Host of the tracker.
        port: Its port.
        key: Key that the servers were started with.

    >>> str(Tracker(host="localhost", port=9190, key="rasp4b"))
    'localhost:9190/rasp4b'
    """

    host: str
    port: int
    key: str

    def __str__(self) -> str:
        """Write it as a device's address."""
        return f"{self.host}:{self.port}/{self.key}"

    def servers(self) -> tuple[int, int]:
        """Ask how many servers there are under the key, and how many of them are free.

        Raises:
            InputError: No tracker answers there.
        """
        summary = self._session().summary()
        there = sum(found["key"] == f"server:{self.key}" for found in summary["server_info"])
        return there, int(summary["queue_info"].get(self.key, {}).get("free", 0))

    def request(self, *, session_s: float, wait_s: float = CONNECT_S) -> Any:
        """Take a server.

        Args:
            session_s: Seconds after which the server ends the session by itself.
            wait_s: Seconds to wait for a server that is free.

        Returns:
            An ``RPCSession``.

        Raises:
            InputError: No tracker answers there.
            LostError: No server was free in time, or it could not be connected to.
        """
        tracker = self._session()
        # A tracker answers a request only once a server is free, however long that takes.
        tracker._sock.settimeout(wait_s)  # noqa: SLF001 - the only way to limit the wait
        try:
            return tracker.request(self.key, session_timeout=session_s, max_retry=1)
        except RuntimeError as error:
            raise LostError(f"no server under the key {self.key!r} within {wait_s:g} s: {error}") from None
        finally:
            tracker.close()

    def _session(self) -> Any:
        expected = "expected one: start it with `python -m tvm.exec.rpc_tracker`"
        try:
            # TVM itself would try for a minute.
            socket.create_connection((self.host, self.port), CONNECT_S).close()
        except OSError as error:
            raise InputError(f"no tracker at {self.host}:{self.port} ({error}); {expected}") from None
        from tvm import rpc

        try:
            return rpc.connect_tracker(self.host, self.port)
        except (OSError, RuntimeError) as error:
            raise InputError(f"what is at {self.host}:{self.port} is no tracker ({error}); {expected}") from None


class Server:
    """One session with one server, and the thread that talks to it.

    Attributes:
        number: Which of a device's servers it is.
        held: What was put on it, by the key of whoever put it there; gone with the session.
    """

    def __init__(self, session: Any, number: int, *, limit_s: float) -> None:
        """Start the thread.

        Args:
            session: An ``RPCSession``.
            number: Which server it is.
            limit_s: Seconds that one answer may take.
        """
        self.number = number
        self.held: dict[Any, Any] = {}
        self.session = session
        self._limit_s = limit_s
        self._lost = ""
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        # A daemon: one that waits for a server that never answers must not keep the process alive.
        threading.Thread(target=self._serve, name=f"rpc server {number}", daemon=True).start()

    def _serve(self) -> None:
        while (order := self._orders.get()) is not None:
            work, answer = order
            try:
                answer.set_result(work())
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                answer.set_exception(error)
            del work, answer, order

    def do(self, work: Callable[[], T]) -> T:
        """Do something that talks to the server, in its thread.

        Raises:
            LostError: The server does not answer any more.
            Exception: What the work raised while the server still answers.
        """
        if self._lost:
            raise LostError(self._lost)
        try:
            return self._ask(work)
        except LostError:
            raise
        except Exception as error:
            # Is it the work that failed, or the connection?
            try:
                self._ask(self._greet)
            except Exception:  # noqa: BLE001 - whatever it is, the server gave no answer
                self.lose(_first_line(error))
                raise LostError(self._lost) from error
            raise

    def _greet(self) -> None:
        self.session.get_function("runtime.NumThreads")()

    def _ask(self, work: Callable[[], T]) -> T:
        answer: Future[T] = Future()
        self._orders.put((work, answer))
        try:
            return answer.result(timeout=self._limit_s)
        except TimeoutError:
            self.lose(f"no answer within {self._limit_s:g} s")
            raise LostError(self._lost) from None

    def lose(self, reason: str) -> None:
        """Count the server as lost from now on."""
        self._lost = self._lost or f"server {self.number}: {reason}"
        self.close()

    def close(self) -> None:
        """End the session; the server is free for others again.

        What lies on the server is let go of in the thread that talks to it.  Where that one waits for an answer that
        never comes, whoever else let go of it would wait as well.
        """
        held, session = self.held, self.session
        self.held, self.session = {}, None

        def end() -> None:
            held.clear()
            if session is not None:
                session.get_function("CloseRPCConnection")()

        self._orders.put((end, Future()))
        self._orders.put(None)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
