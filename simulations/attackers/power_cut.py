"""Stop a process at a chosen system call, as a power cut would.

`survive` runs an action in a forked child in which `os.write`, `os.fsync`, `os.ftruncate`,
`os.rename` and the creation of files are counted. At the chosen call the child dies, before,
after, or (for a write) in the middle of it. What was not synced may then be lost, in whole or in
part, or replaced by zeros; a rename whose folder was not synced may be undone.

Real syncs are left out: the loss is simulated, so a thousand cuts take seconds.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KILLED = 137


@dataclass
class _Disk:
    """What would be lost if the power failed now."""

    names: dict[int, Path] = field(default_factory=dict)
    safe_bytes: dict[Path, int] = field(default_factory=dict)
    renames: list[tuple[Path, bytes | None]] = field(default_factory=list)

    def lose(self, dice: random.Random) -> None:
        for target, before in reversed(self.renames):
            if dice.random() < 0.5:
                if before is None:
                    target.unlink(missing_ok=True)
                else:
                    target.write_bytes(before)
        for path, safe in self.safe_bytes.items():
            if not path.is_file() or path.stat().st_size <= safe:
                continue  # folders are opened to be synced; on tmpfs they grow with their files
            data = path.read_bytes()
            length = dice.randint(safe, len(data))
            if dice.random() < 0.3:
                path.write_bytes(data[:safe] + bytes(length - safe) + data[length:])
            else:
                path.write_bytes(data[:length])


class _Cut:
    def __init__(self, at_call: int, dice: random.Random) -> None:
        self.left, self.dice, self.disk = at_call, dice, _Disk()
        self.write_, self.rename_, self.open_ = os.write, os.rename, os.open

    def install(self) -> None:
        for name in ("write", "fsync", "rename", "open", "ftruncate"):
            setattr(os, name, getattr(self, f"_{name}"))

    def _due(self) -> bool:
        self.left -= 1
        return self.left == 0

    def _die(self) -> None:
        for name, real in (("write", self.write_), ("open", self.open_), ("rename", self.rename_)):
            setattr(os, name, real)
        self.disk.lose(self.dice)
        os._exit(KILLED)

    def _write(self, descriptor: int, data: bytes) -> int:
        path = self.disk.names.get(descriptor)
        if path is None:
            return self.write_(descriptor, data)
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        safe = self.disk.safe_bytes.get(path, 0)
        self.disk.safe_bytes[path] = min(safe, offset)
        if self._due():
            self.write_(descriptor, bytes(data)[: self.dice.randint(0, len(data))])
            self._die()
        return self.write_(descriptor, data)

    def _fsync(self, descriptor: int) -> None:
        if self._due() and self.dice.random() < 0.5:
            self._die()
        path = self.disk.names.get(descriptor)
        if path is not None and path.is_file():
            self.disk.safe_bytes[path] = path.stat().st_size
        elif path is not None:
            self.disk.renames = [r for r in self.disk.renames if r[0].parent != path]
        if self.left == 0:
            self._die()

    def _ftruncate(self, descriptor: int, length: int) -> None:
        before = self._due()
        if before and self.dice.random() < 0.5:
            self._die()
        os.truncate(self.disk.names[descriptor], length)
        if before:
            self._die()

    def _rename(self, source: Path, target: Path) -> None:
        before = self._due()
        if before and self.dice.random() < 0.5:
            self._die()
        old = Path(target).read_bytes() if Path(target).exists() else None
        self.rename_(source, target)
        self.disk.safe_bytes[Path(target)] = self.disk.safe_bytes.pop(Path(source), 0)
        self.disk.renames.append((Path(target), old))
        if before:
            self._die()

    def _open(self, path: Path, flags: int, mode: int = 0o777, **extra: int) -> int:
        if flags & os.O_CREAT and self._due():
            self._die()
        descriptor = self.open_(path, flags, mode, **extra)
        self.disk.names[descriptor] = Path(path)
        size = 0 if flags & os.O_TRUNC else os.fstat(descriptor).st_size
        self.disk.safe_bytes.setdefault(Path(path), size)
        return descriptor


def survive(
    action: Callable[[Callable[[str], None]], None], *, at_call: int, dice: random.Random
) -> tuple[list[str], bool]:
    """Run an action in a child that dies at its `at_call`-th call to the operating system.

    Args:
        action: Called with a function that sends the parent one line at once, as a message that
            has left the house.
        at_call: 1 = the first call; beyond the last call the action ends by itself.
        dice: Chooses what is lost.

    Returns:
        (lines sent before the end, whether the child was killed).

    Raises:
        RuntimeError: The action itself failed; the message holds its error.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _act(action, writer, _Cut(at_call, dice))
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, KILLED):
        raise RuntimeError(f"the action failed: {lines[-1] if lines else status}")
    return lines, status == KILLED


def _act(action: Callable[[Callable[[str], None]], None], writer: int, cut: _Cut) -> None:
    def tell(line: str) -> None:
        cut.write_(writer, f"{line}\n".encode())

    cut.install()
    try:
        action(tell)
    except BaseException as error:
        tell(repr(error).replace("\n", " "))
        os._exit(1)
    os._exit(0)
