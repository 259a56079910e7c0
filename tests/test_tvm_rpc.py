from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import networks
import numpy as np
import psutil
import pytest
import rpc
import samples
from entries import image, whole

import planner
from planner import compiler, linking
from planner.devices import open_device
from planner.devices._servers import LostError
from planner.devices.tvm_rpc import RpcProgram, TvmRpcDevice
from planner.errors import InputError
from planner.segments import Entry


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rpc.Loopback]:
    """Start a tracker and two servers; nothing of them is left running."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    found = rpc.Loopback(tmp_path_factory.mktemp("rpc"))
    try:
        for _ in range(2):
            found.add_server()
        found.wait_for(2)
        yield found
    finally:
        found.close()
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert not left


@pytest.fixture
def device(loopback: rpc.Loopback) -> Iterator[TvmRpcDevice]:
    while loopback.running() < 2:
        loopback.add_server()
    loopback.wait_for(2)
    found = open_device(f"{loopback.address}?limit=2")
    yield found
    found.close()


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    return whole(networks.chain(), tmp_path_factory.mktemp("net"))


def test_a_network_runs_and_takes_over_there_what_it_does_here(device: TvmRpcDevice, entry: Entry) -> None:
    here, there = open_device("tvm").program(entry), device.program(entry)
    images = np.concatenate([image(entry, seed) for seed in (0, 1)])
    np.testing.assert_array_equal(there.run(images), here.run(images))
    assert there.footprint == here.footprint
    assert (there.signature, there.signatures) == (here.signature, here.signatures)
    assert device.planned_arena(entry) == there.footprint.arena_bytes
    assert there.sample() > 0
    layers = there.sample_layers()
    assert tuple(layers) == entry.layers
    assert all(ns > 0 for layer, ns in layers.items() if there.footprint.kernels[layer])
    assert len(device._servers) == 2
    assert device.notes() == []


def test_two_servers_share_a_round_and_each_times_the_control(device: TvmRpcDevice, entry: Entry) -> None:
    control, *others = programs = device.programs([entry] * 4)
    round_ = device.sample_round(programs)
    assert len(round_) == 4
    assert all(network > 0 and tuple(layers) == entry.layers for network, layers in round_)
    held = [{key for key in server.held if isinstance(key, RpcProgram)} for server in device._servers]
    assert all(control in mine for mine in held)
    assert sorted(len(mine) for mine in held) == [2, 3]
    assert set.union(*held) == {control, *others}


def test_a_program_stays_on_the_server_it_lies_on(device: TvmRpcDevice, entry: Entry) -> None:
    programs = device.programs([entry] * 6)
    first, second = device._servers
    shares = device._shares(programs[1:], [first, second])
    assert [len(share) for share in shares] == [3, 2]
    homes = {program: server for share, server in zip(shares, (first, second), strict=True) for _, program in share}
    fewer = [programs[5], programs[2], programs[1], programs[4]]
    again = device._shares(fewer, [first, second])
    assert [index for share in again for index, _ in share] != [1, 2, 3, 4]
    assert all(homes[p] is s for share, s in zip(again, (first, second), strict=True) for _, p in share)
    # Where one has more than its share, it gives some away.
    crowded = [program for program, server in homes.items() if server is first]
    assert sorted(len(share) for share in device._shares(crowded, [first, second])) == [1, 2]
    assert [len(share) for share in device._shares(programs[1:], [second])] == [5]


def test_a_slower_server_is_held_against_its_own_control(device: TvmRpcDevice, entry: Entry) -> None:
    programs = device.programs([entry] * 3)
    slow = device._servers[1]
    timed = type(device)._both

    def both(self, server, program):
        network, layers = timed(self, server, program)
        factor = 10.0 if server is slow else 1.0
        return network * factor, {name: ns * factor for name, ns in layers.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(device), "_both", both)
        found = device.sample_round(programs)
    assert max(network for network, _ in found) < 4 * min(network for network, _ in found)
    assert max(sum(layers.values()) for _, layers in found) < 4 * min(sum(layers.values()) for _, layers in found)


def test_a_server_that_dies_costs_another_attempt_and_not_the_round(
    loopback: rpc.Loopback, device: TvmRpcDevice, entry: Entry
) -> None:
    programs = device.programs([entry] * 3)
    device.sample_round(programs)
    loopback.kill(loopback.servers[0])
    found = device.sample_round(programs)
    assert len(found) == 3
    assert all(network > 0 for network, _ in found)
    ((what, reason),) = device.notes()
    assert what.startswith("a round of ")
    assert reason.startswith("server ")
    assert programs[1].sample() > 0


def test_a_server_that_stops_answering_is_given_up(loopback: rpc.Loopback, device: TvmRpcDevice, entry: Entry) -> None:
    programs = device.programs([entry] * 3)
    device.sample_round(programs)
    stopped = loopback.servers[0]
    (session,) = loopback.sessions(stopped)
    os.kill(session.pid, signal.SIGSTOP)  # its connection stays open
    try:
        found = device.sample_round(programs)
    finally:
        loopback.kill(stopped)
    assert all(network > 0 for network, _ in found)
    ((_, reason),) = device.notes()
    assert "no answer within 2 s" in reason


def test_a_server_with_another_processor_is_not_taken_in_place_of_one_that_was_lost(
    loopback: rpc.Loopback, device: TvmRpcDevice
) -> None:
    device.close()
    loopback.wait_for(2)
    one = open_device(f"{loopback.address}?servers=1")
    try:
        one.target = {**one.target, "mcpu": "another"}
        with pytest.raises(LostError, match="another processor"):
            one._take(5.0)
        assert len(one._servers) == 1
    finally:
        one.close()


def test_servers_that_are_left_go_on_without_the_tracker(device: TvmRpcDevice, entry: Entry) -> None:
    programs = device.programs([entry] * 2)
    device.tracker = dataclasses.replace(device.tracker, port=rpc.free_port())
    device._servers[0].lose("cut off")
    assert len(device.sample_round(programs)) == 2
    assert len(device._servers) == 1


def test_what_fails_over_there_is_an_error_and_no_lost_server(device: TvmRpcDevice) -> None:
    server = device._servers[0]
    with pytest.raises(Exception, match="no_such_function"):
        server.do(partial(_call, server, "no_such_function"))
    assert server.do(partial(_call, server, "runtime.NumThreads")) == 1


def test_a_session_that_has_expired_is_begun_again(loopback: rpc.Loopback, entry: Entry, device: TvmRpcDevice) -> None:
    device.close()
    loopback.wait_for(2)
    short = open_device(f"{loopback.address}?session=1.5&servers=1")
    program = short.program(entry)
    (server,) = short._servers
    rpc.wait(lambda: _expired(server), "the end of the session")
    assert program.sample() > 0
    assert short.notes()
    short.close()


def _call(server, function: str):
    return server.session.get_function(function)()


def _expired(server) -> bool:
    try:
        server.do(partial(_call, server, "runtime.NumThreads"))
    except LostError:
        return True
    return False


def test_a_network_is_measured_from_end_to_end_though_a_server_dies_on_the_way(
    loopback: rpc.Loopback, device: TvmRpcDevice, tmp_path: Path
) -> None:
    model = planner.load(networks.saved(networks.chain(), tmp_path, "net"), data=samples.archive(tmp_path))
    told: list[str] = []

    def tell(what: str, done: int, of: int) -> None:
        if "timing" in what and not told:
            loopback.kill(loopback.servers[0])
        told.extend([what] if "timing" in what else [])

    table = planner.measure([model], device=device, rounds=3, approximations=["int8w"], progress=tell)
    assert len(told) == 3
    assert table.provenance["device"] == "tvm_rpc"
    (retried,) = table.provenance["summary"]["retried"]
    assert retried["what"].startswith("a round of ")
    assert retried["reason"].startswith("server ")
    for layer in table.model("net").layers:
        sizes = {choice.name: choice.weight_bytes for choice in layer.choices}
        assert all(choice.latency_ns > 0 for choice in layer.choices)
        assert "int8w" not in sizes or sizes["int8w"] < sizes["exact"]


def test_a_network_is_compiled_for_the_machine_that_the_address_names(
    loopback: rpc.Loopback, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(output: str, objects: list[str], *_: object, **__: object) -> None:
        shutil.copyfile(objects[0], output)

    link.output_format = "so"
    monkeypatch.setattr(linking, "_linking", lambda _: link)
    monkeypatch.setattr(compiler, "linker", lambda mtriple: (f"{mtriple}-gcc",))
    device = open_device(f"{loopback.address}?servers=1&mcpu=cortex-a72&mtriple=aarch64-linux-gnu")
    try:
        assert device.target == {
            "kind": "llvm", "mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu", "num-cores": 1
        }  # fmt: skip
        footprint = device.program(entry).footprint
        assert footprint.weight_bytes["conv2"] == 4 * (16 * 12 * 9 + 16)
        libraries = sorted(Path(device._folder.name).iterdir())
        assert len(libraries) == 2
        for library in libraries:
            elf = library.read_bytes()
            assert elf[:4] == b"\x7fELF"
            assert int.from_bytes(elf[18:20], "little") == 183  # AArch64
    finally:
        device.close()


@pytest.mark.parametrize("address", ["", "localhost", "localhost:9190", "localhost:x/key", "localhost:9190/"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"expected HOST:PORT/KEY"):
        open_device(f"tvm_rpc:{address}")


@pytest.mark.parametrize("option", ["limit=0", "limit=x", "servers=", "colour=red", "mcpu="])
def test_an_option_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=option.partition("=")[0]):
        open_device(f"tvm_rpc:localhost:9190/key?{option}")


def test_where_no_tracker_is_the_address_and_what_to_start_are_said() -> None:
    port = rpc.free_port()
    with pytest.raises(InputError, match=rf"no tracker at 127\.0\.0\.1:{port} .*python -m tvm\.exec\.rpc_tracker"):
        open_device(f"tvm_rpc:127.0.0.1:{port}/{rpc.KEY}")


def test_something_else_than_a_tracker_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        rpc.answering(listening, b"HTTP/1.1 400 Bad Request")
        with pytest.raises(InputError, match=rf"what is at 127\.0\.0\.1:{port} is no tracker"):
            open_device(f"tvm_rpc:127.0.0.1:{port}/{rpc.KEY}")


def test_a_key_without_servers_is_answered_with_what_to_start(loopback: rpc.Loopback) -> None:
    address = f"127.0.0.1:{loopback.port}"
    with pytest.raises(
        InputError, match=rf"no server under the key 'other'.*rpc_server --tracker {address} --key other"
    ):
        open_device(f"tvm_rpc:{address}/other")
