"""Fast CPU code from TVM without a search: a blocked layout, and one schedule rule a kernel family.

Importing this package imports TVM.  :func:`pipeline` works on any Relax module with static shapes.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from planner.schedules import (
    channels,
    convolution,
    dense,
    depthwise,
    elementwise,
    grouped,
    int8_convolution,
    int8_targets,
    local_response,
    matmul,
    normalisation,
    pooling,
    reduction,
    softmax,
    vectors,
)
from planner.schedules.choosing import ScheduleKernels, UnfitScheduleError, choose, describe, schedule_kernels
from planner.schedules.clip import RestoreClip
from planner.schedules.inference import FoldRemainingConstants, SimplifyConstants
from planner.schedules.layout_pass import BlockedLayout
from planner.schedules.naming import NameKernels
from planner.schedules.options import WINOGRAD, Options
from planner.schedules.scheduling import FamilyRule, Kernel

__all__ = [
    "WINOGRAD",
    "Kernel",
    "Options",
    "UnfitScheduleError",
    "choose",
    "describe",
    "fuse",
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
        convolution.ConvolutionRule(unit),
        int8_convolution.Int8ConvolutionRule(unit, int8_targets.of_target(target)),
        depthwise.DepthwiseRule(unit),
        grouped.GroupedRule(unit),
        channels.ChannelsRule(unit),
        local_response.LocalResponseRule(unit),
        pooling.PoolingRule(unit),
        dense.DenseRule(unit),
        matmul.MatmulRule(unit),
        softmax.SoftmaxRule(unit),
        normalisation.NormalisationRule(unit),
        reduction.AlongRule(unit),
        reduction.AcrossRule(unit),
        elementwise.ElementwiseRule(unit),
    ]


def prepare() -> tvm.transform.Pass:
    """Simplify a freshly imported module: inference forms of operators, constants folded."""
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            SimplifyConstants(),
            transform.DecomposeOpsForInference(),
            transform.CanonicalizeBindings(),
            FoldRemainingConstants(),
            RestoreClip(),
            transform.DeadCodeElimination(),
        ]
    )


def fuse(options: Options | None = None) -> tvm.transform.Pass:
    """Put a prepared module into the blocked layout and fuse epilogues into their kernels."""
    transform = relax.transform
    return tvm.transform.Sequential(
        [
            BlockedLayout(options),
            transform.DeadCodeElimination(),
            transform.LegalizeOps(),
            NameKernels(),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )


def pipeline(target: Any, options: Options | None = None) -> tvm.transform.Pass:
    """Give the whole way from a prepared module to scheduled kernels."""
    return tvm.transform.Sequential([fuse(options), ScheduleKernels(rules(target))])


def pass_names() -> tuple[str, ...]:
    """Name the passes of :func:`pipeline` in order, as written to the build config."""
    return (
        *(p.info.name for p in fuse().passes),
        ScheduleKernels([]).info.name,
    )


_ON_STACK = 1024
"""Bytes up to which TVM's LLVM backend keeps a buffer of constant size on the stack."""


def workspaces(module: tvm.IRModule) -> dict[str, int]:
    """Count what each scheduled PrimFunc allocates for itself outside registers and stack, in bytes.

    TVM puts buffers of up to 1 KiB on the stack; anything larger is asked of the runtime, and counts against a
    memory bound.
    """
    transform, count = tvm.s_tir.transform, tvm.s_tir.analysis.calculate_allocated_bytes
    kernels = {v: f for v, f in module.functions_items() if not isinstance(f, relax.Function)}
    compacted = tvm.transform.Sequential(
        [
            transform.LowerInitBlock(),
            transform.PlanAndUpdateBufferAllocationLocation(),
            transform.ConvertBlocksToOpaque(),
            transform.CompactBufferAllocation(),
        ]
    )(tvm.IRModule(kernels))
    allocated = {
        v.name_hint: {str(scope): int(size) for scope, size in count(f)["main"].items()}
        for v, f in compacted.functions_items()
    }
    return {name: sum(size for size in scopes.values() if size > _ON_STACK) for name, scopes in allocated.items()}
