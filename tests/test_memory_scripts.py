"""Memory scripts: fusing without a compiler, putting plans together, working scripts out, and the way to a promise."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels import ChoiceCost, CostTable, LayerCosts, ModelCosts, TableError
from costmodels.composing import compose
from costmodels.deriving import script_for
from costmodels.fusion import Pattern, fused
from costmodels.peaks import peaks
from costmodels.scripts import LayerScripts, ModelScripts, Operation, Script, form_bytes
from costmodels.scripts_json import parse, to_json

FLOAT, BYTES = "float32[1,64]", "uint8[1,64]"


def op(hint, form=FLOAT, reads=(-1,), pattern=Pattern.ELEMENTWISE, **more):
    return Operation(hint=hint, form=form, reads=reads, pattern=pattern, **more)


def dense(form=FLOAT, *, rounds=False, reads_bytes=False):
    """A layer of one complex operator: what it reads is widened first, what it makes is rounded at the end."""
    operations = [op("widen", reads=(-1,))] if reads_bytes else []
    operations.append(op("dense", form, (len(operations) - 1,), Pattern.FUSABLE))
    if rounds:
        operations.append(op("round", form.replace("float32", "uint8"), (len(operations) - 1,)))
    return Script(operations=tuple(operations), results=(len(operations) - 1,))


def layer(name, source, out=FLOAT):
    """A layer of two choices, each known with what either choice of the layer before makes."""
    known = {
        "exact": {(FLOAT,): dense(out), (BYTES,): dense(out, reads_bytes=True)},
        "int8": {(FLOAT,): dense(out, rounds=True), (BYTES,): dense(out, rounds=True, reads_bytes=True)},
    }
    if source == "":
        known = {choice: {(FLOAT,): scripts[FLOAT,]} for choice, scripts in known.items()}
    return LayerScripts(name=name, sources=(source,), known=known, kinds={name: (name, name) for name in known})


def chain(*names):
    layers = [layer(name, before) for before, name in zip(("", *names), names, strict=False)]
    return ModelScripts(input_form=FLOAT, layers=tuple(layers))


graphs = st.integers(1, 14).flatmap(
    lambda count: st.tuples(
        st.lists(st.sampled_from([0, 1, 2, 3, 4, 8]), min_size=count, max_size=count),
        st.tuples(*(st.sets(st.integers(0, n - 1), max_size=2) if n else st.just(set()) for n in range(count))),
    )
)


@given(graphs)
def test_kernels_hold_every_operator_once_and_run_after_what_they_read(graph):
    patterns, sources = graph
    reads = [tuple(sorted(found)) for found in sources]
    kernels = fused(patterns, reads, kept={len(patterns) - 1})
    assert sorted(number for kernel in kernels for number in kernel) == list(range(len(patterns)))
    place = {number: index for index, kernel in enumerate(kernels) for number in kernel}
    for number, found in enumerate(reads):
        assert all(place[read] <= place[number] for read in found)
    for kernel in kernels:
        # What is opaque stands alone, no kernel holds two complex operators, and one result leaves it at most.
        assert len(kernel) == 1 or all(patterns[number] != Pattern.OPAQUE for number in kernel)
        assert sum(patterns[number] == Pattern.FUSABLE for number in kernel) <= 1
        inner = [n for n in kernel[:-1] if any(n in reads[m] and place[m] != place[n] for m in range(len(reads)))]
        assert not inner


def test_an_epilogue_joins_the_kernel_before_and_a_tensor_of_two_readers_is_kept():
    patterns = (Pattern.FUSABLE, Pattern.ELEMENTWISE, Pattern.FUSABLE, Pattern.FUSABLE, Pattern.ELEMENTWISE)
    reads = ((), (0,), (1,), (1,), (2, 3))
    assert fused(patterns, reads, kept={4}) == ((0, 1), (3,), (2, 4))


def test_rounding_for_the_reader_is_fused_into_the_kernel_of_the_writer():
    scripts = chain("a", "b")
    sizes = {}
    for first in ("exact", "int8"):
        for second in ("exact", "int8"):
            found = compose(scripts, {"a": first, "b": second})
            assert found.exact
            sizes[first, second] = [found.script.values[call.writes[0]].bytes for call in found.script.calls]
    # What is widened for b never exists as float32 apart from the kernel that a's bytes are widened in.
    assert sizes["exact", "exact"] == [256, 256]
    assert sizes["exact", "int8"] == [256, 64]
    assert sizes["int8", "int8"] == [256, 64]


def test_a_plan_needs_its_input_its_output_and_what_is_alive_between():
    found = compose(chain("a", "b", "c"), dict.fromkeys("abc", "exact"))
    assert found.bytes == 256 + 2 * 256 + 256
    assert found.script.outside_bytes == 512


def test_what_a_kernel_works_in_lies_in_the_arena_and_what_it_asks_for_beside_it():
    plain = chain("a", "b", "c")
    working = op("dense", pattern=Pattern.FUSABLE, workspace_bytes=640, asked_bytes=1000)
    script = Script(operations=(working,), results=(0,))
    middle = replace(plain.layers[1], known={"exact": {(FLOAT,): script}})
    scripts = replace(plain, layers=(plain.layers[0], middle, plain.layers[2]))
    plan = dict.fromkeys("abc", "exact")
    assert compose(scripts, plan).bytes == compose(plain, plan).bytes + 640 + 1000


def test_an_elementwise_kernel_may_write_over_what_it_reads_where_it_writes_every_element_once():
    def scripts(*, once):
        add = LayerScripts(
            name="add",
            sources=("a", "b"),
            known={"exact": {(FLOAT, FLOAT): Script(operations=(op("add", reads=(-1, -2), once=once),), results=(0,))}},
        )
        first = chain("a", "b")
        both = (first.layers[0], replace(first.layers[1], sources=("a",)), add, layer("c", "add"))
        opaque = replace(both[2], known={"exact": {(FLOAT, FLOAT): _behind_padding(once=once)}})
        return ModelScripts(input_form=FLOAT, layers=(both[0], both[1], opaque, both[3]))

    plan = {"a": "exact", "b": "exact", "add": "exact", "c": "exact"}
    apart, over = (compose(scripts(once=once), plan) for once in (False, True))
    assert not any(call.over for call in apart.script.calls)
    assert any(call.over for call in over.script.calls)
    step = next(step for step, call in enumerate(over.script.calls) if call.over)
    assert over.script.live_bytes()[step] == apart.script.live_bytes()[step] - 256
    assert over.bytes <= apart.bytes


def _behind_padding(*, once):
    """Two tensors are copied, so that nothing is fused with what made them, and then added."""
    copies = [op("copy", reads=(read,), pattern=Pattern.OPAQUE) for read in (-1, -2)]
    return Script(
        operations=(*copies, op("add", reads=(0, 1), once=once), op("end", reads=(2,), pattern=8)), results=(3,)
    )


def test_a_choice_learns_from_another_what_changes_with_what_it_finds():
    whole = layer("b", "a")
    other = {(FLOAT,): dense("float32[1,32]")}
    less = replace(
        whole, known={**whole.known, "lowrank": other}, kinds=dict.fromkeys(["exact", "lowrank"], ("f", "f"))
    )
    script, sure = script_for(less, "lowrank", (BYTES,))
    assert sure
    assert [(found.hint, found.form) for found in script.operations] == [("widen", FLOAT), ("dense", "float32[1,32]")]


def test_what_nobody_shows_is_guessed_and_called_a_guess():
    whole = layer("b", "a")
    lonely = replace(whole, known={"exact": {(FLOAT,): dense()}})
    assert script_for(lonely, "exact", (FLOAT,))[1]
    assert not script_for(lonely, "exact", (BYTES,))[1]
    scripts = ModelScripts(input_form=FLOAT, layers=(layer("a", ""), lonely))
    found = compose(scripts, {"a": "int8", "b": "exact"})
    assert found.guessed == ("b",)
    with pytest.raises(TableError, match="no memory script"):
        script_for(lonely, "int8", (FLOAT,))


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["exact", "int8"]), min_size=2, max_size=5))
def test_the_peaks_of_choices_hold_the_live_sets_of_their_plans(taken):
    names = [f"layer{number}" for number in range(len(taken))]
    scripts = chain(*names)
    plan = dict(zip(names, taken, strict=True))
    everywhere = [dict.fromkeys(names, "exact"), dict.fromkeys(names, "int8"), plan]
    found = peaks(scripts, everywhere)
    live = compose(scripts, plan).script.pack().live_bytes + compose(scripts, plan).script.outside_bytes
    assert max(found[place].most for place in plan.items()) >= live
    assert max(found[place].least for place in plan.items()) <= live


def test_scripts_come_back_from_json_as_they_were():
    scripts = replace(chain("a", "b"), slack_bytes=3, checked=7)
    assert parse(json.loads(json.dumps(to_json(scripts)))) == scripts
    with pytest.raises(TableError, match="version 9"):
        parse({**to_json(scripts), "version": 9})
    with pytest.raises(TableError, match="not whole"):
        parse({**to_json(scripts), "operations": [["dense"]]})


@pytest.mark.parametrize("form", ["float32", "float31[4]", "float32[a]", "float32[-4]"])
def test_a_form_that_says_no_size_is_refused(form):
    with pytest.raises(TableError, match="form"):
        form_bytes(form)


def test_scripts_that_cannot_be_followed_are_refused():
    with pytest.raises(TableError, match="reads what comes later"):
        Script(operations=(op("relu", reads=(0,)),), results=(0,))
    with pytest.raises(TableError, match="results"):
        Script(operations=(op("relu"),), results=(1,))
    with pytest.raises(TableError, match="reads tensor 2 of 1"):
        LayerScripts(
            name="a",
            sources=("",),
            known={"exact": {(FLOAT,): Script(operations=(op("x", reads=(-2,)),), results=(0,))}},
        )
    with pytest.raises(TableError, match="no earlier layer"):
        ModelScripts(input_form=FLOAT, layers=(layer("a", "b"),))


def table(scripts, **more):
    """A table in which exact loses nothing and int8 takes less of everything else."""

    def choices(name):
        found = peaks(scripts, [dict.fromkeys("abc", "exact"), dict.fromkeys("abc", "int8"), MIXED])
        return tuple(
            ChoiceCost(
                name=choice,
                latency_ns=1000,
                weight_bytes=weight,
                loss=loss,
                activation_bytes=found[name, choice].most,
                least_activation_bytes=found[name, choice].least,
            )
            for choice, weight, loss in (("exact", 400, 0.0), ("int8", 100, 0.01))
        )

    layers = tuple(LayerCosts(name=name, choices=choices(name)) for name in "abc")
    return CostTable(models=(ModelCosts(name="m", layers=layers, memory=scripts, **more),))


MIXED = {"a": "exact", "b": "int8", "c": "exact"}


def test_a_table_promises_the_arena_that_is_put_together(tmp_path):
    scripts = chain("a", "b", "c")
    written = table(scripts)
    written.write(tmp_path / "table.json")
    read = CostTable.read(tmp_path / "table.json")
    assert read == written
    assert read.digest == written.digest
    model = read.models[0]
    assert model.arena_bytes(MIXED) == compose(scripts, MIXED).bytes
    assert (
        replace(model, memory=replace(scripts, slack_bytes=10)).arena_bytes(MIXED) == compose(scripts, MIXED).bytes + 10
    )


def test_a_table_without_scripts_promises_its_greatest_live_set():
    model = replace(table(chain("a", "b", "c")).models[0], memory=None)
    most = max(layer.choice(MIXED[layer.name]).activation_bytes for layer in model.layers)
    assert model.arena_bytes(MIXED) == most


def test_scripts_of_other_layers_or_without_a_choice_are_refused():
    with pytest.raises(TableError, match="not of the layers"):
        table(chain("a", "b", "c")).models[0].__class__(
            name="m", layers=table(chain("a", "b", "c")).models[0].layers, memory=chain("a", "b")
        )
    model = table(chain("a", "b", "c")).models[0]
    bare = replace(model.memory, layers=(*model.memory.layers[:2], replace(model.memory.layers[2], known={})))
    with pytest.raises(TableError, match="no memory script"):
        replace(model, memory=bare)
