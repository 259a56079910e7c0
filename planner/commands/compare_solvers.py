"""``blinkplan compare-solvers``: put solvers side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.commands._shared import add_budget, add_limits, budget, check_writable, say, say_aside

if TYPE_CHECKING:
    from costmodels import CostTable
    from planner.budget import Budget
    from planner.compare import Comparison, Run
    from planner.laboratory import Instance

__all__ = ["register", "run"]


def register(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("compare-solvers", help="let several solvers solve the same instances")
    parser.add_argument(
        "instances",
        metavar="INSTANCE",
        nargs="*",
        help="cost tables (.json, .csv), problems (.json, .npz), or knapsacks in their text format",
    )
    parser.add_argument(
        "--generate",
        metavar="SEED,MODELS,LAYERS,CHOICES[,TOPOLOGY[,pairs][,peaks]]",
        action="append",
        default=[],
        help="a made-up table, whose budget is 0.6 of the exact latency and half of the exact memory; with a topology "
        "(chain, skips, branches) a made-up problem, its layers perhaps from-to, or one for each of several seeds: "
        "0-4,10,70-80,12,skips,pairs,peaks",
    )
    add_budget(parser)
    parser.add_argument("--solvers", metavar="S,S", help="names of the solvers (default: all that are installed)")
    add_limits(parser, time_limit_s=10.0)
    parser.add_argument("--gap", type=float, default=0.0, metavar="SHARE", help="stop at this gap, such as 0.001")
    parser.add_argument(
        "--work", type=float, metavar="W", help="limit of work in each solver's own unit; others refuse it"
    )
    parser.add_argument("-o", "--output", metavar="CSV", help="where to write the comparison, one line a run")
    parser.add_argument("--profile", metavar="IMAGE", help="where to draw performance profiles over time")
    parser.add_argument("--quality", metavar="IMAGE", help="where to draw performance profiles over the objective")
    parser.add_argument(
        "--over-time",
        metavar="FILE",
        help="where to draw gaps over time (.svg, .png), or to write them (.csv); solvers that tell nothing while they "
        "solve are run again at parts of the time limit",
    )
    parser.add_argument("--save", metavar="FOLDER", help="where to keep solutions and problems for `blinkplan check`")
    parser.add_argument("--mps", metavar="FOLDER", help="where to write the problems as MPS files, for other solvers")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, show, and write; the status is 1 where an answer was found wrong."""
    from planner.compare import Comparison, contradictions
    from planner.laboratory import write_mps

    for path in (arguments.output, arguments.profile, arguments.quality, arguments.over_time):
        check_writable(path)
    tables, problems = _instances(arguments)
    if arguments.mps is not None:
        write_mps((make() for make in problems.values()), arguments.mps)
    done: list[Run] = []

    def tell(run: Run) -> None:
        done.append(run)
        objective = "" if run.objective is None else f" {run.objective:g}"
        gap = "" if run.gap is None else f", gap {100 * run.gap:.3g} %"
        say_aside(f"{run.instance} {run.solver}: {run.status}{objective}{gap}, {run.seconds:.2f} s")
        if arguments.output is not None:
            Comparison(runs=tuple(done)).write(arguments.output)

    comparison = _compared(arguments, tables, problems, tell)
    _draw(arguments, comparison)
    say(comparison)
    contrary = contradictions(comparison.runs)
    for sentence in contrary:
        say(f"broken: {sentence}")
    return 1 if contrary or any(run.checked is False for run in comparison.runs) else 0


def _instances(
    arguments: argparse.Namespace,
) -> tuple[dict[str, tuple[CostTable, Budget]], dict[str, Callable[[], Instance]]]:
    """Read and make up what is to be solved: tables with their budgets, and what gives problems."""
    from costmodels import CostTable
    from planner.compare import generate, relative_budget
    from planner.errors import InputError
    from planner.laboratory import generated, instance_of_table, read_instance

    tables: dict[str, tuple[CostTable, Budget]] = {}
    problems: dict[str, Callable[[], Instance]] = {}
    for path in arguments.instances:
        if _is_table(path):
            tables[_free(path, [*tables, *problems])] = (CostTable.read(path), budget(arguments))
        else:
            name = _free(path, [*tables, *problems])
            problems[name] = partial(_itself, replace(read_instance(path), name=name))
    for text in arguments.generate:
        if text.count(",") > 3:
            problems |= generated(text)
        else:
            table = generate(*_numbers(text))
            tables[f"generated-{text}"] = (table, relative_budget(table))
    if not tables and not problems:
        raise InputError("there are no instances to compare solvers on; expected files or --generate")
    integral = arguments.save or arguments.mps or arguments.over_time or arguments.gap or arguments.work
    if tables and integral:
        # All of these speak of one answer of one solver, where a plan may take several.
        made = {name: partial(instance_of_table, name, *of_table) for name, of_table in tables.items()}
        problems, tables = made | problems, {}
    return tables, problems


def _compared(
    arguments: argparse.Namespace,
    tables: dict[str, tuple[CostTable, Budget]],
    problems: dict[str, Callable[[], Instance]],
    tell: Any,
) -> Comparison:
    """Run tables, then problems."""
    from planner.compare import Comparison, compare_solvers
    from planner.errors import InputError
    from planner.laboratory import Laboratory, compare_problems
    from solvers import Limits

    names = None if arguments.solvers is None else [name.strip() for name in arguments.solvers.split(",")]
    runs: list[Run] = []
    if tables:
        runs += compare_solvers(
            {name: table for name, (table, _) in tables.items()},
            {name: allowed for name, (_, allowed) in tables.items()},
            names,
            time_limit_s=arguments.time_limit_s,
            seed=arguments.seed,
            workers=arguments.workers,
            tell=tell,
        ).runs
    if not problems:
        return Comparison(runs=tuple(runs))
    try:
        limits = Limits(
            time_s=arguments.time_limit_s,
            seed=arguments.seed,
            workers=arguments.workers,
            gap=arguments.gap,
            work=arguments.work,
        )
    except (ValueError, TypeError) as error:
        raise InputError(str(error)) from None
    save = None if arguments.save is None else Path(arguments.save)
    laboratory = Laboratory(limits=limits, curves=arguments.over_time is not None, save=save)
    found = compare_problems((make() for make in problems.values()), names, laboratory, tell=tell)
    return Comparison(runs=(*runs, *found.runs), curves=found.curves)


def _draw(arguments: argparse.Namespace, comparison: Comparison) -> None:
    """Write the pictures that are asked for."""
    from planner.curves import draw_curves, write_curves
    from planner.profiles import draw_profile

    if arguments.profile is not None:
        draw_profile(comparison.runs, arguments.profile, gap=arguments.gap)
    if arguments.quality is not None:
        draw_profile(comparison.runs, arguments.quality, "objective")
    if arguments.over_time is not None:
        drawn = Path(arguments.over_time).suffix.lower() != ".csv"
        (draw_curves if drawn else write_curves)(comparison.curves, arguments.over_time)


def _is_table(path: str) -> bool:
    """Tell tables from problems: both can be JSON, and say what they are."""
    from solvers.instances.files import FORM

    suffix = Path(path).suffix.lower()
    if suffix != ".json":
        return suffix == ".csv"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # The table's reader says what is wrong with the file.
    return not (isinstance(found, dict) and found.get("form") == FORM)


def _itself(instance: Instance) -> Instance:
    return instance


def _free(path: str, taken: Sequence[str]) -> str:
    """Name an instance after its file, or after the whole path where another file is called so."""
    name = Path(path).name
    return path if name in taken else name


def _numbers(text: str) -> tuple[int, int, int, int]:
    from planner.errors import InputError

    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise InputError(f"--generate is {text!r}; expected SEED,MODELS,LAYERS,CHOICES such as 0,1,50,8")
    seed, models, layers, choices = (int(part) for part in parts)
    return seed, models, layers, choices
