"""What the demo shows while it runs, and the summary: lively in a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from cli.demo.replay import Kill, Standing
from cli.demo.story import Line, Story, day_of

_BAR = 36
_MARKS = {
    "upgrade": ("▲", "green"),
    "downgrade": ("▼", "red"),
    "contact": ("·", "dim"),
    "purchase": ("●", "cyan"),
}
#: What a verdict says where all is well, and where it is not.
_EQUAL = ("equal", "DIFFERENT")
#: Without a terminal: a line each time this many seconds have gone by.
_PLAIN_EVERY = 2.0
_PLAIN_WIDTH = 120


class Screen:
    """Where the demo tells what it does. With `quiet_stdout` all of it goes to stderr."""

    def __init__(self, quiet_stdout: bool = False) -> None:
        self.console = Console(stderr=quiet_stdout, highlight=False)
        if not self.console.is_terminal:
            self.console.width = _PLAIN_WIDTH

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        self.console.print(Text(text, style=style))

    def warn(self, text: str) -> None:
        """A line that must not be overlooked."""
        self.say(text, "bold red")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One step of the set-up or the checks, and how long it took."""
        started = time.monotonic()
        with self.console.status(f"{text} …") if self.console.is_terminal else _nothing():
            yield
        self.console.print(
            Text.assemble((" ✓ ", "green"), text, (f"  {time.monotonic() - started:.1f} s", "dim"))
        )

    @contextmanager
    def replaying(self, total: int) -> Iterator["Replaying"]:
        """The progress of the replay."""
        shown: Replaying = (
            _Bar(self.console, total) if self.console.is_terminal else _Lines(self.console, total)
        )
        with shown:
            yield shown

    def tiers(self, counts: Mapping[str, int], until: date) -> None:
        """Customers per tier, the highest first; `counts` from the lowest."""
        total, most = max(1, sum(counts.values())), max([*counts.values(), 1])
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column()
        table.add_column(justify="right")
        table.add_column(justify="right", style="dim")
        for tier, count in reversed(list(counts.items())):
            bar = "█" * round(_BAR * count / most)
            table.add_row(
                f"  {tier}", Text(f"{bar:<{_BAR}}", "cyan"), f"{count:,}", f"{100 * count / total:.0f} %"
            )
        self.heading(f"Customers per tier on {until:%-d %B %Y}")
        self.console.print(table)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A heading row and the rows below it; the first column to the left, numbers to the right."""
        table = Table.grid(padding=(0, 2))
        for column in range(len(rows[0])):
            table.add_column(justify="right" if column else "left", no_wrap=True)
        for number, (first, *rest) in enumerate(rows):
            table.add_row(f"  {first}", *rest, style="" if number else "dim")
        self.console.print(table)

    def story(self, story: Story) -> None:
        """One customer's year."""
        self.heading(f"One of them: customer {story.customer_id}")
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for line in story.lines:
            table.add_row(f"  {line.day:%-d %b %Y}", *_told(line))
        self.console.print(table)
        self.say(f"  {story.end}")

    def heading(self, text: str) -> None:
        """Begins a part of the summary."""
        self.console.print()
        self.say(text, "bold")

    def verdict(
        self, what: str, good: bool, detail: str, differences: Sequence[str], words: tuple[str, str] = _EQUAL
    ) -> None:
        """Whether it equals the batch computation, or other `words`, and what differs, the first few."""
        word = (words[0], "bold green") if good else (words[1], "bold red")
        self.console.print(Text.assemble(f"  {what}: ", word, f" ({detail})"))
        for difference in differences[:5]:
            self.say(f"    {difference}", "red")
        if len(differences) > 5:
            self.say(f"    … and {len(differences) - 5:,} more", "red")


def _told(line: Line) -> tuple[Text, Text]:
    mark, style = _MARKS[line.kind]
    return Text(mark, style), Text(line.text, "" if line.kind != "contact" else "dim")


class Replaying:
    """Shows the progress of a replay of `total` events."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.total = total
        self.started = time.monotonic()

    def __enter__(self) -> "Replaying":
        return self

    def __exit__(self, *_: object) -> None:
        """The replay is over."""

    def update(self, standing: Standing) -> None:
        """How far it is."""

    def kill(self, kill: Kill) -> None:
        """A worker was killed."""
        self.console.print(
            Text.assemble(
                (" ✗ ", "yellow"),
                f"kill -9 of worker {kill.pid} after {kill.committed:,} of {self.total:,} events, "
                f"{kill.unread:,} published ones unread; a new worker starts",
            )
        )


class _Lines(Replaying):
    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, total)
        self._told = self.started
        self._last = -1

    def update(self, standing: Standing) -> None:
        now = time.monotonic()
        ended = standing.committed >= self.total
        if standing.committed == self._last or (now - self._told < _PLAIN_EVERY and not ended):
            return
        self._told, self._last = now, standing.committed
        share = 100 * standing.committed // self.total
        rate = standing.committed / max(now - self.started, 0.001)
        done = f"{standing.committed:>9,} of {self.total:,}"
        self.console.print(Text(f"   {share:3d} %  {done}  {rate:>7,.0f} events/s{_reached(standing)}"))


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / max(task.elapsed or 0.001, 0.001):>7,.0f} events/s", "magenta")


class _Bar(Replaying):
    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, total)
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.completed:>9,.0f} of {task.total:,.0f}"),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[reached]}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=total, reached="")

    def __enter__(self) -> "Replaying":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, standing: Standing) -> None:
        self._progress.update(self._task, completed=standing.committed, reached=_reached(standing))


def _reached(standing: Standing) -> str:
    return "" if standing.newest is None else f"  {day_of(standing.newest):%-d %b %Y}"


@contextmanager
def _nothing() -> Iterator[None]:
    yield
