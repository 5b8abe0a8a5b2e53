"""Console and SCMI trace side by side: two panes on a terminal, lines with a prefix anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from services.linux_guest import ftrace
from services.linux_guest.trace_ladder import PLATFORM, text

#: Lines that a pane keeps; no terminal shows more.
KEPT: Final = 400
#: Times a second that the panes are drawn.
RATE: Final = 8
#: Source of a line → the pane that it goes to.
_PANES: Final = {"console": "console", "qemu": "console", "scmi": "scmi", "log": "scmi"}
_TITLES: Final = {"console": "the guest's console", "scmi": "SCMI, as the platform sees it"}
#: Rows that a pane's frame and the status line take.
_FRAME: Final = 3


class Plain:
    """Every line as ``source| line``, in the order in which they come."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write: Final = write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, source: str, line: str) -> None:
        self._write(f"{source:>7}| {line}")

    def status(self, line: str) -> None:
        self._write(line)


class Panes:
    """Two panes that scroll, and a line of status below. What was shown last stays on the screen at the end."""

    def __init__(self, console: Console) -> None:
        self._console: Final = console
        self._lines: Final[dict[str, deque[str]]] = {name: deque(maxlen=KEPT) for name in _TITLES}
        self._status = ""
        self._live: Final = Live(
            get_renderable=self._render, console=console, refresh_per_second=RATE, screen=False, transient=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, source: str, line: str) -> None:
        pane = _PANES[source]
        self._lines[pane].append(_short(line) if source == "scmi" else line)

    def status(self, line: str) -> None:
        self._status = line

    def _render(self) -> RenderableType:
        rows = max(3, self._console.height - _FRAME)
        layout = Layout()
        panes = []
        for name, title in _TITLES.items():
            tail = list(self._lines[name])[-rows:]
            body = Text("\n".join(tail), no_wrap=True, overflow="ellipsis")
            panes.append(Layout(Panel(body, title=title, padding=(0, 1)), name=name))
        status = Layout(Columns([Text(self._status, style="bold", no_wrap=True)]), name="status", size=1)
        top = Layout(name="panes")
        top.split_row(*panes)
        layout.split_column(top, status)
        return layout


def _short(line: str) -> str:
    """A line of a trace as a row of a ladder: a pane is narrow."""
    events = ftrace.parse(line).events
    return text(events[0], PLATFORM, 0.0) if events else line


def source_of(text: str, source: str) -> str:
    """The lines of ``source`` in what :class:`Plain` wrote, "" where there are none of it."""
    prefix = f"{source:>7}| "
    return "\n".join(line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix))
