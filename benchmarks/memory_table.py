"""What came of `make bench ARGS=memory`: bytes by customer, and whether they keep within what is asked of them."""

from rich.console import Console
from rich.table import Table

from benchmarks.holdings import KINDS
from benchmarks.results import Numbers, machine_line

#: Bytes in Redis by byte of what was put there, with the names of keys; and of ten times the history by those of one.
TARGET = 1.5
TARGET_HISTORY = 1.05
#: A worker with so many times the customers that its cache takes may have so many times the memory.
TARGET_WORKER = 1.1

#: The fewest bytes that a cached customer can take: less is noise.
_LEAST = 1_000


def show(told: Numbers, console: Console) -> None:
    """Print the tables and the verdicts."""
    if "sizes" in told:
        _show_sizes(told["sizes"], console)
    if "history" in told:
        _show_history(told["history"], console)
    if "worker" in told:
        _show_worker(told["worker"], console)
    console.print(machine_line(told["machine"]))
    console.print(f"Redis: {told['redis']}", markup=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right" if column != columns[0] else "left", no_wrap=True)
    return table


def _verdict(value: float, target: float) -> str:
    return f"{'reached' if value <= target else '[red]missed[/red]'} ({value:.3f} of at most {target:g})"


def _show_sizes(sizes: Numbers, console: Console) -> None:
    table = _table("bytes in Redis by customer", "", *(f"{size} orders" for size in sizes))
    rows: list[tuple[str, list[str]]] = [
        ("customers", [f"{one['customers']:,}" for one in sizes.values()]),
        ("used", [f"{one['used']:,.0f}" for one in sizes.values()]),
    ]
    for kind, words in KINDS.items():
        rows += [
            (f"  {words}: bytes", [f"{one['kinds'][kind]['content']:,.0f}" for one in sizes.values()]),
            ("    names of keys", [f"{one['kinds'][kind]['names']:,.0f}" for one in sizes.values()]),
            ("    takes", [f"{one['kinds'][kind]['memory']:,.0f}" for one in sizes.values()]),
        ]
    rows += [
        ("  table of keys, and all else", [f"{one['beside_keys']:,.0f}" for one in sizes.values()]),
        ("used / all bytes and names", [f"{one['ratio_content']:.2f}" for one in sizes.values()]),
        ("used / packed bytes and names", [f"{one['ratio_packed_and_names']:.2f}" for one in sizes.values()]),
        ("used / packed bytes", [f"{one['ratio_packed']:.2f}" for one in sizes.values()]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    console.print(table)
    bases = {
        "ratio_content": "by all bytes that were put there, with names of keys and fields",
        "ratio_packed_and_names": "strictly, by packed bytes and names of keys, the readable hash's bytes not counted",
    }
    for ratio, words in bases.items():
        console.print(f"{words}: {_verdict(max(one[ratio] for one in sizes.values()), TARGET)}")


def _show_history(history: Numbers, console: Console) -> None:
    table = _table(
        f"bytes in Redis by customer, window {history['window_days']} and ledger {history['ledger_days']} days",
        *("history", "customers", "events", "used", "all bytes and names"),
    )
    for one in history["runs"].values():
        table.add_row(
            f"{one['days']} days",
            f"{one['customers']:,}",
            f"{one['worker']['events']:,}",
            f"{one['used']:,.0f}",
            f"{one['content']:,.0f}",
        )
    console.print(table)
    console.print(f"ten times the history: {_verdict(history['ratio'], TARGET_HISTORY)}")


def _show_worker(worker: Numbers, console: Console) -> None:
    table = _table(
        f"memory of a worker, {worker['orders']} orders a customer",
        *("cache", "customers", "MB at the end", "MB at most", "events/s"),
    )
    for one in worker["runs"].values():
        table.add_row(
            f"{one['limit']:,}",
            f"{one['customers']:,}",
            f"{one['rss'] / 1e6:,.0f}",
            f"{one['peak'] / 1e6:,.0f}",
            f"{one['whole_per_second']:,.0f}",
        )
    console.print(table)
    if worker["bytes_by_cached_customer"] < _LEAST:
        # What batches take on their way differs by more than that.
        console.print("[red]bytes by customer in the cache: not measured, take a larger --cache[/red]")
    else:
        console.print(
            f"{worker['bytes_by_cached_customer']:,.0f} bytes by customer in the cache, "
            f"{worker['bytes_without_cache'] / 1e6:,.0f} MB without any"
        )
    console.print(f"twice the customers, the same cache: {_verdict(worker['ratio'], TARGET_WORKER)}")
