"""The tables of docs/catalogue.md: what choices reach where they are put everywhere at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from catalogue_rows import Row
from performance import table

from costmodels import write_aside
from planner.choices import modules, offers
from planner.graph import LayerGraph

HEAD = ("choice", "layers", "time", "quartiles", "weight bytes", "top-1, points", "±", "loss")


ORDER = ("structure", "mask", "storage", "arithmetic", "schedule")
_PAPER = re.compile(r"\*([^*]+?)\*\s*\(([^)]*\d{4})\)|\*([^*]+?)\*, (\d{4})")


def choices(networks: Iterable[LayerGraph]) -> list[str]:
    """Write what there is to choose from, as the approximations' own files tell it.

    Args:
        networks: The networks whose layers are counted.

    Returns:
        A table of one line an approximation: its choices, those on request in brackets, what it does, where that
        comes from, and how many layers of each network take it; then why others do not.
    """
    graphs = {graph.name: offers(graph) for graph in networks}
    found = sorted(modules().items(), key=lambda item: (ORDER.index(item[1].KIND), item[0]))
    rows, reasons = [], []
    for name, module in found:
        text = " ".join((module.__doc__ or "").split())
        asked = getattr(module, "ON_REQUEST", ())
        shown = [f"(`{c}`)" if asked is True or (asked and c in asked) else f"`{c}`" for c in module.CHOICES]
        papers = dict.fromkeys(f"*{m[0] or m[2]}* ({m[1] or m[3]})" for m in _PAPER.findall(text))
        taken = [f"{sum(bool(offer[name].choices) for offer in layers.values())}" for layers in graphs.values()]
        rows.append([", ".join(shown), module.KIND, _first_sentence(text), "; ".join(papers) or "-", *taken])
        refused = Counter(
            _general(offer[name].reason)
            for layers in graphs.values()
            for offer in layers.values()
            if offer[name].reason and not re.search(r" (has|is) no ", offer[name].reason)
        )
        if refused:
            said = "; ".join(f"{reason} ({count})" for reason, count in refused.most_common(_MOST_REASONS))
            reasons.append(f"- `{name}`: {said}")
    lines = table(["choices", "kind", "what it does", "from", *graphs], rows)
    lines[1] = f"|{'---|' * 4}{'---:|' * len(graphs)}"
    return [*lines, "", "Layers that take no part, and why:", "", *reasons]


_MOST_REASONS = 4


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.]) (?=[A-Z])", text)[0].replace("|", "or")


def _general(reason: str) -> str:
    """Leave out of a reason the sizes of the one layer that it was given for, so that alike ones are counted."""
    return re.sub(r"\d+(?:,\d{3})*", "N", reason)


def between(text: str, mark: str, lines: Iterable[str]) -> str:
    """Put lines between two marks, ``<!-- MARK -->`` and ``<!-- end of MARK -->``.

    Args:
        text: A page.
        mark: What the marks say.
        lines: What is to stand between them.

    Returns:
        The page with them, the rest of it unchanged.

    Raises:
        SystemExit: The page lacks a mark.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"expected one {begin} and behind it one {end}")
    before, rest = text.split(begin)
    return "\n".join([before + begin, "", *lines, "", end + rest.split(end)[1]])


def _cells(row: Row) -> list[str]:
    timing = row.timing
    return [
        f"`{row.choice}`" if not row.reference else row.choice,
        "" if row.reference else str(row.layers),
        f"{timing.ratio:.2f}" if timing else "-",
        f"{timing.quartiles[0]:.2f} to {timing.quartiles[1]:.2f}" if timing else "-",
        f"{row.bytes_ratio:.3f}",
        f"{row.top1_change:+.2f}",
        f"{row.top1_change_std:.2f}",
        f"{row.loss:+.4f}",
    ]


def _order(row: Row) -> tuple[bool, int, str]:
    """Exact first, single choices before compositions, references last."""
    parts = row.choice.split("+")
    return row.reference, -1 if row.choice == "exact" else len(parts), row.choice


def lines(rows: Sequence[Row]) -> list[str]:
    """Write a table for each network."""
    found = []
    for network in dict.fromkeys(row.network for row in rows):
        mine = sorted((row for row in rows if row.network == network), key=_order)
        exact = next(row for row in mine if row.choice == "exact")
        timed = next((row.timing for row in mine if row.timing and not row.reference), None)
        took = f", {1e3 * timed.exact_ms:.1f} µs" if timed else ""
        found += [
            f"### {network}",
            "",
            f"Exact: {exact.top1:.2f} % of {exact.images} test images, {exact.weight_bytes:,} bytes of weights{took}.",
            "",
            *table(HEAD, map(_cells, mine)),
            "",
        ]
    machines = dict.fromkeys(row.timing.machine for row in rows if row.timing)
    states = sorted({row.state for row in rows})
    found += [
        *(f"Timed on {machine}, one thread." for machine in machines),
        f"Sources: {', '.join(states)} (digest of `planner` and `costmodels`; `benchmarks/catalogue_rows.py`).",
    ]
    return found


def write_tables(page: Path, rows: Sequence[Row], networks: Iterable[LayerGraph]) -> None:
    """Write what there is to choose from, and what was measured of it, between the marks of a page."""
    text = between(page.read_text(encoding="utf-8"), "choices", choices(networks))
    write_aside(page, between(text, "measured", lines(rows)))
