"""An affine model of two builds against the other builds of a network whose measurements were published.

Times of single layers of ResNet-18 with 4 and 8 bits on an NVIDIA T4, which configuration gives which layer 4 bits,
and the speed-ups of whole networks over float32: Yao et al., *HAWQ-V3: Dyadic neural network quantization* (ICML
2021), in the files ILP.ipynb, bit_config.py and model_zoo.md of its repository (Zhen-Dong/HAWQ).
"""

from __future__ import annotations

import numpy as np
import pytest

from costmodels.latency import fit

FOUR = [0.21094404, 0.21092674, 0.21104113, 0.21086851, 0.13642465, 0.19167506, 0.02532183, 0.19148203, 0.19142914]
FOUR += [0.11395316, 0.20556011, 0.01917474, 0.20566918, 0.20566509, 0.13185102, 0.22287786, 0.01790088, 0.22304611]
FOUR += [0.22286099]
EIGHT = [0.36189111, 0.36211718, 0.31141909, 0.30454471, 0.19184896, 0.38948934, 0.0334169, 0.38904905, 0.3892859]
EIGHT += [0.19134735, 0.34307431, 0.02802354, 0.34313329, 0.34310756, 0.21117103, 0.37376585, 0.02896843, 0.37398187]
EIGHT += [0.37405185]

UNIFORM = {"uniform8": (3.00, set()), "uniform4": (4.44, set(range(19)))}
MIXED = {
    "size 0.75": (3.09, {13, 18}),
    "size 0.5": (3.18, {15, 17, 18}),
    "size 0.25": (3.24, {14, 15, 16, 17, 18}),
    "operations 0.75": (3.36, {8, 13, 15, 18}),
    "operations 0.5": (3.63, {3, 8, 12, 13, 14, 15, 16, 17, 18}),
    "operations 0.25": (4.05, {3, 5, *range(7, 19)}),
    "latency 0.75": (3.36, {8, 13, 15, 18}),
    "latency 0.5": (3.57, {5, 8, 12, 13, 15, 17, 18}),
    "latency 0.25": (4.05, {3, 5, *range(7, 19)}),
}


def layers_of(narrow: set[int]) -> float:
    return sum(FOUR[layer] if layer in narrow else EIGHT[layer] for layer in range(19))


FLOAT32_NS = 3.0 * 3.3e6
"""The 8-bit network takes 3.3 ms, as the paper has it, and is three times as fast as the network in float32."""


def test_an_affine_model_of_two_builds_predicts_the_nine_others() -> None:
    totals = [FLOAT32_NS / speed for speed, _ in UNIFORM.values()]
    slope, offset = np.polyfit([layers_of(narrow) for _, narrow in UNIFORM.values()], totals, 1)
    errors = [(offset + slope * layers_of(narrow)) * speed / FLOAT32_NS - 1 for speed, narrow in MIXED.values()]
    assert np.max(np.abs(errors)) <= 0.02
    plain = [layers_of(narrow) * 1e6 * speed / FLOAT32_NS - 1 for speed, narrow in MIXED.values()]
    assert np.median(plain) == pytest.approx(0.65, abs=0.1)


def test_of_all_builds_each_is_predicted_from_the_others() -> None:
    found = {**UNIFORM, **MIXED}
    sums = np.array([1e6 * layers_of(narrow) for _, narrow in found.values()])
    totals = np.array([FLOAT32_NS / speed for speed, _ in found.values()])
    model = fit(sums, np.full(len(sums), 19.0), totals)
    assert len(model.errors) == len(found)
    assert model.median_error <= 0.015
    assert model.worst_error <= 0.03
    assert model.reserve <= 1.05
