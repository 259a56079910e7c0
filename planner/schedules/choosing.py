"""Which schedule a kernel gets: what the rules choose, or what was written down of an earlier choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir.schedule import ScheduleError

from planner.schedules.scheduling import CHOSEN, FamilyRule, Kernel, Parameters, parse

SCHEDULING = "ScheduleKernels"
"""Name of the pass that schedules kernels."""
_SCHEDULED = "tirx.is_scheduled"


class UnfitScheduleError(ValueError):
    """A schedule that was written down is for a kernel that is not there, or does not fit it."""


def kernels(module: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    """Give the PrimFuncs of a module by name, in alphabetical order."""
    found = {v.name_hint: f for v, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}
    return dict(sorted(found.items()))


def choose(module: tvm.IRModule, schedules: Mapping[str, str]) -> tvm.IRModule:
    """Note on fused kernels how they are to be scheduled, in place of what the rules would choose.

    Args:
        module: Fused kernels, not scheduled yet.
        schedules: What :func:`describe` said, by kernel name; kernels that are not named keep their default.

    Returns:
        A new module.

    Raises:
        UnfitScheduleError: A kernel is named that is not there.
    """
    unknown = sorted(set(schedules) - set(kernels(module)))
    if unknown:
        raise UnfitScheduleError(f"no kernel {unknown[0]!r} to schedule; there are: {', '.join(kernels(module))}")
    noted = {
        var: function.with_attr(CHOSEN, schedules[var.name_hint]) if var.name_hint in schedules else function
        for var, function in module.functions_items()
    }
    return tvm.IRModule(noted, attrs=module.attrs)


def rule_of(kernel: Kernel, rules: Sequence[FamilyRule]) -> FamilyRule:
    """Give the first rule that takes a kernel; the last of them takes any."""
    return next(rule for rule in rules if rule.matches(kernel))


def schedule_kernels(module: tvm.IRModule, rules: Sequence[FamilyRule]) -> tvm.IRModule:
    """Schedule every kernel by the first rule that takes it, and note on it how.

    Args:
        module: Fused kernels; what :func:`choose` noted on them is kept to.
        rules: The rules, most particular first.

    Returns:
        A new module, in which :func:`describe` can be asked of each kernel.

    Raises:
        UnfitScheduleError: What was noted does not fit the kernel that it was noted on.
    """
    scheduled = {
        var: _scheduled(var.name_hint, function, rules)
        if isinstance(function, tirx.PrimFunc) and not (function.attrs or {}).get(_SCHEDULED)
        else function
        for var, function in module.functions_items()
    }
    return tvm.IRModule(scheduled, attrs=module.attrs)


def _scheduled(name: str, function: tirx.PrimFunc, rules: Sequence[FamilyRule]) -> tirx.PrimFunc:
    kernel = Kernel(function)
    rule = rule_of(kernel, rules)
    noted = (function.attrs or {}).get(CHOSEN)
    if noted is None:
        parameters = rule.default(kernel)
        schedule = rule.schedule(kernel, parameters)
    else:
        parameters = _noted(name, str(noted), kernel, rule)
        try:
            schedule = rule.schedule(kernel, parameters)
        except ScheduleError as error:
            raise UnfitScheduleError(f"kernel {name!r}: the schedule {str(noted)!r} does not fit it") from error
    return schedule.mod["main"].with_attr({_SCHEDULED: True, CHOSEN: rule.text(parameters)})


def _noted(name: str, text: str, kernel: Kernel, rule: FamilyRule) -> Parameters:
    """Read what was noted on a kernel, and refuse what its rule would not have written."""
    known = {frozenset(p) for p in (rule.default(kernel), *rule.candidates(kernel))}
    try:
        family, parameters = parse(text)
    except ValueError:
        family, parameters = "", {}
    if family != rule.FAMILY or frozenset(parameters) not in known:
        like = rule.text(rule.default(kernel))
        raise UnfitScheduleError(f"kernel {name!r}: {text!r} is no schedule for it; expected one like {like!r}")
    return parameters


@tvm.transform.module_pass(opt_level=0, name=SCHEDULING)
class ScheduleKernels:
    """Module pass: :func:`schedule_kernels`.

    It is ``dlight.ApplyDefaultSchedule`` with the same rules, except that each kernel says afterwards how it was
    scheduled, and that the module it is given stays as it was.
    """

    def __init__(self, rules: Sequence[FamilyRule]) -> None:
        """Remember the rules."""
        self.rules = rules

    def transform_module(self, module: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        """Give a new module."""
        return schedule_kernels(module, self.rules)


def describe(module: Any) -> dict[str, str]:
    """Say how each kernel of a scheduled module was scheduled, by name: what :func:`choose` takes.

    Args:
        module: What :func:`schedule_kernels` gave.
    """
    return {name: str(function.attrs[CHOSEN]) for name, function in kernels(module).items()}
