"""Who is loyal and who only spends: customers by value and attachment, and how segments moved over the year."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from math import log2
from pathlib import Path
from random import Random
from typing import Any

from cli.demo.bonds import SegmentRow, shown_order
from cli.demo.picture import FAINT, INK, members_by_day, month_label
from schemas.program_bonds import Bonds, Segment

#: The usual names have colours of their own; others take what is left.
_COLOURS = {
    "loyal": "#7d3f6b",
    "spender": "#e0b13c",
    "fan": "#2a7f62",
    "regular": "#9fb1bf",
    "first_time": "#4f86b5",
    "lapsing": "#d9704f",
    "dormant": "#c9cfd4",
}
_OTHERS = ("#5a6b7b", "#b0702a", "#88a05a", "#6f6fb0", "#b06f9a", "#3f8f8f")


def draw(
    path: Path,
    title: str,
    note: str,
    bonds: Bonds,
    rows: Sequence[SegmentRow],
    states: Iterable[Mapping[str, Any]],
    changes: Iterable[Mapping[str, Any]],
    since: date,
    until: date,
) -> None:
    """Write a PNG.

    `states` are `state dump` lines, `changes` bodies of segment changes, `since` and `until` the first and the last
    day to show. `note` says what the map says.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    colours = _colours(bonds)
    with plt.rc_context(
        {"font.size": 10.5, "text.color": INK, "axes.labelcolor": INK, "font.family": "sans-serif"}
    ):
        figure, (places, areas) = plt.subplots(
            *(2, 1),
            figsize=(11, 12),
            height_ratios=(1.35, 1),
            layout=ConstrainedLayoutEngine(h_pad=0.2, w_pad=0.12),
            dpi=130,
        )
        try:
            figure.suptitle(title, x=0.02, ha="left", fontsize=17, fontweight="bold")
            _draw_map(places, note, bonds, rows, list(states), colours)
            _draw_movement(areas, bonds, changes, colours, since, until)
            for axes in (places, areas):
                axes.spines[:].set_visible(False)
                axes.tick_params(length=0, colors=INK)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        finally:
            plt.close(figure)


def height(attachment: float) -> float:
    """Where an attachment stands on the map: each doubling is a step, so that the few far ahead do not press all
    others flat."""
    return log2(1 + max(0.0, attachment) / 3)


def _draw_map(
    axes: Any,
    note: str,
    bonds: Bonds,
    rows: Sequence[SegmentRow],
    states: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
) -> None:
    top = max([height(state["attachment"]) for state in states] + [height(30)]) + 0.7
    value, attachment = _thresholds(bonds)
    if value:
        axes.axvline(value - 0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.6)
    if attachment:
        axes.axhline(height(attachment) - 0.12, color=INK, linewidth=0.8, linestyle=(0, (4, 4)), alpha=0.6)
    for row in rows:
        shown = [state for state in states if state["segment"] == row.name]
        points = [_place(state) for state in shown]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=13,
            color=colours[row.name],
            alpha=0.75,
            linewidths=0,
            label=f"{row.name} {row.customers:,}",
        )
    for name, x, y, across, up in _corners(bonds, value, top):
        axes.text(
            *(x, y, name),
            color=colours[name],
            fontsize=19,
            fontweight="bold",
            ha=across,
            va=up,
            path_effects=_halo(),
            zorder=5,
        )
    axes.set_title(f"Each customer by value and attachment: {len(states):,}", loc="left", fontsize=13, pad=26)
    axes.annotate(
        *(note, (0, 1)),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        color=FAINT,
        va="bottom",
    )
    axes.set_xlim(-0.6, 10.6)
    axes.set_ylim(-0.45, top)
    axes.set_xticks(range(11))
    axes.set_xlabel("value: how often and how much they buy (scores of frequency and money, added)")
    ticks = [tick for tick in (0, 5, 10, 20, 40, 80, 160, 320) if height(tick) < top]
    axes.set_yticks([height(tick) for tick in ticks], [str(tick) for tick in ticks])
    axes.set_ylabel("attachment: what they do beside buying, in points")
    axes.legend(
        loc="upper left",
        frameon=False,
        markerscale=2,
        handletextpad=0.2,
        labelspacing=0.35,
        borderaxespad=0.3,
    )


def _draw_movement(
    axes: Any,
    bonds: Bonds,
    changes: Iterable[Mapping[str, Any]],
    colours: Mapping[str, str],
    since: date,
    until: date,
) -> None:
    names = shown_order(bonds)
    moves = [
        {
            "tier": change["segment"],
            "previous_tier": change["previous_segment"],
            "effective_at": change["effective_at"],
        }
        for change in sorted(changes, key=lambda change: change["effective_at"])
    ]
    days, counts = members_by_day(names, moves, {}, until)
    hidden = sum(day < since for day in days)
    days, counts = days[hidden:], [series[hidden:] for series in counts]
    axes.stackplot(days, *counts, colors=[colours[name] for name in names], edgecolor="white", linewidth=0.6)
    below, total = 0, sum(series[-1] for series in counts)
    for name, series in zip(names, counts, strict=True):
        if series[-1] > total / 60:
            axes.annotate(
                f"{name} {series[-1]:,}",
                (days[-1], below + series[-1] / 2),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold",
            )
        below += series[-1]
    axes.set_title(f"Customers in each segment, until {until:%-d %B %Y}", loc="left", fontsize=13, pad=14)
    axes.set_xlim(days[0], days[-1])
    axes.set_ylim(0)
    firsts = [day for day in days if day.day == 1]
    axes.set_xticks(firsts, [month_label(day, day.month == 1) for day in firsts])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="white", linewidth=0.8, alpha=0.6)
    axes.set_axisbelow(False)


def _place(state: Mapping[str, Any]) -> tuple[float, float]:
    """Where a customer stands: values are whole numbers, so each is moved a little, always in the same way."""
    chance = Random(state["customer_id"])
    value = state["f"] + state["m"] if state["frequency"] else 0
    x = value + chance.uniform(-0.38, 0.38)
    return x, height(state["attachment"]) + chance.uniform(-0.1, 0.1) - (
        chance.uniform(0, 0.25) if not state["attachment"] else 0
    )


def _thresholds(bonds: Bonds) -> tuple[int, int]:
    """From where value and attachment are high: where most of the segments draw the line, 0 where none does."""
    values = [segment.min_value for segment in bonds.segments if segment.min_value]
    attachments = [segment.min_attachment for segment in bonds.segments if segment.min_attachment]
    return (
        max(values, key=values.count, default=0),
        max(attachments, key=attachments.count, default=0),
    )


def _corners(bonds: Bonds, value: int, top: float) -> list[tuple[str, float, float, str, str]]:
    """The segments that only both axes decide, each named in its own corner of the map."""
    found = []
    for segment in bonds.segments:
        axes_only = Segment(segment.name, min_value=segment.min_value, min_attachment=segment.min_attachment)
        if segment != axes_only or not (segment.min_value or segment.min_attachment):
            continue
        right = bool(segment.min_value)
        x = 10.5 if right else max(0.0, value - 0.7)
        if segment.min_attachment:
            found.append((segment.name, x, top - 0.15, "right", "top"))
        else:
            found.append((segment.name, x, height(_thresholds(bonds)[1]) * 0.4, "right", "center"))
    return found


def _halo() -> list[Any]:
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=4, foreground="white")]


def _colours(bonds: Bonds) -> dict[str, str]:
    left = iter(_OTHERS * (1 + len(bonds.segments)))
    return {segment.name: _COLOURS.get(segment.name) or next(left) for segment in bonds.segments}
