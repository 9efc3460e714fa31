"""Progress on standard error, where that is a terminal; elsewhere nothing is shown, nor rich loaded."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Takes how many are done, and how far that is of the total.
Advance = Callable[[int, int], None]

_EVERY_SECONDS = 0.1


@contextmanager
def progress(doing: str, things: str, total: int | None = None) -> Iterator[Advance]:
    """Shows `doing`, how many `things` are done and how many a second; a bar where the total is known."""
    if not sys.stderr.isatty():
        yield lambda done, at: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = [BarColumn(), TextColumn("{task.percentage:>3.0f} %")] if total else [SpinnerColumn()]
    columns = [TextColumn("{task.description}"), *bar, TextColumn("{task.fields[told]}"), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as view:
        task = view.add_task(doing, total=total, told="")
        started = shown = time.monotonic()

        def advance(done: int, at: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= _EVERY_SECONDS:
                shown = now
                told = f"{done:,} {things}, {done / (now - started):,.0f}/s"
                view.update(task, completed=at, told=told)

        yield advance


#: Takes what is done now, how much of it, and of how much in all, if that is known.
Step = Callable[[str, int, int | None], None]


@contextmanager
def steps() -> Iterator[Step]:
    """Shows one thing after another as it is done, each with a line of its own."""
    if not sys.stderr.isatty():
        yield lambda doing, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    ]
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as view:

        def show(doing: str, done: int, total: int | None) -> None:
            if doing not in tasks:
                tasks[doing] = view.add_task(doing, total=total)
            view.update(tasks[doing], completed=done, total=total)

        yield show
