from __future__ import annotations

import networks
import pytest

from planner import choices, graph
from planner.measuring.conversions import Observation, edge_costs, patterns, representatives

BOTH = ("exact", "lowrank@0.5", "int8", "lowrank@0.5+int8")


@pytest.fixture(params=networks.NETWORKS)
def network(request, tmp_path):
    model = networks.NETWORKS[request.param]()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return graph.read(networks.saved(model, tmp_path))


def offered(network):
    return choices.applicable(network, ["int8"])


def test_a_layer_is_represented_by_its_first_choice_of_each_type():
    assert representatives(BOTH) == {"float32": "exact", "int8": "int8"}
    assert representatives(("int8:1>0.5", "exact")) == {"float32": "exact"}


def test_every_edge_that_can_convert_does_so_in_some_pattern(network):
    offers = offered(network)
    seen = set()
    for chosen in patterns(network, offers):
        for edge in network.edges:
            written = choices.formats(network, edge.source, chosen[edge.source])[1].dtype
            read = choices.formats(network, edge.target, chosen[edge.target])[0].dtype
            seen.add((edge.source, edge.target, written, read))
    for edge in network.edges:
        if "int8" in offers[edge.source] and "exact" in offers[edge.target]:
            assert (edge.source, edge.target, "int8", "float32") in seen
        if "int8" in offers[edge.target] and "exact" in offers[edge.source]:
            assert (edge.source, edge.target, "float32", "int8") in seen


def test_a_network_of_one_type_needs_no_patterns_and_no_edges(network):
    alike = dict.fromkeys((layer.name for layer in network.layers), ("exact",))
    assert patterns(network, alike) == []
    assert edge_costs(network, alike, []) == ()


def test_what_conversions_cost_is_found_again_in_what_layers_take(network):
    offers = offered(network)
    costs = {(e.source, e.target): 100.0 * n for n, e in enumerate(network.edges, start=1)}

    def excess(chosen, layer):
        return sum(
            cost
            for (source, target), cost in costs.items()
            if target == layer
            and choices.formats(network, source, chosen[source])[1]
            != choices.formats(network, target, chosen[target])[0]
        )

    observations = [
        Observation(choices=chosen, layer=layer, excess_ns=excess(chosen, layer))
        for chosen in patterns(network, offers)
        for layer in offers
    ]
    found = edge_costs(network, offers, observations, scale=2.0)
    assert found
    incoming = {layer: [key for key in costs if key[1] == layer] for layer in offers}
    for layer, keys in incoming.items():
        # Where a layer reads several tensors, what they cost together is what can be seen of it.
        edges = [edge for edge in found if edge.target == layer]
        if len(keys) == 1:
            for conversion in (c for edge in edges for c in edge.conversions):
                assert conversion.latency_ns == pytest.approx(2 * costs[keys[0]], abs=2)


def test_formats_of_unlike_masks_have_no_conversion(network):
    edge = network.edges[0]
    offers = {layer.name: ("exact",) for layer in network.layers}
    offers[edge.source] = ("exact:1>0.5", "int8:1>0.5", "exact")
    offers[edge.target] = ("exact:0.5>1", "int8:0.5>1", "exact")
    for found in edge_costs(network, offers, []):
        assert all(c.source_format.mask == c.target_format.mask for c in found.conversions)


def test_of_half_the_channels_half_is_converted(network):
    edge = network.edges[0]
    offers = {layer.name: ("exact",) for layer in network.layers}
    offers[edge.source] = ("exact:1>0.5", "int8:1>0.5", "exact", "int8")
    offers[edge.target] = ("exact:0.5>1", "int8:0.5>1", "exact", "int8")
    chosen = dict.fromkeys(offers, "exact") | {edge.source: "int8"}
    seen = [Observation(choices=chosen, layer=edge.target, excess_ns=1000.0)]
    found = next(e for e in edge_costs(network, offers, seen) if (e.source, e.target) == (edge.source, edge.target))
    costs = {
        c.source_format.mask: c.latency_ns
        for c in found.conversions
        if (c.source_format.dtype, c.target_format.dtype) == ("int8", "float32")
    }
    assert costs[""] == pytest.approx(1000, abs=1)
    assert costs["0.5"] == pytest.approx(500, abs=1)


def test_an_observation_of_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="layer 'b' has no choice; there are: a"):
        Observation(choices={"a": "exact"}, layer="b", excess_ns=1.0)
