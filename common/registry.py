"""Registry of what a study chooses by name, including what other distributions offer.

An entry is one object in one file; the code behind it is imported when it is first needed. Another
distribution offers a model, an extractor or an aggregation rule through an entry point of the
registry's group; the name of the entry point is the name that a study writes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from common.errors import ConfigError, ErrorCode

OWN = "tumorboard"
"""Name of this distribution."""


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """What a study or a user writes."""
        ...


@dataclass(frozen=True)
class Entry:
    """One choice whose code is imported when it is first needed.

    Attributes:
        name: What a study writes.
        location: `package.module:object`.
    """

    name: str
    location: str

    def load(self) -> Any:
        """Return the object, its module imported.

        Raises:
            ConfigError: The module or the object does not exist.
        """
        module, _, attribute = self.location.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            raise ConfigError(
                f"the code of '{self.name}' cannot be imported",
                where=self.location,
                why=str(error),
                cure="reinstall its distribution completely",
                code=ErrorCode.PLUGIN,
            ) from error


N_co = TypeVar("N_co", bound=Named, covariant=True)
E_co = TypeVar("E_co", bound=Entry, covariant=True)


class Registry(Generic[N_co]):
    """Entries by name, in the order given.

    Args:
        noun: What an entry is, for messages.
        entries: All entries.
    """

    why_unknown = ""

    def __init__(self, noun: str, entries: Iterable[N_co]) -> None:
        self.noun = noun
        self._entries = {entry.name: entry for entry in entries}

    def __iter__(self) -> Iterator[N_co]:
        """Return the entries in order."""
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        """Return whether `get` finds the name."""
        return name in self._entries or name in self.names()

    def names(self) -> tuple[str, ...]:
        """Return all names in order."""
        return tuple(self._entries)

    def get(self, name: str, *, where: str = "") -> N_co:
        """Return the entry of a name.

        Args:
            name: What was written.
            where: File and key it was written in.

        Raises:
            ConfigError: There is no such entry (the valid names are listed), or two
                distributions offer it (PLUGIN).
        """
        if name in self._entries:
            return self._entries[name]
        near = get_close_matches(name, self.names(), n=1)
        raise ConfigError(
            f"unknown {self.noun} '{name}'",
            where=where,
            why=self.why_unknown,
            cure=(f"did you mean '{near[0]}'? " if near else "")
            + f"use one of: {', '.join(sorted(self.names()))}",
        )


class OpenRegistry(Registry[E_co]):
    """A registry that other installed distributions extend through entry points.

    Args:
        noun: What an entry is, for messages.
        group: Group of the entry points, e.g. `tumorboard.models`.
        kind: Type of the entries.
        entries: Those of this distribution.
    """

    why_unknown = "neither this program nor any other installed distribution offers it"

    def __init__(self, noun: str, group: str, kind: type[E_co], entries: Iterable[E_co]) -> None:
        super().__init__(noun, entries)
        self.group, self._kind = group, kind

    def names(self) -> tuple[str, ...]:
        """Return all names: ours in order, then those of other distributions."""
        return (*self._entries, *sorted({point.name for point in offered(self.group)}))

    def get(self, name: str, *, where: str = "") -> E_co:
        """Return the entry of a name, ours or of another distribution.

        Raises:
            ConfigError: There is no such entry, or two distributions offer it (PLUGIN).
        """
        point = self.foreign(name)
        if point is None:
            return super().get(name, where=where)
        return self._kind(name=name, location=point.value)

    def foreign(self, name: str) -> EntryPoint | None:
        """Return the entry point by which another distribution offers a name; None if none does.

        Raises:
            ConfigError: Two distributions offer it, or one besides this program (PLUGIN).
        """
        points = [point for point in offered(self.group) if point.name == name]
        sources = [OWN] if name in self._entries else []
        sources += [described(point) for point in points]
        if len(sources) > 1:
            raise ConfigError(
                f"the {self.noun} '{name}' is offered twice",
                where=f"entry points of the group {self.group}",
                why=f"by {' and by '.join(sources)}; it would not be clear which one a study means",
                cure="uninstall one of them, or ask its authors for another name",
                code=ErrorCode.PLUGIN,
            )
        return points[0] if points else None


@cache
def offered(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of other installed distributions; read once per process."""
    return tuple(entry_points(group=group))


def described(point: EntryPoint) -> str:
    """Return name and version of the distribution of an entry point, e.g. `graphs 1.2`."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
