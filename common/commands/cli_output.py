"""Print a command's result: plain text for people, one JSON object for programs.

In JSON mode standard output holds exactly one JSON object; everything else is silent, so that
`tumorboard ... --json | jq` always works. Progress goes to standard error.
"""

import json
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

RECENT = 20
"""Number of last items that determine the pace."""

STANDS_OUT = 3.0
"""An item that took this many times as long as the next slowest, or the wait since, is ignored."""


class Output:
    """Human or JSON output of one command.

    Args:
        json_mode: Print one JSON object and nothing else on standard output.
        stdout: Where text and results go; standard output by default.
        stderr: Where progress goes; standard error by default.

    Example:
        >>> Output(json_mode=True).result({"sites": 3})
        {"sites": 3}
    """

    def __init__(
        self, json_mode: bool = False, *, stdout: TextIO | None = None, stderr: TextIO | None = None
    ) -> None:
        self.json_mode = json_mode
        self._stdout = stdout
        self._stderr = stderr

    def say(self, text: str) -> None:
        """Write one line for people; silent in JSON mode."""
        if not self.json_mode:
            self._write(f"{text}\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write an aligned table; numbers to the right, None as a dash; silent in JSON mode."""
        if self.json_mode:
            return
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [
            max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)
        ]
        numeric = [
            bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))
        ]
        lines = [title] if title else []
        lines.append(_line(columns, widths, numeric))
        lines.append("  ".join("-" * width for width in widths))
        lines += [_line(row, widths, numeric) for row in cells]
        self._write("\n".join(lines) + "\n")

    @contextmanager
    def progress(self, total: int, label: str) -> "Iterator[Progress]":
        """Yield a counter towards `total` that shows what is done and the time left."""
        stream = None if self.json_mode else (self._stderr or sys.stderr)
        counter = Progress(total, label, stream)
        counter.show(force=True)
        try:
            yield counter
        finally:
            counter.close()

    def result(self, mapping: Mapping[str, object]) -> None:
        """Print the result as one JSON object in JSON mode; silent otherwise.

        Raises:
            ValueError: A number is NaN or infinite; report None with a reason instead.
        """
        if self.json_mode:
            text = json.dumps(dict(mapping), allow_nan=False, default=str, ensure_ascii=False)
            self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        stream = self._stdout or sys.stdout
        stream.write(text)
        stream.flush()


class Progress:
    """A counter with the time left, at most four updates per second on a terminal.

    Away from a terminal (a log file) it writes one line every ten seconds at most, and one at
    the end, instead of rewriting a line.
    """

    def __init__(self, total: int, label: str, stream: TextIO | None) -> None:
        self.total, self.label, self.done = total, label, 0
        self._stream = stream
        self._live = bool(stream is not None and stream.isatty())
        self._started = self._last = time.monotonic()
        self._steps: deque[float] = deque(maxlen=RECENT)
        self._shown = float("-inf")
        self._note = ""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more items done; `note` is shown beside them."""
        now = time.monotonic()
        self._steps.extend([(now - self._last) / max(n, 1)] * min(n, RECENT))
        self.skip(n, note)

    def skip(self, n: int, note: str = "") -> None:
        """Count `n` items that were done before; they say nothing about the pace."""
        self.done += n
        self._note = note
        self._last = time.monotonic()
        self.show(force=self.done >= self.total)

    def eta_s(self) -> float | None:
        """Return the seconds left at the recent pace, or None before the first item."""
        pace, left = self._pace(), max(self.total - self.done, 0)
        if pace is None:
            return None
        waiting = time.monotonic() - self._last
        return max(pace * left - min(waiting, pace), 0.0)

    def _pace(self) -> float | None:
        """Return seconds per item: the mean of the last ones, without one that stands out.

        A first round that loads everything counts until the second alone. A median would do that
        too, but where several workers finish together it is 0.
        """
        if not self._steps:
            return None
        *others, slowest = sorted(self._steps)
        usual = max([*others[-1:], time.monotonic() - self._last])
        if others and slowest > STANDS_OUT * usual:
            return sum(others) / len(others)
        return sum(self._steps) / len(self._steps)

    def show(self, *, force: bool = False) -> None:
        """Write the line if it is due."""
        now = time.monotonic()
        if self._stream is None or (not force and now - self._shown < (0.25 if self._live else 10)):
            return
        self._shown = now
        start, end = ("\r\x1b[K", "") if self._live else ("", "\n")
        self._stream.write(f"{start}{self._text()}{end}")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._stream is None:
            return
        if self._live:
            self.show(force=True)
            self._stream.write("\n")
            self._stream.flush()
        elif self.done < self.total:
            self.show(force=True)

    def _text(self) -> str:
        left = self.eta_s()
        is_complete = self.done >= self.total
        seconds = time.monotonic() - self._started
        timing = f"in {clock(seconds)}" if is_complete else f"{clock(left)} left" if left else ""
        parts = [f"{self.label}: {self.done}/{self.total}", timing, self._note]
        return ", ".join(part for part in parts if part)


def clock(seconds: float) -> str:
    """Return a duration as people read it.

    Example:
        >>> clock(8), clock(75), clock(3720)
        ('8 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    ]
    return "  ".join(padded).rstrip()
