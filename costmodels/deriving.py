"""Scripts of choices among what they were never seen with, worked out of scripts that are known.

A script that differs only in forms that it neither reads nor makes serves as it is.  Else, what changes in one script
when a layer finds something else is done to another script too: to that of a choice of the same layer that reads and
writes in the same way, or of the same choice where another thing that it finds differs.  The change is a list of
operators that give way to others between operators that stay; it is done where those that stay are found again.  Where
nothing helps, a script from elsewhere stands in, and is called a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from costmodels.errors import TableError
from costmodels.scripts import LayerScripts, Operation, Script

__all__ = ["script_for"]

_Forms = tuple[str, ...]


def script_for(layer: LayerScripts, choice: str, forms: _Forms) -> tuple[Script, bool]:
    """Return the script of a choice among what its layer finds, and whether that is certain.

    Args:
        layer: The layer's scripts.
        choice: The choice.
        forms: What it finds.

    Raises:
        TableError: The choice has no script.
    """
    known = layer.known.get(choice)
    if not known:
        raise TableError(f"no memory script; there are some for: {', '.join(layer.known)}").at(
            layer=layer.name, choice=choice
        )
    if forms in known:
        return known[forms], True
    served = _served(known, forms) or _changed(layer, choice, forms)
    if served is not None:
        return served, True
    alike = [found for found in known if len(found) == len(forms)] or list(known)
    # Of guesses the greatest is taken.
    return max((known[found] for found in alike), key=lambda s: sum(op.bytes for op in s.operations)), False


def _is_shared(form: str) -> bool:
    return " " in form


def _served(known: Mapping[_Forms, Script], forms: _Forms) -> Script | None:
    """Return a script that holds as it is: what it would find elsewhere differs in what does not matter to it."""
    for other, script in known.items():
        if [f for f in other if not _is_shared(f)] != [f for f in forms if not _is_shared(f)]:
            continue
        used = {other[-1 - read] for op in script.operations for read in op.reads if read < 0}
        made = {
            f"{_origin(other[-1 - op.reads[0]], -1 - op.reads[0])} {op.hint} {op.form}"
            for op in script.operations
            if op.shared and op.reads and op.reads[0] < 0
        }
        extra = set(forms) - set(other)
        if used <= set(forms) and not made & extra and len(set(forms)) == len(forms):
            return _renumbered(script, {-1 - i: -1 - forms.index(f) for i, f in enumerate(other) if f in forms})
    return None


def _origin(form: str, number: int) -> str:
    return form.partition(" ")[0] if _is_shared(form) else str(number)


def _renumbered(script: Script, numbers: Mapping[int, int]) -> Script:
    operations = tuple(
        replace(op, reads=tuple(numbers.get(read, read) if read < 0 else read for read in op.reads))
        for op in script.operations
    )
    return replace(script, operations=operations)


def _changed(layer: LayerScripts, choice: str, forms: _Forms) -> Script | None:
    """Work a script out: what changes for another script between like findings changes for one of this choice."""
    results = _results(forms)
    for there, here, mine in _examples(layer, choice, results):
        found = _patched(mine, there, here)
        if found is not None and _stands_alone(found, forms) and _is_whole(found, len(results)):
            return found
    return None


def _results(forms: _Forms) -> _Forms:
    return tuple(form for form in forms if not _is_shared(form))


def _examples(layer: LayerScripts, choice: str, results: _Forms) -> Iterator[tuple[Script, Script, Script]]:
    """Yield pairs of scripts that show a change, with the script of the choice that it is to be done to."""
    for near in range(1, len(results) + 1):
        for before, mine in layer.known[choice].items():
            mine_results = _results(before)
            changes = [place for place, form in enumerate(results) if form != mine_results[place]]
            if len(changes) != near or not _stands_alone(mine, before):
                continue
            for name in _alike(layer, choice, changes):
                yield from (
                    (there, here, mine) for there, here in _pairs(layer.known[name], mine_results, results, changes)
                )


def _alike(layer: LayerScripts, choice: str, changes: Sequence[int]) -> Iterator[str]:
    """Yield the choices that treat what changes as this one does, itself first."""
    yield choice
    if choice not in layer.kinds or len(layer.joined) <= max(changes):
        return
    words = sorted({int(layer.joined[place]) for place in changes})
    mine = [layer.kinds[choice][word] for word in words]
    for other, kind in layer.kinds.items():
        if other != choice and other in layer.known and [kind[word] for word in words] == mine:
            yield other


def _pairs(
    known: Mapping[_Forms, Script], before: _Forms, after: _Forms, changes: Sequence[int]
) -> Iterator[tuple[Script, Script]]:
    """Yield scripts of one choice that found what is given before and after; what stays may be anything for both."""
    first: dict[_Forms, Script] = {}
    for forms, script in known.items():
        if _stands_alone(script, forms):
            first.setdefault(_results(forms), script)
    for there, script in first.items():
        if all(there[place] == before[place] for place in changes):
            here = tuple(after[place] if place in changes else form for place, form in enumerate(there))
            if here in first:
                yield script, first[here]


def _stands_alone(script: Script, forms: _Forms) -> bool:
    """Tell whether a script neither reads what earlier readers made for all, nor makes what is there already."""
    least = -len(_results(forms))
    made = {
        f"{-1 - op.reads[0]} {op.hint} {op.form}"
        for op in script.operations
        if op.shared and op.reads and op.reads[0] < 0
    }
    return all(read >= least for op in script.operations for read in op.reads) and made.isdisjoint(forms)


def _is_whole(script: Script, findings: int) -> bool:
    """Tell whether all that a script finds and makes is used: what is left over shows that a change did not fit."""
    read = {read for op in script.operations for read in op.reads}
    unread = set(range(len(script.operations))) - read - set(script.results)
    return not unread and all(-1 - place in read for place in range(findings))


def _bare(operation: Operation) -> Operation:
    return replace(operation, reads=())


def _patched(mine: Script, there: Script, here: Script) -> Script | None:
    """Do to a script what makes another one of a third; None where it does not fit.

    Args:
        mine: The script that is to be changed.
        there: The other script as it is.
        here: The same changed.
    """
    bare_there, bare_here, bare_mine = ([_bare(op) for op in s.operations] for s in (there, here, mine))
    in_mine = _matches(bare_there, bare_mine)
    edits: dict[int, tuple[int, int, int]] = {}
    for what, start, end, first, beyond in SequenceMatcher(None, bare_there, bare_here, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        place = _place(in_mine, start, end)
        if place is None:
            return None
        edits[place] = (end - start, first, beyond)
    return _Patch(mine, there, here, edits, _matches(bare_there, bare_here), in_mine).script()


def _matches(one: Sequence[Operation], other: Sequence[Operation]) -> dict[int, int]:
    """Match the operators of two scripts in order."""
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return {block.a + step: block.b + step for block in blocks for step in range(block.size)}


def _place(in_mine: Mapping[int, int], start: int, end: int) -> int | None:
    """Say where in a script that stands which in another one lies from a start to an end; None if it is not there."""
    if start < end:
        places = [in_mine.get(number, -1) for number in range(start, end)]
        return places[0] if places[0] >= 0 and places == list(range(places[0], places[0] + len(places))) else None
    if start in in_mine or start == 0:
        return in_mine.get(start, 0)
    return in_mine[start - 1] + 1 if start - 1 in in_mine else None


class _Patch:
    """A script while it is changed, and how its operators are numbered before and after."""

    def __init__(
        self,
        mine: Script,
        there: Script,
        here: Script,
        edits: Mapping[int, tuple[int, int, int]],
        in_here: Mapping[int, int],
        in_mine: Mapping[int, int],
    ) -> None:
        """List what stays and what comes.

        Args:
            mine: The script that is to be changed.
            there: Another script.
            here: What it becomes.
            edits: By place in `mine`, how many operators go, and from where to where those of `here` come instead.
            in_here: Which operators of `there` are which of `here`.
            in_mine: Which operators of `there` are which of `mine`.
        """
        self._mine, self._there, self._here, self._in_here = mine, there, here, in_here
        self._twin = {number: other for other, number in in_mine.items()}
        self._listed: list[tuple[bool, int]] = []
        place = 0
        while place <= len(mine.operations):
            gone, first, beyond = edits.get(place, (0, 0, 0))
            self._listed += [(False, number) for number in range(first, beyond)]
            place += gone
            if place < len(mine.operations):
                self._listed.append((True, place))
            place += 1
        self._of_mine = {number: new for new, (own, number) in enumerate(self._listed) if own}
        self._of_here = {number: new for new, (own, number) in enumerate(self._listed) if not own}
        for other, number in in_here.items():
            if in_mine.get(other) in self._of_mine:
                self._of_here[number] = self._of_mine[in_mine[other]]

        self._instead = self._findings()

    def _findings(self) -> dict[int, int]:
        """Return what is read in place of what the layer finds, where all that stays reads it so."""
        found: dict[int, set[int]] = {}
        for number, other in self._in_here.items():
            before, after = self._there.operations[number].reads, self._here.operations[other].reads
            for was, now in zip(before, after, strict=False):
                if was < 0:
                    found.setdefault(was, set()).add(now)
        return {was: next(iter(nows)) for was, nows in found.items() if len(nows) == 1}

    def script(self) -> Script | None:
        """Return the changed script; None where something is read that is gone."""
        operations: list[Operation] = []
        for own, number in self._listed:
            operation = (self._mine if own else self._here).operations[number]
            reads = self._reads_of_mine(number) if own else [_numbered(r, self._of_here) for r in operation.reads]
            kept = [read for read in reads if read is not None and read < len(operations)]
            if len(kept) < len(operation.reads):
                return None
            operations.append(replace(operation, reads=tuple(kept)))
        if any(result not in self._of_mine for result in self._mine.results):
            return None
        return Script(operations=tuple(operations), results=tuple(self._of_mine[r] for r in self._mine.results))

    def _reads_of_mine(self, number: int) -> list[int | None]:
        """Number what an operator that stays reads; where its twin reads something else now, it does so too."""
        reads = [_numbered(read, self._of_mine) for read in self._mine.operations[number].reads]
        twin = self._twin.get(number)
        if twin is None or twin not in self._in_here:
            return [
                _numbered(self._instead.get(old, old), self._of_here) if old < 0 else read
                for old, read in zip(self._mine.operations[number].reads, reads, strict=True)
            ]
        before = self._there.operations[twin].reads
        after = self._here.operations[self._in_here[twin]].reads
        if not len(before) == len(after) == len(reads):
            return []
        return [
            read if _numbered(was, self._in_here) == now else _numbered(now, self._of_here)
            for read, was, now in zip(reads, before, after, strict=True)
        ]


def _numbered(read: int, numbers: Mapping[int, int]) -> int | None:
    """Give an operator its new number; what a layer finds keeps its own."""
    return read if read < 0 else numbers.get(read)
