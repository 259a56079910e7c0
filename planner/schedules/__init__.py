"""Fast CPU code from TVM without a search: a blocked layout, and one schedule rule a kernel family.

Importing this package imports TVM.  :func:`pipeline` works on any Relax module with static shapes.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from planner.schedules import vectors
from planner.schedules.choosing import (
    SCHEDULING,
    ScheduleKernels,
    UnfitScheduleError,
    choose,
    describe,
    schedule_kernels,
)
from planner.schedules.clip import RestoreClip
from planner.schedules.families import (
    channels,
    concatenation,
    convolution,
    dense,
    depthwise,
    elementwise,
    grouped,
    local_response,
    matmul,
    normalisation,
    padding,
    pooling,
    reduction,
    softmax,
    transposition,
    winograd,
)
from planner.schedules.inference import FoldRemainingConstants, SimplifyConstants
from planner.schedules.int8 import convolution as int8_convolution
from planner.schedules.int8 import targets as int8_targets
from planner.schedules.layout_pass import BlockedLayout
from planner.schedules.naming import NameKernels
from planner.schedules.options import WINOGRAD, Options
from planner.schedules.scheduling import FamilyRule, Kernel
from planner.schedules.workspaces import workspaces

__all__ = [
    "WINOGRAD",
    "Kernel",
    "Options",
    "UnfitScheduleError",
    "arrange",
    "choose",
    "describe",
    "fuse",
    "join",
    "pass_names",
    "pipeline",
    "prepare",
    "rules",
    "schedule_kernels",
    "workspaces",
]


def rules(target: Any) -> list[FamilyRule]:
    """Give the schedule rules for a target, most particular first."""
    unit = vectors.of_target(target)
    return [
        winograd.WinogradRule(unit),
        convolution.ConvolutionRule(unit),
        int8_convolution.Int8ConvolutionRule(unit, int8_targets.of_target(target)),
        depthwise.DepthwiseRule(unit),
        grouped.GroupedRule(unit),
        channels.ChannelsRule(unit),
        concatenation.ConcatenationRule(unit),
        padding.PaddingRule(unit),
        local_response.LocalResponseRule(unit),
        pooling.PoolingRule(unit),
        dense.DenseRule(unit),
        matmul.MatmulRule(unit),
        softmax.SoftmaxRule(unit),
        normalisation.NormalisationRule(unit),
        reduction.AlongRule(unit),
        reduction.AcrossRule(unit),
        transposition.TranspositionRule(unit),
        elementwise.ElementwiseRule(unit),
    ]


def prepare() -> tvm.transform.Pass:
    """Simplify a freshly imported module: inference forms of operators, constants folded."""
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            SimplifyConstants(),
            transform.DecomposeOpsForInference(),
            SimplifyConstants(),  # again: a normalisation by what is not constant was taken apart
            transform.CanonicalizeBindings(),
            FoldRemainingConstants(),
            RestoreClip(),
            transform.DeadCodeElimination(),
        ]
    )


def fuse(options: Options | None = None) -> tvm.transform.Pass:
    """Put a prepared module into the blocked layout and fuse epilogues into their kernels."""
    return tvm.transform.Sequential([*arrange(options).passes, *join().passes])


def arrange(options: Options | None = None) -> tvm.transform.Pass:
    """Put a prepared module into the blocked layout, each operator a kernel of its own: the first half of `fuse`."""
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            BlockedLayout(options),
            transform.DeadCodeElimination(),
            transform.LegalizeOps(),
            NameKernels(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
        ]
    )


def join() -> tvm.transform.Pass:
    """Fuse the operators of an arranged module into kernels: the second half of `fuse`."""
    transform = relax.transform
    return tvm.transform.Sequential([transform.FuseOps(), transform.FuseTIR(), transform.DeadCodeElimination()])


def pipeline(target: Any, options: Options | None = None) -> tvm.transform.Pass:
    """Give the whole way from a prepared module to scheduled kernels."""
    return tvm.transform.Sequential([fuse(options), ScheduleKernels(rules(target))])


def pass_names() -> tuple[str, ...]:
    """Name the passes of :func:`pipeline` in order, as written to the build config."""
    return (
        *(p.info.name for p in fuse().passes),
        SCHEDULING,
    )
