"""Other machines, through the tracker of TVM's RPC: networks are compiled here, and run and timed there.

The device is written ``tvm_rpc:HOST:PORT/KEY``, with the tracker's address and the key that its servers were started
with.  What may follow a ``?``, joined by ``&``: ``mcpu`` and ``mtriple`` name the processor to compile for, where the
server cannot say (a server of the plain runtime has no code generator to ask); ``servers`` is how many to take at most
(all that are free); ``session`` is after how many seconds a server ends a session (3600), ``limit`` how many seconds
one answer may take (120).

Servers of one key are taken for machines of one kind, which measure side by side: each times the control besides its
share of the builds, and what a build took is given as a multiple of what the control took on the same server in the
same round, in nanoseconds of the first one.  A server that is lost costs another attempt on another server, no more.

The artefact that is sent holds no Python: any server of TVM's runtime runs it.  What a virtual machine does over there
cannot be watched, so bytes are counted here, from the compiled module (see :mod:`planner.kernel_calls`).
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

from planner.devices._remote import RpcProgram
from planner.devices._servers import CONNECT_S, LostError, Server, Tracker
from planner.devices.base import Program
from planner.errors import InputError
from planner.operators import Outline
from planner.segments import Entry

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 3
"""Servers that are asked the same at most."""
WAIT_S = 30.0
"""Seconds to wait for a server where all are taken."""
_NUMBERS = {"servers": 0.0, "session": 3600.0, "limit": 120.0}
_TEXTS = ("mcpu", "mtriple")


def open_device(address: str, threads: int) -> TvmRpcDevice:
    """Open the servers behind a tracker.

    Args:
        address: ``HOST:PORT/KEY``, perhaps with ``?NAME=VALUE&...``.
        threads: Threads that a network may use over there.

    Raises:
        InputError: The address is none, or no tracker or no server answers.
    """
    expected = "expected HOST:PORT/KEY, as in tvm_rpc:192.168.0.10:9190/rasp4b"
    parts = urlsplit(f"//{address}")
    try:
        port = parts.port
    except ValueError:
        port = None
    key = parts.path.removeprefix("/")
    if not parts.hostname or not port or not key:
        raise InputError(f"device tvm_rpc has the address {address!r}; {expected}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    numbers = dict(_NUMBERS)
    for name, text in given.items():
        if name in _TEXTS and text:
            continue
        if name not in _NUMBERS or not text.replace(".", "", 1).isdecimal() or float(text) <= 0:
            raise InputError(
                f"device tvm_rpc:{address} has {name}={text!r}; expected any of {', '.join((*_TEXTS, *_NUMBERS))}, "
                "the last three numbers above 0"
            )
        numbers[name] = float(text)
    tracker = Tracker(host=parts.hostname, port=port, key=key)
    override = {name: given[name] for name in _TEXTS if name in given}
    return TvmRpcDevice(
        tracker,
        threads,
        override=override,
        most=int(numbers["servers"]) or None,
        session_s=numbers["session"],
        limit_s=numbers["limit"],
    )


class TvmRpcDevice:
    """Compiles networks here and runs them on the servers of a tracker."""

    name = "tvm_rpc"

    def __init__(
        self,
        tracker: Tracker,
        threads: int,
        *,
        override: Mapping[str, str] | None = None,
        most: int | None = None,
        session_s: float = _NUMBERS["session"],
        limit_s: float = _NUMBERS["limit"],
    ) -> None:
        """Take the servers that are free, and ask what processor they have.

        Args:
            tracker: Where they report, and their key.
            threads: Threads that a network may use over there.
            override: ``mcpu`` and ``mtriple`` to compile for, in place of what the servers say.
            most: How many servers to take at most; None takes all that are free.
            session_s: Seconds after which a server ends a session.
            limit_s: Seconds that one answer may take.
        """
        self.tracker = tracker
        self.threads = threads
        self._override = dict(override or {})
        self._most = most
        self._session_s = session_s
        self._limit_s = limit_s
        self._lock = threading.RLock()
        self._folder = tempfile.TemporaryDirectory(prefix="blinkplan-rpc-")
        self._servers: list[Server] = []
        self._taken = 0
        self._named = 0
        self._notes: list[tuple[str, str]] = []
        self._homes: WeakKeyDictionary[RpcProgram, int] = WeakKeyDictionary()
        self.target: dict[str, Any] = {}
        self._take_all()
        self.target = self._agreed_target()

    def describe(self) -> dict[str, Any]:
        """Say what the device is, as JSON values."""
        return {
            "device": self.name,
            "tracker": str(self.tracker),
            "target": dict(self.target),
            "threads": self.threads,
            "tvm": version("apache-tvm"),
        }

    def program(self, entry: Entry) -> RpcProgram:
        """Compile a network; it is sent to a server when it is first run there."""
        (program,) = self.programs([entry])
        return program

    def programs(self, entries: Sequence[Entry]) -> list[RpcProgram]:
        """Compile networks that are to be timed beside one another into one library, equal kernels once."""
        from planner import compiler

        apart = [dataclasses.replace(entry, name=f"network{number}") for number, entry in enumerate(entries)]
        compiled = compiler.compile_networks(apart, self.target, merged=True)
        with self._lock:
            self._named += 1
            files = self._export(compiled, f"library{self._named}")
        return [RpcProgram(entry, self, compiled, files) for entry in apart]

    def planned_arena(self, entry: Entry) -> int:
        """Plan the storages without generating code."""
        from planner import compiler

        return compiler.planned_arena(entry, self.target)

    def outline(self, entry: Entry) -> Outline:
        """Work out what a network would need, without generating code."""
        from planner import compiler

        return compiler.outline(entry, self.target)

    def notes(self) -> list[tuple[str, str]]:
        """Give what had to be tried again and why, and forget it: pairs of what was asked, and the reason."""
        with self._lock:
            told, self._notes = self._notes, []
        return told

    def close(self) -> None:
        """End all sessions."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._folder.cleanup()

    def sample_round(self, programs: Sequence[Program]) -> list[tuple[float, Mapping[str, float]]]:
        """Time programs once, on all servers side by side.

        Args:
            programs: The control first; it is timed on every server, the others on one each.

        Returns:
            For each program the nanoseconds of the network and of each layer, those of servers other than the first
            multiplied by what the control takes on the first and divided by what it takes on theirs.
        """
        ours = [program for program in programs if isinstance(program, RpcProgram)]
        if len(ours) != len(programs):
            raise TypeError("a round holds programs of another device; expected those that this one made")
        servers = self._living()
        control = ours[0]
        shares = self._shares(ours[1:], servers)
        found: list[_Share | None] = [None] * len(servers)
        failed: list[BaseException] = []

        def serve(place: int) -> None:
            try:
                found[place] = self._time_share(servers[place], control, shares[place])
            except Exception as error:  # noqa: BLE001 - raised below, in the thread of whoever asked
                failed.append(error)

        threads = [
            threading.Thread(target=serve, args=(place,), name=f"share of server {servers[place].number}")
            for place in range(len(servers))
            if shares[place] or place == 0
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        timed = [share for share in found if share is not None]
        rows = {0: timed[0].control}
        for share in timed:
            scale = timed[0].control[0] / share.control[0]
            for index, (network, layers) in share.rows.items():
                rows[index] = (network * scale, {name: ns * scale for name, ns in layers.items()})
        return [rows[index] for index in range(len(ours))]

    def _shares(self, programs: Sequence[RpcProgram], servers: Sequence[Server]) -> list[list[tuple[int, RpcProgram]]]:
        """Divide a round evenly: each program stays where it lies already, as far as that is even.

        Returns:
            For each server the programs that it times, with their places in the round; the control has place 0.
        """
        most = -(-len(programs) // len(servers))
        numbers = [server.number for server in servers]
        shares: list[list[tuple[int, RpcProgram]]] = [[] for _ in servers]
        homeless = []
        for index, program in enumerate(programs, start=1):
            home = self._homes.get(program)
            if home in numbers and len(shares[numbers.index(home)]) < most:
                shares[numbers.index(home)].append((index, program))
            else:
                homeless.append((index, program))
        for index, program in homeless:
            place = min(range(len(servers)), key=lambda at: len(shares[at]))
            shares[place].append((index, program))
            self._homes[program] = numbers[place]
        return shares

    def _time_share(self, server: Server, control: RpcProgram, share: Sequence[tuple[int, RpcProgram]]) -> _Share:
        """Time the control and some builds on one server, or where it is lost on another that is left."""
        for _ in range(ATTEMPTS):
            try:
                return _Share(
                    control=self._both(server, control),
                    rows={index: self._both(server, program) for index, program in share},
                )
            except LostError as error:
                self._replace(server, f"a round of {1 + len(share)} builds", error)
                server = self._living()[-1]
        raise InputError(f"{self.tracker}: {ATTEMPTS} servers in turn were lost over the same builds; {self._last()}")

    def _both(self, server: Server, program: RpcProgram) -> tuple[float, Mapping[str, float]]:
        def both() -> tuple[float, Mapping[str, float]]:
            loaded = program.loaded(server)
            return loaded.sample(), loaded.sample_layers()

        return server.do(both)

    def ask(self, what: str, work: Callable[[Server], T]) -> T:
        """Ask the first server something; where it is lost, another one.

        Args:
            what: What it is, for the notes.
            work: Is called in the server's thread.

        Raises:
            InputError: No server is left, or as many as are asked at most were lost.
        """
        for _ in range(ATTEMPTS):
            server = self._living()[0]
            try:
                return server.do(lambda server=server: work(server))  # type: ignore[misc]
            except LostError as error:
                self._replace(server, what, error)
        raise InputError(f"{self.tracker}: {ATTEMPTS} servers in turn were lost; {self._last()}")

    def _living(self) -> list[Server]:
        with self._lock:
            if not self._servers:
                self._take_all()
            return list(self._servers)

    def _last(self) -> str:
        return self._notes[-1][1] if self._notes else "no reason is known"

    def _replace(self, server: Server, what: str, error: LostError) -> None:
        """Note the loss, and take another server if one is free."""
        with self._lock:
            self._notes.append((what, str(error)))
            logger.warning("%s: %s: %s; asking another server", self.tracker, what, error)
            if server not in self._servers:
                return
            self._servers.remove(server)
            # Where others are left they take over at once, even if the tracker is lost too; where none is, the next
            # one that asks waits for one.
            if self._servers:
                try:
                    if self.tracker.servers()[1]:
                        self._take(CONNECT_S)
                except (LostError, InputError) as none_to_take:
                    logger.warning("%s: going on with %d servers: %s", self.tracker, len(self._servers), none_to_take)

    def _take_all(self) -> None:
        """Take the servers that are free; wait for one where all are taken."""
        there, free = self.tracker.servers()
        if not there:
            raise InputError(
                f"the tracker at {self.tracker.host}:{self.tracker.port} has no server under the key "
                f"{self.tracker.key!r}; expected at least one: start it with `python -m tvm.exec.rpc_server "
                f"--tracker {self.tracker.host}:{self.tracker.port} --key {self.tracker.key}`"
            )
        wanted = max(1, min(free, self._most or free))
        for _ in range(wanted):
            try:
                self._take(WAIT_S if not self._servers else CONNECT_S)
            except LostError as error:
                if not self._servers:
                    raise InputError(
                        f"the tracker at {self.tracker.host}:{self.tracker.port} has {there} servers under the key "
                        f"{self.tracker.key!r}, and none was free: {error}"
                    ) from None
                logger.info("%s: %s", self.tracker, error)

    def _take(self, wait_s: float) -> None:
        session = self.tracker.request(session_s=self._session_s, wait_s=wait_s)
        server = Server(session, self._taken, limit_s=self._limit_s)
        self._taken += 1
        # Mode 1 is TVM's for the big cores; the pool of a session is sized before anything runs in it.
        server.do(lambda: session.get_function("runtime.config_threadpool")(1, self.threads))
        if self.target:
            found = server.do(lambda: self._target_of(server))
            if found != self.target:
                server.close()
                raise LostError(f"server {server.number}: another processor, {found}; expected {self.target}")
        self._servers.append(server)

    def _agreed_target(self) -> dict[str, Any]:
        """Ask every server for its processor; all must have the same."""
        found = {server.number: server.do(lambda s=server: self._target_of(s)) for server in self._servers}  # type: ignore[misc]
        targets = list(found.values())
        odd = next((target for target in targets if target != targets[0]), None)
        if odd is not None:
            raise InputError(
                f"the servers under the key {self.tracker.key!r} have unlike processors, {targets[0]} and {odd}; "
                "expected machines of one kind under one key"
            )
        return targets[0]

    def _target_of(self, server: Server) -> dict[str, Any]:
        from tvm.target import codegen

        asked = {"mcpu": "target.llvm_get_system_cpu", "mtriple": "target.llvm_get_system_triple"}
        target: dict[str, Any] = {"kind": "llvm"}
        for name, question in asked.items():
            if name in self._override:
                target[name] = self._override[name]
                continue
            try:
                answer = str(server.session.get_function(question)())
            except Exception as error:
                raise InputError(
                    f"{self.tracker}: the server cannot say what to compile for, it has no code generator; expected "
                    f"it in the address, as in tvm_rpc:{self.tracker}?mcpu=cortex-a72&mtriple=aarch64-linux-gnu"
                ) from error
            target[name] = answer
        here = str(codegen.llvm_get_system_triple())
        if target["mtriple"].split("-")[0] == here.split("-", maxsplit=1)[0]:
            del target["mtriple"]  # as this machine's: the code is the same as that of the device tvm
        return {**target, "num-cores": self.threads}

    def _export(self, compiled: Any, name: str) -> tuple[Path, Path]:
        """Link compiled networks for the servers: the whole of them, and their kernels by themselves."""
        from planner import compiler

        folder = Path(self._folder.name)
        whole, kernels = folder / f"{name}.so", folder / f"{name}.kernels.so"
        compiler.export(compiled, whole, mtriple=self.target.get("mtriple"))
        compiler.export_kernels(compiled, kernels, mtriple=self.target.get("mtriple"))
        return whole, kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """What one server took in a round, in its own nanoseconds: the control, and builds by their place in the round."""

    control: tuple[float, Mapping[str, float]]
    rows: Mapping[int, tuple[float, Mapping[str, float]]]
