"""How the benchmark of storage chooses: the best mixture there is, or why there is none."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import storage
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import InputError

FORM = st.builds(
    lambda size, lost: storage.Stored(choice=f"{size}/{lost}", weight_bytes=size, divergence=lost / 8),
    st.integers(0, 9),
    st.integers(0, 9),
)
LAYERS = st.dictionaries(st.sampled_from("abcd"), st.lists(FORM, min_size=1, max_size=4), min_size=1)


@given(measured=LAYERS, bound=st.integers(0, 30))
def test_a_mixture_is_the_best_of_all_that_keep_the_bound(measured: dict, bound: int) -> None:
    kept = [forms for forms in product(*measured.values()) if sum(form.weight_bytes for form in forms) <= bound]
    if not kept:
        with pytest.raises(InputError, match="the smallest forms take"):
            storage.mixture(measured, bound)
        return
    chosen = storage.mixture(measured, bound)
    found = [next(f for f in forms if f.choice == chosen[layer]) for layer, forms in measured.items()]
    assert sum(form.weight_bytes for form in found) <= bound
    least = min(sum(form.divergence for form in forms) for forms in kept)
    assert sum(form.divergence for form in found) == pytest.approx(least)


def test_answers_that_differ_by_a_constant_are_the_same_answers() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    assert storage.divergence(logits + np.float32(3), logits) == pytest.approx(0, abs=1e-6)
    assert storage.divergence(-logits, logits) > 0.1
