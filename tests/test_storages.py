from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.storages import Lifetime, share

TENSORS = st.lists(
    st.builds(
        lambda size, born, length: Lifetime(size=size, born=born, last=born + length),
        size=st.integers(1, 1000),
        born=st.integers(0, 12),
        length=st.integers(0, 6),
    ),
    max_size=14,
)


def total(lifetimes, numbers):
    sizes = {}
    for tensor, number in zip(lifetimes, numbers, strict=True):
        sizes[number] = max(sizes.get(number, 0), tensor.size)
    return sum(sizes.values())


def greatest_live_set(lifetimes):
    steps = range(max((tensor.last for tensor in lifetimes), default=0) + 1)
    return max(sum(t.size for t in lifetimes if t.born <= step <= t.last) for step in steps)


@given(TENSORS)
@settings(max_examples=200, deadline=None)
def test_no_two_tensors_of_one_storage_are_needed_at_once(lifetimes):
    numbers = share(lifetimes)
    for one in range(len(lifetimes)):
        for other in range(one):
            if numbers[one] == numbers[other]:
                assert not lifetimes[one].meets(lifetimes[other])
    assert greatest_live_set(lifetimes) <= total(lifetimes, numbers) <= sum(t.size for t in lifetimes)


def test_a_chain_takes_two_storages():
    sizes = (1000, 10, 1, 900, 900)
    chain = [Lifetime(size=size, born=step, last=step + 1) for step, size in enumerate(sizes)]
    numbers = share(chain)
    assert len(set(numbers)) == 2
    assert total(chain, numbers) == 1900


def test_changing_the_order_reaches_the_live_set_where_greedy_orders_do_not():
    # A residual block: its input stays alive while the branch widens and narrows again.
    block = [
        Lifetime(size=50, born=0, last=4),
        Lifetime(size=57, born=1, last=2),
        Lifetime(size=50, born=2, last=3),
        Lifetime(size=57, born=3, last=4),
        Lifetime(size=25, born=4, last=6),
        Lifetime(size=50, born=5, last=6),
    ]
    assert total(block, share(block)) == greatest_live_set(block)


def test_the_same_tensors_are_placed_in_the_same_way():
    tensors = [Lifetime(size=7 * n % 11 + 1, born=n % 5, last=n % 5 + n % 3) for n in range(20)]
    assert share(tensors) == share(tensors)
