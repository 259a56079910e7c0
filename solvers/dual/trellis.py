"""A layered graph whose paths are the choices of formats: groups one after the other, with what later ones must know.

Groups that meet are in one component (a model, mostly), and are taken one after the other. What later groups have to
know of those already taken is their formats, and of these only those of groups that still meet one to come; each
combination of them is a *node*. Taking the next group in one of its classes leads along an *arc* to a node of the
next step. This is dynamic programming over a path decomposition (Bodlaender 1998, "A partial
k-arboretum of graphs with bounded treewidth", section 5): on a chain it is Viterbi's over formats, on networks with
skips and branches the nodes hold what is alive. All components take their steps together, in flat arrays, whatever
their shapes.

Where a component would need too many nodes, pairs are *loosened*: what the source's format costs at least stands in
for them, so that the least over all paths stays a lower bound.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from solvers.arrays import Integers
from solvers.dual.formats import Classes, classes, sides, spans
from solvers.pairs import Pairs
from solvers.problem import Problem

__all__ = ["Trellis", "build"]

_MOST_NODES = 1500
"""Of one component in one step; beyond it, pairs are loosened."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trellis:
    """Nodes and arcs of all components; arcs are sorted by step, then by the node that they lead to.

    Attributes:
        component: The component of each group, ``(groups,)``.
        position: Its place within the component, ``(groups,)``.
        classes: The classes of formats of all groups.
        group_of_class: The group of each class, ``(classes,)``.
        source: The node that each arc leaves, ``(arcs,)``; the nodes 0 … components - 1 are where paths begin.
        target: The node that it leads to, ``(arcs,)``.
        arc_class: The class that it takes, ``(arcs,)``.
        arc_cells: The cells of pairs that it settles, ``(most at once, arcs)``; the number of cells stands for none.
        step_arcs: Where the arcs of each step begin, ``(steps + 1,)``.
        step_nodes: Where the nodes that they lead to begin, ``(steps + 1,)``.
        arcs_into: Where the arcs that lead to each node begin, ``(nodes + 1,)``.
        final: The node in which the paths of each component end, ``(components,)``; -1 where none can end.
        loosened: The pairs that paths do not settle, ascending.
    """

    component: Integers
    position: Integers
    classes: Classes
    group_of_class: Integers
    source: Integers
    target: Integers
    arc_class: Integers
    arc_cells: Integers
    step_arcs: Integers
    step_nodes: Integers
    arcs_into: Integers
    final: Integers
    loosened: Integers

    @property
    def components(self) -> int:
        """The number of components."""
        return len(self.final)

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return len(self.arcs_into) - 1

    @property
    def arcs(self) -> int:
        """The number of arcs."""
        return len(self.source)


def build(problem: Problem, component: Integers) -> Trellis:
    """Lay out the paths of a problem's pairs.

    Args:
        problem: The problem; forbidden cells have no arc.
        component: The component of each group, ``(groups,)``, from 0; no pair connects two of them.

    Returns:
        The layered graph.
    """
    pairs = problem.pairs
    kept = np.ones(len(pairs), np.bool_)
    every = np.arange(problem.groups, dtype=np.int64)
    position = _positions(component, every)
    while True:
        wide = _wide(problem, kept, component, position)
        if not len(wide):
            break
        better = _narrowed(component, position, pairs, kept, wide)
        if len(_wide(problem, kept, component, better)) < len(wide):
            position = better
            continue
        loosen = _longest(pairs, kept, component, position, wide)
        _logger.debug("loosening %d pairs of %d components that are too wide", len(loosen), len(wide))
        kept[loosen] = False
        position = _positions(component, every)
    return _Layout(problem, kept, component, position).trellis()


def _positions(component: Integers, key: Integers) -> Integers:
    """Number the groups of each component in the order of a key, ``(groups,)``."""
    order = np.lexsort([key, component])
    position = np.empty(len(order), np.int64)
    begin = np.searchsorted(component[order], np.arange(int(component.max()) + 1))
    position[order] = np.arange(len(order)) - begin[component[order]]
    return position


def _ends(pairs: Pairs, kept: npt.NDArray[np.bool_], position: Integers) -> tuple[Integers, Integers]:
    """Return the group of each kept pair that comes first, and the one that comes later."""
    source, target = pairs.source[kept], pairs.target[kept]
    ahead = position[source] < position[target]
    return np.where(ahead, source, target), np.where(ahead, target, source)


def _last(groups: int, early: Integers, late: Integers, position: Integers) -> Integers:
    """Return the position until which each group has to be known, ``(groups,)``."""
    last = position.copy()
    np.maximum.at(last, early, position[late])
    return last


def _wide(problem: Problem, kept: npt.NDArray[np.bool_], component: Integers, position: Integers) -> Integers:
    """List the components that could need too many nodes in a step."""
    pairs = problem.pairs
    early, late = _ends(pairs, kept, position)
    last = _last(problem.groups, early, late, position)
    seen = _later_classes(problem, kept, position)
    bits = np.log2(np.diff(seen.first))
    sizes = np.bincount(component)
    begin = np.concatenate([[0], np.cumsum(sizes + 1)])
    # Alive from its own step to the one before that of its last reader.
    change = np.zeros(int(begin[-1]))
    np.add.at(change, begin[component] + position, bits)
    np.add.at(change, begin[component] + last, -bits)
    alive = np.maximum.reduceat(np.cumsum(change), begin[:-1])
    found: Integers = np.flatnonzero(alive > np.log2(_MOST_NODES) + 1e-6)
    return found


def _narrowed(
    component: Integers, position: Integers, pairs: Pairs, kept: npt.NDArray[np.bool_], wide: Integers
) -> Integers:
    """Reorder wide components by Cuthill and McKee's rule, reversed."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    position = position.copy()
    for number in wide.tolist():
        groups = np.flatnonzero(component == number)
        mine = kept & (component[pairs.source] == number)
        ends = np.searchsorted(groups, pairs.source[mine]), np.searchsorted(groups, pairs.target[mine])
        graph = coo_array((np.ones(len(ends[0])), ends), shape=(len(groups), len(groups))).tocsr()
        order = reverse_cuthill_mckee(graph + graph.T, symmetric_mode=True)
        position[groups[order]] = np.arange(len(groups))
    return position


def _longest(
    pairs: Pairs, kept: npt.NDArray[np.bool_], component: Integers, position: Integers, wide: Integers
) -> Integers:
    """Return, for each wide component, those of its pairs that span most steps: one in sixteen, at least one."""
    index = np.flatnonzero(kept)
    span = np.abs(position[pairs.source[index]] - position[pairs.target[index]])
    inside = np.isin(component[pairs.source[index]], wide)
    index, span = index[inside], span[inside]
    order = np.lexsort([-span, component[pairs.source[index]]])
    of_component = component[pairs.source[index[order]]]
    rank = np.arange(len(order)) - np.searchsorted(of_component, of_component)
    found: Integers = index[order[rank <= np.bincount(of_component)[of_component] // 16]]
    return found


def _later_classes(problem: Problem, kept: npt.NDArray[np.bool_], position: Integers) -> Classes:
    """Put options into classes by what groups still to come see of them."""
    pairs = problem.pairs
    group, begin, formats = sides(pairs)
    first = np.concatenate([position[pairs.source] < position[pairs.target]] * 2)
    first[len(pairs) :] ^= True
    first &= np.concatenate([kept, kept])
    return classes(problem.start, group[first], begin[first], formats)


class _Layout:
    """The steps of all components, one after the other."""

    def __init__(self, problem: Problem, kept: npt.NDArray[np.bool_], component: Integers, position: Integers) -> None:
        self.problem, self.kept = problem, kept
        self.component, self.position = component, position
        pairs = problem.pairs
        group, begin, formats = sides(pairs)
        both = np.concatenate([kept, kept])
        self.classes = classes(problem.start, group[both], begin[both], formats)
        self.later = _later_classes(problem, kept, position)
        self.early, self.late = _ends(pairs, kept, position)
        self.pair = np.flatnonzero(kept)
        self.last = _last(problem.groups, self.early, self.late, position)
        self.size = np.bincount(component)
        self.by_step = np.lexsort([component, position])
        self.step_begin = np.searchsorted(position[self.by_step], np.arange(int(self.size.max()) + 1))
        # Pairs by the step that settles them; those of one group one after the other.
        self.by_late = np.lexsort([self.early, component[self.late], position[self.late]])
        self.pair_begin = np.searchsorted(position[self.late][self.by_late], np.arange(int(self.size.max()) + 1))
        self.radix = int(np.diff(self.later.first).max()) + 1

    def trellis(self) -> Trellis:
        """Take all steps."""
        components, steps = len(self.size), int(self.size.max())
        comp = np.arange(components)
        state = np.zeros((components, 1), np.int64)  # The class that later groups see, from 1, in each slot.
        expires = np.full((components, 1), -1)  # Until when each slot is taken.
        slot = np.zeros(self.problem.groups, np.int64)
        offset, beyond = 0, components
        parts: list[tuple[Integers, Integers, Integers, list[Integers]]] = []
        step_arcs, step_nodes = [0], [components]
        final = np.full(components, -1)
        for step in range(steps):
            groups = self.by_step[self.step_begin[step] : self.step_begin[step + 1]]
            of_comp = np.full(components, -1)
            of_comp[self.component[groups]] = groups
            mine = np.flatnonzero(of_comp[comp] >= 0)
            here = of_comp[comp[mine]]
            counts = np.diff(self.classes.first)[here]
            source = np.repeat(mine, counts)
            taken = spans(self.classes.first[here], counts)
            cells, fits = self._meet(step, comp[source], state[source], slot, taken)
            source, taken, cells = source[fits], taken[fits], [column[fits] for column in cells]
            state, expires = self._forget(groups, state, expires, slot, step)
            after = state[source]
            group = of_comp[comp[source]]
            seen = self.later.of_option[self.classes.member[taken]] - self.later.first[group] + 1
            after[np.arange(len(source)), slot[group]] = seen
            after[expires[comp[source]] <= step] = 0
            nodes, inverse = _distinct(comp[source], after, self.radix)
            order = np.argsort(inverse, kind="stable")
            parts.append(
                (source[order] + offset, inverse[order] + beyond, taken[order], [column[order] for column in cells])
            )
            step_arcs.append(step_arcs[-1] + len(order))
            comp, state = comp[source][nodes], after[nodes]
            ended = np.flatnonzero(self.size[comp] == step + 1)
            final[comp[ended]] = beyond + ended
            offset, beyond = beyond, beyond + len(nodes)
            step_nodes.append(beyond)
        return self._joined(parts, step_arcs, step_nodes, final, beyond)

    def _meet(
        self, step: int, comp: Integers, state: Integers, slot: Integers, taken: Integers
    ) -> tuple[list[Integers], npt.NDArray[np.bool_]]:
        """Find the cells in which groups taken now meet those before, and whether all are allowed."""
        pairs = self.problem.pairs
        mine = self.by_late[self.pair_begin[step] : self.pair_begin[step + 1]]
        late = self.late[mine]
        rank = np.arange(len(mine)) - np.searchsorted(self.component[late], self.component[late])
        fits = np.ones(len(comp), np.bool_)
        cells = []
        for place in range(int(rank.max(initial=-1)) + 1):
            of_comp = np.full(len(self.size), -1)
            chosen = mine[rank == place]
            of_comp[self.component[self.late[chosen]]] = chosen
            met = of_comp[comp]
            there = np.flatnonzero(met >= 0)
            met = met[there]
            early, pair = self.early[met], self.pair[met]
            known = (
                self.later.member[self.later.first[early] + state[there, slot[early]] - 1] - self.problem.start[early]
            )
            new = self.classes.member[taken[there]] - self.problem.start[self.late[met]]
            ahead = pairs.source[pair] == early
            writes = pairs.source_format[pairs.source_start[pair] + np.where(ahead, known, new)]
            reads = pairs.target_format[pairs.target_start[pair] + np.where(ahead, new, known)]
            cell = pairs.cell_start[pair] + writes * pairs.columns[pair] + reads
            fits[there] &= pairs.allowed[cell]
            column = np.full(len(comp), len(pairs.allowed))
            column[there] = cell
            cells.append(column)
        return cells, fits

    def _forget(
        self, groups: Integers, state: Integers, expires: Integers, slot: Integers, step: int
    ) -> tuple[Integers, Integers]:
        """Free the slots of groups that nobody meets any more, and give the new groups one each."""
        comp = self.component[groups]
        free = expires[comp] <= step
        if not bool(free.any(axis=1).all()):
            state = np.concatenate([state, np.zeros((len(state), 1), np.int64)], axis=1)
            expires = np.concatenate([expires, np.full((len(expires), 1), -1)], axis=1)
            free = expires[comp] <= step
        slot[groups] = free.argmax(axis=1)
        expires[comp, slot[groups]] = self.last[groups]
        return state, expires

    def _joined(
        self,
        parts: list[tuple[Integers, Integers, Integers, list[Integers]]],
        step_arcs: list[int],
        step_nodes: list[int],
        final: Integers,
        nodes: int,
    ) -> Trellis:
        most = max(len(part[3]) for part in parts)
        none = len(self.problem.pairs.allowed)
        cells = np.full((most, step_arcs[-1]), none)
        for begin, part in zip(step_arcs, parts, strict=False):
            for place, column in enumerate(part[3]):
                cells[place, begin : begin + len(column)] = column
        target = np.concatenate([part[1] for part in parts])
        return Trellis(
            component=self.component,
            position=self.position,
            classes=self.classes,
            group_of_class=np.repeat(np.arange(self.problem.groups), np.diff(self.classes.first)),
            source=np.concatenate([part[0] for part in parts]),
            target=target,
            arc_class=np.concatenate([part[2] for part in parts]),
            arc_cells=cells,
            step_arcs=np.array(step_arcs),
            step_nodes=np.array(step_nodes),
            arcs_into=np.searchsorted(target, np.arange(nodes + 1)),
            final=final,
            loosened=np.flatnonzero(~self.kept),
        )


def _distinct(comp: Integers, state: Integers, radix: int) -> tuple[Integers, Integers]:
    """Number the distinct states of each component, by component; return one arc of each, and each arc's number."""
    if (int(comp.max(initial=0)) + 1) * radix ** state.shape[1] < 2**62:
        key = comp.astype(np.int64)
        for column in state.T:
            key = key * radix + column
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    else:
        rows = np.concatenate([comp[:, None], state], axis=1)
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.reshape(-1).astype(np.int64)
