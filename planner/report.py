"""A plan as a page: what every layer takes, promised beside measured, and where the plan lies among all others."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from planner.domination import describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from costmodels import CostTable
    from planner.plan import Plan
    from planner.verify import Promise, Report
    from planner.whatif import Frontier

__all__ = ["page", "picture", "surroundings"]

_POINTS = 8
_MEMORY_SHARES = (1.0, 0.2, 0.05)
"""Of the way from the least memory of any plan to that of the exact builds."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .3rem .6rem; text-align: right; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
thead th { border-bottom: 2px solid #9aa5b1; } tbody tr:nth-child(odd) { background: #f4f6f8; }
td.bar { width: 9rem; } td.bar div { background: #2b6cb0; height: .7rem; border-radius: 2px; }
.kept { color: #22773a; font-weight: 600; } .broken { color: #b3261e; font-weight: 600; }
img { max-width: 100%; } footer { margin-top: 2rem; color: #5b6673; font-size: .85rem; }
"""


def surroundings(table: CostTable, plan: Plan) -> Frontier:
    """Plan around a plan: eight latency bounds from the least possible to the exact build's, three memory bounds.

    Args:
        table: The cost table of the plan.
        plan: A plan for one model or many; bounds of all models are scaled together.

    Returns:
        The frontier, bound by bound.
    """
    from planner.budget import Budget
    from planner.planning import plan as make_plan
    from planner.whatif import sweep

    fastest = make_plan(table, Budget(arena=plan.budget.arena), objective="latency")
    exact = {m.name: plan.exact_latency_ns.get(m.name, max(fastest.latency_ns[m.name], 1)) for m in table.models}
    bounds = []
    for step in range(_POINTS):
        share = step / (_POINTS - 1)
        bounds.append(
            {
                name: f"{(fastest.latency_ns[name] * 1.02 * (1 - share) + exact[name] * share) / 1e6:.6f}"
                for name in exact
            }
        )
    reference = sum(m.reference_bytes or 0 for m in table.models)
    least = make_plan(table, Budget(arena=plan.budget.arena), objective="memory").memory_bytes
    reference = max(reference, least)
    memories = [(least + (reference - least) * share) / 2**20 for share in _MEMORY_SHARES]
    return sweep(table, Budget(arena=plan.budget.arena), latency_ms=bounds, memory_mib=memories)


def picture(frontier: Frontier, plan: Plan, report: Report | None = None) -> Any:
    """Draw latency against loss, a line for each memory bound, with the plan and its measurement.

    Args:
        frontier: Plans around the plan, as :func:`surroundings` gives them.
        plan: The plan.
        report: Its measurement, drawn beside the prediction.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.4), layout="constrained")
    axes = figure.subplots()
    plans: dict[float | None, list[Plan]] = {}
    for found in frontier.plans:
        bound = None if found.budget.memory_bytes is None else found.budget.memory_bytes / 2**20
        plans.setdefault(bound, []).append(found)
    for (bound, members), shade in zip(plans.items(), ("#9ecae1", "#4292c6", "#08519c"), strict=False):
        members.sort(key=lambda p: sum(p.latency_ms.values()))
        label = "any memory" if bound is None else f"at most {bound:.2f} MiB"
        axes.plot(
            [1e3 * sum(p.latency_ms.values()) for p in members],
            [p.loss for p in members],
            marker="o",
            color=shade,
            label=label,
        )
    axes.plot(1e3 * sum(plan.latency_ms.values()), plan.loss, "*", ms=16, color="#b3261e", label="this plan, predicted")
    if report is not None:
        axes.errorbar(
            sum(n.p50_ns for n in report.networks) / 1e3,
            sum(n.loss for n in report.networks),
            yerr=sum(n.loss_std**2 for n in report.networks) ** 0.5,
            fmt="D",
            ms=8,
            capsize=4,
            color="#22773a",
            label="this plan, measured on test images",
        )
    exact = sum(plan.exact_latency_ns.values()) / 1e3
    if exact:
        axes.axvline(exact, color="#5b6673", ls=":", lw=1.2)
        axes.annotate(" exact build", (exact, axes.get_ylim()[1]), va="top", ha="right", rotation=90, fontsize=9)
    axes.set_xlabel("latency of all models, microseconds")
    axes.set_ylabel("loss: increase of the mean cross-entropy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def page(plan: Plan, frontier: Frontier, report: Report | None = None) -> str:
    """Write a plan as one HTML page that needs no other file.

    Args:
        plan: The plan.
        frontier: Plans around it, for the picture.
        report: Its measurement, if it was built.

    Returns:
        The page.
    """
    models = ", ".join(plan.latency_ns)
    parts = [
        f"<h1>{html.escape(models)}: a plan within {html.escape(_budget(plan))}</h1>",
        f"<p>Loss {plan.loss:.4g}, {plan.status} by {html.escape(plan.solver)}"
        + ("" if plan.gap is None else f", gap {100 * plan.gap:.3g} %")
        + ". The loss is the increase of the mean cross-entropy on validation images.</p>",
    ]
    if report is not None:
        parts += ["<h2>Promised and measured</h2>", _promises(report.promises), _accuracy(report)]
    parts += ["<h2>Layer by layer</h2>", _layers(plan), _dropped(plan)]
    parts += ["<h2>Latency, memory and accuracy</h2>", _image(picture(frontier, plan, report))]
    footer = f"blinkplan {plan.versions.get('blinkplan', '')}, cost table {plan.table_digest[:12]}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>blinkplan: {html.escape(models)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}<footer>{html.escape(footer)}</footer></body></html>\n"
    )


def _budget(plan: Plan) -> str:
    parts = [
        f"{bound / 1e6:g} ms for {name}"
        for name in plan.latency_ns
        if (bound := plan.budget.latency_ns(name)) is not None
    ]
    if plan.budget.memory_bytes is not None:
        parts.append(f"{plan.budget.memory_bytes / 2**20:.4g} MiB")
    return ", ".join(parts) or "no bounds"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{html.escape(text)}</td>' if kind else f"<td>{html.escape(text)}</td>"


def _layers(plan: Plan) -> str:
    longest = max(layer.latency_ns for layer in plan.layers) or 1
    rows = [
        (
            _cell(f"{layer.model}/{layer.layer}" if len(plan.latency_ns) > 1 else layer.layer),
            _cell(layer.choice),
            _cell(f"{layer.latency_ns / 1e3:.2f}"),
            f'<td class="bar"><div style="width:{100 * layer.latency_ns / longest:.0f}%"></div></td>',
            _cell(f"{layer.weight_bytes / 1024:.2f}"),
            _cell(f"{layer.activation_bytes / 1024:.1f}"),
            _cell(f"{layer.loss:.4f}"),
        )
        for layer in plan.layers
    ]
    return _table(("layer", "choice", "latency µs", "", "weights KiB", "alive KiB", "loss"), rows)


def _dropped(plan: Plan) -> str:
    """Say which choices were left out before planning; which by which, for who wants to know."""
    if not plan.dropped:
        return ""
    rows = [
        (
            _cell(", ".join(f"{item.model}/{layer}" if len(plan.latency_ns) > 1 else layer for layer in item.layers)),
            _cell(item.choice),
            _cell(item.by),
        )
        for item in plan.dropped
    ]
    table = _table(("layer", "left out", "beaten by"), rows)
    return f"<details><summary>Of all choices, {html.escape(describe(plan.dropped))}.</summary>{table}</details>"


def _promises(promises: Sequence[Promise]) -> str:
    rows = [
        (
            _cell(promise.what),
            _cell(_show(promise.bound, promise.unit)),
            _cell(_show(promise.predicted, promise.unit)),
            _cell(_show(promise.measured, promise.unit)),
            _cell("kept" if promise.kept else "broken", "kept" if promise.kept else "broken"),
        )
        for promise in promises
    ]
    return _table(("promise", "bound", "predicted", "measured", ""), rows)


def _show(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    return f"{value / 1e3:.1f} µs" if unit == "ns" else f"{value / 1024:.1f} KiB"


def _accuracy(report: Report) -> str:
    lines = [
        f"<p>{html.escape(n.name)}: top-1 {n.top1:.2f} % on {n.images} test images that no choice has seen, exact "
        f"{n.exact_top1:.2f} %: {n.top1_change:+.2f} ± {n.top1_change_std:.2f} points. "
        f"{n.control_p50_ns / n.p50_ns:.2f} times as fast as the exact build timed in the same rounds "
        f"({n.runs} runs; p99 {n.p99_ns / 1e3:.1f} µs). {html.escape(n.against_onnxruntime)} "
        f"{html.escape(n.against_expected)}</p>"
        for n in report.networks
    ]
    return "".join(lines)


def _image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    coded = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="loss over latency for several memory bounds" src="data:image/svg+xml;base64,{coded}">'
