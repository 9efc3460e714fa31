"""Tier changes by month, and how many customers each tier had: one picture for people."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

_UP, _DOWN, INK, FAINT = "#2a7f62", "#c8553d", "#22303c", "#8a949c"
#: Tiers from the lowest: the further up, the warmer.
_TIERS = ("#d5dbe0", "#9fb1bf", "#e0b13c", "#b0702a", "#7d3f6b")


def draw(
    path: Path,
    title: str,
    note: str,
    tiers: Sequence[str],
    changes: Iterable[Mapping[str, Any]],
    joined: Mapping[str, date],
    until: date,
) -> None:
    """Write a PNG.

    `changes` are bodies of tier changes, `joined` is the day of each customer's first purchase, `until` the
    last day. `note` explains what would otherwise puzzle.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(h_pad=0.18, w_pad=0.12)
    told = sorted(changes, key=lambda change: change["effective_at"])
    with plt.rc_context(
        {"font.size": 10.5, "text.color": INK, "axes.labelcolor": INK, "font.family": "sans-serif"}
    ):
        figure, (bars, areas) = plt.subplots(
            2, 1, figsize=(11, 9), height_ratios=(1, 1), layout=engine, dpi=130
        )
        try:
            figure.suptitle(title, x=0.02, ha="left", fontsize=17, fontweight="bold")
            _draw_changes(bars, told, note, until)
            _draw_members(areas, tiers, told, joined, until)
            for axes in (bars, areas):
                axes.spines[:].set_visible(False)
                axes.tick_params(length=0, colors=INK)
                axes.set_axisbelow(True)
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        finally:
            plt.close(figure)


def by_month(changes: Iterable[Mapping[str, Any]], until: date) -> dict[tuple[int, int], Counter[str]]:
    """How many `upgrade` and `downgrade` in each (year, month), months without any included.

    A last month of a day or two is told with the one before.
    """
    found: dict[tuple[int, int], Counter[str]] = {}
    for change in changes:
        day = _day(change)
        if until.day <= 2 and (day.year, day.month) == (until.year, until.month):
            day = until - timedelta(days=until.day)
        found.setdefault((day.year, day.month), Counter())[change["direction"]] += 1
    if not found:
        return {}
    month, last = min(found), max(found)
    counted = {}
    while month <= last:
        counted[month] = found.get(month, Counter())
        month = (month[0] + month[1] // 12, month[1] % 12 + 1)
    return counted


def _draw_changes(axes: Any, changes: Sequence[Mapping[str, Any]], note: str, until: date) -> None:
    months = by_month(changes, until)
    places = range(len(months))
    ups = [counted["upgrade"] for counted in months.values()]
    downs = [counted["downgrade"] for counted in months.values()]
    rising = axes.bar(places, ups, width=0.72, color=_UP)
    falling = axes.bar(places, [-count for count in downs], width=0.72, color=_DOWN)
    axes.bar_label(rising, [f"{n:,}" if n else "" for n in ups], padding=3, color=_UP, fontweight="bold")
    axes.bar_label(falling, [f"{n:,}" if n else "" for n in downs], padding=3, color=_DOWN, fontweight="bold")
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_title(
        f"Moves between tiers, by month: {sum(ups):,} up, {sum(downs):,} down",
        loc="left",
        fontsize=13,
        pad=26,
    )
    labels = [month_label(date(*month, 1), i == 0 or month[1] == 1) for i, month in enumerate(months)]
    axes.set_xticks(places, labels)
    axes.annotate(
        note,
        (0, 1),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        color=FAINT,
        va="bottom",
    )
    axes.set_yticks([])
    tallest = max([*ups, *downs, 1])
    axes.set_ylim(-(max([*downs, 0]) + 0.16 * tallest), max(ups, default=0) + 0.16 * tallest)
    handles = [(rising, "moved up"), (falling, "moved down")]
    axes.legend(*zip(*handles, strict=True), loc="upper right", frameon=False, ncols=2, borderaxespad=0.2)


def _draw_members(
    axes: Any,
    tiers: Sequence[str],
    changes: Sequence[Mapping[str, Any]],
    joined: Mapping[str, date],
    until: date,
) -> None:
    days, counts = members_by_day(tiers, changes, joined, until)
    colours = [_TIERS[min(i, len(_TIERS) - 1)] for i in range(len(tiers))]
    axes.stackplot(days, *counts, colors=colours, edgecolor="white", linewidth=0.6)
    below = 0
    for tier, series in zip(tiers, counts, strict=True):
        if series[-1]:
            axes.annotate(
                f"{tier}\n{series[-1]:,}",
                (days[-1], below + series[-1] / 2),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontweight="bold",
                linespacing=1.25,
            )
        below += series[-1]
    axes.set_title(
        f"Customers in each tier, since their first purchase: {below:,} by {until:%-d %B %Y}",
        loc="left",
        fontsize=13,
        pad=14,
    )
    axes.set_xlim(days[0], days[-1])
    axes.set_ylim(0)
    firsts = [day for day in days if day.day == 1]
    axes.set_xticks(firsts, [month_label(day, day.month == 1) for day in firsts])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="y", color="white", linewidth=0.8, alpha=0.6)
    axes.set_axisbelow(False)


def members_by_day(
    tiers: Sequence[str], changes: Sequence[Mapping[str, Any]], joined: Mapping[str, date], until: date
) -> tuple[list[date], list[list[int]]]:
    """The days, and for each tier how many customers were in it at the end of each day.

    `changes` are in order of time. A customer counts from the day of the first purchase on, or from the first change
    where that comes from None.
    """
    moves: dict[date, Counter[str]] = {}
    for day in joined.values():
        moves.setdefault(day, Counter())[tiers[0]] += 1
    for change in changes:
        moved = moves.setdefault(_day(change), Counter())
        moved[change["tier"]] += 1
        moved[change["previous_tier"]] -= 1
    first = min(moves, default=until)
    days = [first + timedelta(days=n) for n in range((until - first).days + 1)]
    held: Counter[str] = Counter()
    counts: list[list[int]] = [[] for _ in tiers]
    for day in days:
        held.update(moves.get(day, {}))
        for tier, series in zip(tiers, counts, strict=True):
            series.append(held[tier])
    return days, counts


def month_label(day: date, with_year: bool) -> str:
    """A month under an axis."""
    # A second line for all: they stand at one height.
    return f"{day:%b}\n{day:%Y}" if with_year else f"{day:%b}\n "


def _day(change: Mapping[str, Any]) -> date:
    return datetime.fromisoformat(change["effective_at"]).astimezone(UTC).date()
