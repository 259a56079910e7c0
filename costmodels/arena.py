"""Where tensors lie in one storage: offsets, so that no two that are needed at once overlap.

Storage is one dimension, time the other; a tensor is a rectangle that may slide along the first.  Finding the least
storage is NP-hard (dynamic storage allocation), but the greatest live set is a lower bound, and orders of placing that
are known to be good reach it as a rule: by decreasing size (Pisarchyk and Lee, *Efficient memory management for deep
neural net inference*, 2020), and into the lowest free place whatever lives longest (Sekiyama et al., *Profile-guided
memory optimization for deep neural networks*, 2018).  Where none does, the best order is changed, seeded, until the
bound is met or the work is done.

What comes out depends on the tensors alone, not on the order in which they are listed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ALIGNMENT", "Packing", "Tensor", "aligned", "pack"]

ALIGNMENT = 64
"""Bytes: where TVM's kernels expect tensors to start (``kAllocAlignment``), and the length of a cache line."""
_WORK = 600_000
"""Pairs of tensors that the improvement may look at: bounds its time to about a second."""
_MOST_CHANGES = 3_000


def aligned(size: int) -> int:
    """Round bytes up to the next place where a tensor may start.

    >>> aligned(1), aligned(64), aligned(65)
    (64, 64, 128)
    """
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """State how large a tensor is and during which kernel calls it is needed.

    Attributes:
        bytes: Its size.
        born: Number of the call that writes it.
        last: Number of the last call that reads it; of the call that writes it, if none reads it.
        within: Index of a tensor of the same size whose last call is this one's first, and whose place this one may
            take although both are needed during that call: the kernel reads each element before it writes it.

    >>> Tensor(bytes=8, born=0, last=2).meets(Tensor(bytes=4, born=2, last=3))
    True
    """

    bytes: int
    born: int
    last: int
    within: int | None = None

    def __post_init__(self) -> None:
        """Check the figures."""
        if self.bytes < 0:
            raise ValueError(f"a tensor of {self.bytes} bytes: expected 0 or more")
        if not 0 <= self.born <= self.last:
            raise ValueError(f"a tensor needed from call {self.born} to call {self.last}: expected 0 <= born <= last")

    def meets(self, other: Tensor) -> bool:
        """Tell whether both are needed during one call."""
        return self.born <= other.last and other.born <= self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Where each tensor lies.

    Attributes:
        offsets: Byte at which each tensor starts, in the order of the tensors; multiples of :data:`ALIGNMENT`.
        bytes: Size of the storage.
        live_bytes: The greatest live set with sizes rounded up to :data:`ALIGNMENT` and every place taken over that
            may be: no storage can be smaller.
    """

    offsets: tuple[int, ...]
    bytes: int
    live_bytes: int

    @property
    def optimal(self) -> bool:
        """Whether the storage is proven to be the smallest by the live set alone."""
        return self.bytes == self.live_bytes


def pack(tensors: Sequence[Tensor], *, seed: int = 0) -> Packing:
    """Place tensors in one storage.

    Args:
        tensors: What is to be placed.
        seed: Seed of the improvement.

    Returns:
        Offsets such that tensors which meet do not overlap, but for those that take the place of another: these
        either start where the other does, or lie apart from it.

    Raises:
        ValueError: A tensor may take the place of what is not there, has another size, is needed later, or is taken
            by another one too.

    >>> pack([Tensor(bytes=100, born=0, last=1), Tensor(bytes=64, born=1, last=2), Tensor(bytes=100, born=2, last=3)])
    Packing(offsets=(0, 128, 0), bytes=192, live_bytes=192)
    >>> pack([Tensor(bytes=100, born=0, last=1), Tensor(bytes=100, born=1, last=2, within=0)]).offsets
    (0, 0)
    """
    _check_within(tensors)
    merged = _chains(tensors)
    offsets, size, live = _placed([_block(tensors, chain) for chain in merged], seed)
    if size > live and len(merged) < len(tensors):
        # A place that is taken over ties two tensors together; apart, they may fit where the tied ones do not.
        singly: list[tuple[int, ...]] = [(index,) for index in range(len(tensors))]
        apart, smaller, _ = _placed([_block(tensors, chain) for chain in singly], seed)
        if smaller < size:
            merged, offsets, size = singly, apart, smaller
    placed = [0] * len(tensors)
    for chain, offset in zip(merged, offsets, strict=True):
        for index in chain:
            placed[index] = offset
    return Packing(offsets=tuple(placed), bytes=size, live_bytes=live)


def _check_within(tensors: Sequence[Tensor]) -> None:
    taken: dict[int, int] = {}
    for index, tensor in enumerate(tensors):
        if tensor.within is None:
            continue
        if not 0 <= tensor.within < len(tensors):
            raise ValueError(f"tensor {index} lies within tensor {tensor.within}: expected one of {len(tensors)}")
        other = tensors[tensor.within]
        if (other.bytes, other.last) != (tensor.bytes, tensor.born) or other.born >= tensor.born:
            raise ValueError(
                f"tensor {index} ({tensor}) lies within tensor {tensor.within} ({other}): expected one of the same "
                "size that was there before and is needed last by the call that writes the other"
            )
        if tensor.within in taken:
            raise ValueError(f"tensors {taken[tensor.within]} and {index} both lie within tensor {tensor.within}")
        taken[tensor.within] = index


def _chains(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """List tensors that lie in one place, one after the other."""
    follower = {tensor.within: index for index, tensor in enumerate(tensors) if tensor.within is not None}
    chains = []
    for index, tensor in enumerate(tensors):
        if tensor.within is None:
            chain = [index]
            while chain[-1] in follower:
                chain.append(follower[chain[-1]])
            chains.append(tuple(chain))
    return chains


_Block = tuple[int, int, int]
"""Size (rounded up), first and last call of what lies in one place."""


def _block(tensors: Sequence[Tensor], chain: Sequence[int]) -> _Block:
    return aligned(tensors[chain[0]].bytes), tensors[chain[0]].born, tensors[chain[-1]].last


def _placed(blocks: Sequence[_Block], seed: int) -> tuple[list[int], int, int]:
    """Place blocks: offsets in their order, the storage, the greatest live set."""
    order = sorted(range(len(blocks)), key=lambda index: (-blocks[index][0], *blocks[index][1:]))
    search = _Search([blocks[index] for index in order])
    search.run(seed)
    offsets = [0] * len(blocks)
    for index, offset in zip(order, search.offsets, strict=True):
        offsets[index] = offset
    return offsets, search.size, search.live


class _Search:
    """Looks for good offsets of blocks that come in a canonical order."""

    def __init__(self, blocks: Sequence[_Block]) -> None:
        self._blocks = blocks
        self._met = [
            [j for j, (_, born, last) in enumerate(blocks) if j != i and born <= mine[2] and mine[1] <= last]
            for i, mine in enumerate(blocks)
        ]
        moments = {born for _, born, _ in blocks}  # a live set is greatest where something has just been born
        sets = {t: sum(size for size, born, last in blocks if born <= t <= last) for t in moments}
        self.live = max(sets.values(), default=0)
        self._crowd = [max((sets[t] for t in moments if born <= t <= last), default=0) for _, born, last in blocks]
        self.offsets: list[int] = [0] * len(blocks)
        self.size = -1

    def run(self, seed: int) -> None:
        """Try known orders, then orders near the best one."""
        best: list[int] = []
        for order in self._orders():
            if self._improves(order) or not best:
                best = order
            if self.size == self.live:
                return
        count = len(self._blocks)
        pairs = max(1, sum(map(len, self._met)))
        chance = random.Random(seed)  # noqa: S311 -- no secret depends on it
        now, now_offsets, now_size = best, self.offsets, self.size
        for _ in range(min(_MOST_CHANGES, _WORK // pairs) if count > 1 else 0):
            offsets, size = self._fitted(tried := self._changed(now, now_offsets, now_size, chance))
            if size <= now_size:
                now, now_offsets, now_size = tried, offsets, size
                if size < self.size:
                    self.offsets, self.size = offsets, size
                if size == self.live:
                    return

    def _orders(self) -> list[list[int]]:
        blocks, met, crowd = self._blocks, self._met, self._crowd
        everything = range(len(blocks))
        weight = [sum(blocks[j][0] for j in met[i]) for i in everything]
        length = [last - born for _, born, last in blocks]
        return [
            list(everything),  # decreasing size: the canonical order
            sorted(everything, key=lambda i: (-crowd[i], -blocks[i][0], i)),
            self._by_skyline(),
            sorted(everything, key=lambda i: (-length[i], -blocks[i][0], i)),
            sorted(everything, key=lambda i: (-blocks[i][0] * (length[i] + 1), i)),
            sorted(everything, key=lambda i: (-weight[i], i)),
            sorted(everything, key=lambda i: (blocks[i][1], -blocks[i][0], i)),
            sorted(everything, key=lambda i: (-blocks[i][2], -blocks[i][0], i)),
        ]

    def _by_skyline(self) -> list[int]:
        """Order blocks as Sekiyama's best fit places them: into the lowest valley what lives there longest."""
        blocks = self._blocks
        times = sorted({t for _, born, last in blocks for t in (born, last)})
        height = dict.fromkeys(times, 0)
        left = list(range(len(blocks)))
        order = []
        while left:
            low = min(height.values())
            start = next(t for t in times if height[t] == low)
            end = start
            for t in times[times.index(start) :]:
                if height[t] != low:
                    break
                end = t
            fitting = [i for i in left if start <= blocks[i][1] and blocks[i][2] <= end]
            if fitting:
                chosen = max(fitting, key=lambda i: (blocks[i][2] - blocks[i][1], blocks[i][0], -i))
                left.remove(chosen)
                order.append(chosen)
                for t in times:
                    if blocks[chosen][1] <= t <= blocks[chosen][2]:
                        height[t] = low + blocks[chosen][0]
            else:  # nothing fits: fill the valley up to the lower of its banks
                banks = [height[t] for t in (_before(times, start), _after(times, end)) if t is not None]
                if not banks:
                    break
                for t in times:
                    if start <= t <= end:
                        height[t] = min(banks)
        return order + left

    def _improves(self, order: Sequence[int]) -> bool:
        offsets, size = self._fitted(order)
        if self.size >= 0 and size >= self.size:
            return False
        self.offsets, self.size = offsets, size
        return True

    def _fitted(self, order: Sequence[int]) -> tuple[list[int], int]:
        """Place blocks in an order, each into the smallest gap that holds it; return offsets and storage."""
        blocks = self._blocks
        offsets = [-1] * len(blocks)
        highest = 0
        for index in order:
            size = blocks[index][0]
            taken = sorted((offsets[j], offsets[j] + blocks[j][0]) for j in self._met[index] if offsets[j] >= 0)
            end, place, spare = 0, -1, -1
            for low, high in taken:
                gap = low - end
                if gap >= size and (place < 0 or gap < spare):
                    place, spare = end, gap
                end = max(end, high)
            offsets[index] = end if place < 0 else place
            highest = max(highest, offsets[index] + size)
        return offsets, highest

    def _changed(self, order: Sequence[int], offsets: Sequence[int], size: int, chance: random.Random) -> list[int]:
        """Place a block sooner that reaches the top of the storage, or move any block, or let two change places."""
        changed = list(order)
        one, other = chance.randrange(len(changed)), chance.randrange(len(changed))
        kind = chance.randrange(3)
        if kind == 0:
            high = [place for place, i in enumerate(order) if offsets[i] + self._blocks[i][0] == size]
            one = chance.choice(high)
            other = chance.randrange(one + 1)
        if kind == 2:
            changed[one], changed[other] = changed[other], changed[one]
        else:
            changed.insert(other, changed.pop(one))
        return changed


def _before(times: Sequence[int], moment: int) -> int | None:
    index = times.index(moment)
    return times[index - 1] if index else None


def _after(times: Sequence[int], moment: int) -> int | None:
    index = times.index(moment)
    return times[index + 1] if index + 1 < len(times) else None
