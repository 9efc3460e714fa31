"""The rates of one run as a picture: medians, and every round as a dot."""

from pathlib import Path

from benchmarks.peers.table import KIZUNA
from benchmarks.results import Numbers

_OURS, _THEIRS, _INK, _FAINT = "#2a7f62", "#9fb1bf", "#22303c", "#8a949c"


def draw(path: Path, told: Numbers) -> None:
    """Write a PNG of a run's numbers."""
    import matplotlib as mpl  # noqa: PLC0415 (slow to import, and wanted at the end only)

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    names = list(reversed(told["summary"]))
    with plt.rc_context({"font.size": 10.5, "text.color": _INK, "font.family": "sans-serif"}):
        figure, axes = plt.subplots(figsize=(11, 1.6 + 0.55 * len(names)), layout="constrained", dpi=130)
        try:
            medians = [told["summary"][name]["whole"]["median"] for name in names]
            axes.barh(
                names, medians, color=[_OURS if name == KIZUNA else _THEIRS for name in names], height=0.62
            )
            rounds = [[numbers["whole_per_second"] for numbers in told["rounds"][name]] for name in names]
            for row, rates in enumerate(rounds):
                axes.plot(rates, [row] * len(rates), "o", color=_INK, markersize=3.5, alpha=0.6)
                axes.annotate(
                    f"{medians[row]:,.0f}",
                    (max(rates), row),
                    xytext=(8, 0),
                    textcoords="offset points",
                    va="center",
                    color=_INK,
                )
            titles = [told["peers"][name]["title"] for name in names]
            guarantees = [told["peers"][name]["guarantees"] for name in names]
            axes.set_yticks(
                range(len(names)),
                [f"{title}\n({kept})" for title, kept in zip(titles, guarantees, strict=True)],
            )
            axes.set_title(f"{told['title']}: events/s", loc="left", fontsize=14, fontweight="bold")
            axes.set_xlim(0, max(map(max, rounds)) * 1.15)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, colors=_INK)
            axes.grid(axis="x", color=_FAINT, alpha=0.25)
            axes.set_axisbelow(True)
            figure.supxlabel(
                f"{told['events']:,} purchases, {told['customers']:,} customers; medians, a dot for each round",
                fontsize=9,
                color=_FAINT,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        finally:
            plt.close(figure)
