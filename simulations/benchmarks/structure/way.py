"""Follow an object through a run: every function that is called with it, or returns it.

A module is on the way when one of its functions is called with the object, or returns it; a
record that holds the object (a dataclass, a contract, a list, a mapping) counts as the object.
Modules stand in the order in which they are first entered. A call from one of them to a module
that was entered earlier than the caller is a turn back. Returning a value to one's caller is none,
and neither is a method of the object itself, or of a record that holds it: it goes where the
object goes. A method counts for the class of the object it is called on, wherever it is inherited
from. Local functions and comprehensions count for their module.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np
from pydantic import BaseModel

PACKAGES = frozenset({"common", "client", "server"})
DEPTH = 4
"""How deep an object is looked for in records of records."""

_VARIADIC = (0x04, 0x08)


@dataclass(frozen=True)
class Way:
    """The way of an object.

    Attributes:
        modules: Dotted names, in the order in which the way first enters them.
        turns: (caller, callee) of every call against that order, each once, sorted.
    """

    modules: list[str]
    turns: list[tuple[str, str]]


@dataclass(eq=False)
class Entry:
    """One call of a function.

    Attributes:
        module: Whose function it is.
        name: Its name.
        code: Its code.
        caller: The call it was made from, by the next function of these packages.
        values: Arguments, and at the end what it returned.
    """

    module: str
    name: str
    code: CodeType
    caller: "Entry | None"
    values: list[object]


@dataclass
class Trace:
    """Records the calls of a `with` block, in the order in which they begin."""

    entries: list[Entry] = field(default_factory=list)
    _stack: list[tuple[FrameType, Entry]] = field(default_factory=list)

    def __enter__(self) -> "Trace":
        """Begin to record."""
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        """End to record."""
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, value: object) -> None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in PACKAGES:
            return
        if event == "call":
            entry = _entry(frame, self._stack[-1][1] if self._stack else None)
            self.entries.append(entry)
            self._stack.append((frame, entry))
        elif event == "return":
            while self._stack and self._stack[-1][0] is not frame:
                self._stack.pop()  # begun before an exception, or by code outside
            if self._stack:
                self._stack.pop()[1].values.append(value)


def way_of(entries: Sequence[Entry], carries: Callable[[object], bool]) -> Way:
    """Return the way of what `carries` recognises, on its own, through recorded calls."""
    seen: dict[int, tuple[object, bool]] = {}

    def holds(value: object) -> bool:
        if id(value) not in seen:
            seen[id(value)] = (value, any(map(carries, _parts(value, DEPTH))))
        return seen[id(value)][1]

    on = {id(entry): entry for entry in entries if any(map(holds, entry.values))}
    order: dict[str, int] = {}
    for entry in on.values():
        order.setdefault(entry.module, len(order))
    turns = set()
    for entry in on.values():
        caller = entry.caller
        while caller is not None and id(caller) not in on:
            caller = caller.caller
        if caller is None or order[entry.module] >= order[caller.module]:
            continue
        if not any(_is_method_of(entry, value) for value in entry.values if holds(value)):
            turns.add((caller.module, entry.module))
    return Way(list(order), sorted(turns))


def _entry(frame: FrameType, caller: Entry | None) -> Entry:
    code, local = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    count += sum(bool(code.co_flags & flag) for flag in _VARIADIC)
    values = [local[name] for name in code.co_varnames[:count] if name in local]
    module = str(frame.f_globals["__name__"])
    if values and _defines(type(values[0]), code):
        module = type(values[0]).__module__
    return Entry(module, code.co_name, code, caller, values)


def _is_method_of(entry: Entry, value: object) -> bool:
    return _defines(type(value), entry.code)


def _defines(kind: type, code: CodeType) -> bool:
    """Return whether a class, or one it inherits from, has this code as its own function."""
    for base in kind.__mro__:
        found = vars(base).get(code.co_name)
        for attribute in ("fget", "func", "__func__"):
            found = getattr(found, attribute, found)
        if getattr(found, "__code__", None) is code:
            return True
    return False


def _parts(value: object, depth: int) -> Iterator[object]:
    yield value
    if depth == 0 or isinstance(value, str | bytes | np.ndarray):
        return
    children: Iterable[Any] = ()
    if isinstance(value, dict):
        children = value.values()
    elif isinstance(value, list | tuple):
        children = value
    elif isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        children = vars(value).values() if hasattr(value, "__dict__") else ()
    for child in list(children):
        yield from _parts(child, depth - 1)
