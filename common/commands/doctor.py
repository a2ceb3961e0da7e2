"""Run preflight checks, each with a finding and, if it fails, how to fix it.

The checks that hospital and coordinator share are here: software, clock, disk, secrets.
"""

import ctypes
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from common.commands.cli_output import Output
from common.errors import TumorboardError
from common.trust.secret_file import OTHERS

Status = Literal["ok", "warning", "problem"]
_ORDER: tuple[Status, ...] = ("ok", "warning", "problem")


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: What was looked at, one or two words.
        status: ok; warning (works now, look at it soon); problem (will not work).
        found: What was found.
        cure: What to do about it; empty if ok.
    """

    check: str
    status: Status
    found: str
    cure: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """Run all checks; one that fails becomes a problem with its own fix, and the others continue.

    Args:
        checks: Name and check; the name is used where the check itself cannot report.
    """
    findings: list[Finding] = []
    for name, check in checks:
        findings += _guarded(name, check)
    return findings


def worst(findings: Iterable[Finding]) -> Status:
    """Return the worst status of some findings."""
    return max((f.status for f in findings), key=_ORDER.index, default="ok")


def show(findings: list[Finding], output: Output) -> int:
    """Print findings with their fixes and return the exit status: 1 if there is a problem."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        output.say(f"{finding.status:8} {finding.check:{width}}  {finding.found}")
        if finding.cure:
            output.say(f"{'':8} {'':{width}}  fix: {finding.cure}")
    counts = {status: sum(f.status == status for f in findings) for status in _ORDER}
    output.say(
        f"{counts['problem']} problem(s), {counts['warning']} warning(s), {counts['ok']} in order."
    )
    overall = worst(findings)
    output.result({"status": overall, "findings": [asdict(finding) for finding in findings]})
    return int(overall == "problem")


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except TumorboardError as error:
        where = f" ({error.where})" if error.where else ""
        why = f": {error.why}" if error.why else ""
        message = f"[{error.code}] {error.what}{where}{why}"
        yield Finding(name, "problem", message, error.cure or "see the handbook, errors by code")
    except OSError as error:
        cure = "check that the path exists and that this account may read it"
        yield Finding(name, "problem", str(error), cure)


DISTRIBUTION = "tumorboard"
FLOWER = Requirement("flwr>=1.41,<1.42")
GIB = 1 << 30
DISK_PROBLEM_BYTES, DISK_WARNING_BYTES = 1 * GIB, 10 * GIB
_UNSYNCHRONISED = 0x40
"""STA_UNSYNC of Linux's adjtimex(2)."""


def check_machine(folder: Path, *, not_before: Callable[[], float]) -> list[tuple[str, Check]]:
    """Return the checks that hospital and coordinator share.

    Args:
        folder: On the disk that must have room.
        not_before: Returns a time that has certainly passed, s since 1970.
    """
    return [
        ("packages", check_packages),
        ("flower", check_flower),
        ("import names", check_import_names),
        ("clock", lambda: check_clock(not_before())),
        ("disk", lambda: check_disk(folder)),
    ]


def check_packages(distribution: str = DISTRIBUTION) -> Iterator[Finding]:
    """Yield every required package that is missing or of a version that was not tested."""
    wrong = 0
    for text in requires(distribution) or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _installed(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong += 1
            state = f"{requirement.name} {version or 'is missing'}, needed {requirement.specifier}"
            yield Finding("packages", "problem", state, f'pip install "{requirement}"')
    if not wrong:
        yield Finding(
            "packages", "ok", f"Python {platform.python_version()}, all {distribution} needs"
        )


def check_flower() -> Iterator[Finding]:
    """Yield whether Flower is the version that the site gate was tested with."""
    version = _installed("flwr")
    if version is not None and FLOWER.specifier.contains(version):
        yield Finding("flower", "ok", f"Flower {version}")
    else:
        cure = f'pip install "{FLOWER}": the site gate is tested with this version only'
        yield Finding("flower", "problem", f"Flower {version or 'is missing'}", cure)


def check_import_names(names: Iterable[str] = ("common", "client", "server")) -> Iterator[Finding]:
    """Yield whether the generic package names are ours; another distribution may shadow them."""
    own = Path(__file__).resolve().parents[2]
    strangers = []
    for name in names:
        spec = find_spec(name)
        places = (
            [Path(p).resolve() for p in (spec.submodule_search_locations or [])] if spec else []
        )
        if not places or places[0].parent != own:
            strangers.append(f"{name} is {places[0] if places else 'not found'}")
    if strangers:
        cure = "use a separate virtual environment; remove the other package of this name"
        yield Finding("import names", "problem", "; ".join(strangers), cure)
    else:
        yield Finding("import names", "ok", f"from {own}")


def check_disk(folder: Path) -> Iterator[Finding]:
    """Yield whether the disk that holds a folder has room."""
    free = shutil.disk_usage(_existing(folder)).free
    message = f"{free / GIB:.1f} GiB free for {folder}"
    cure = "free space, or move the folder to a larger disk: a full disk stops rounds"
    if free < DISK_PROBLEM_BYTES:
        yield Finding("disk", "problem", message, cure)
    elif free < DISK_WARNING_BYTES:
        yield Finding("disk", "warning", message, cure)
    else:
        yield Finding("disk", "ok", message)


def check_clock(not_before: float) -> Iterator[Finding]:
    """Yield whether the clock is plausible and kept in time.

    Args:
        not_before: A time that has certainly passed, s since 1970.
    """
    cure = "switch on time synchronisation: `timedatectl set-ntp true`"
    now = time.time()
    if now < not_before - 3600:
        behind = (not_before - now) / 3600
        yield Finding("clock", "problem", f"at least {behind:.1f} hours behind", cure)
    elif _kernel_says_unsynchronised():
        yield Finding("clock", "warning", "no service synchronises it", cure)
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def check_secrets(paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield every secret that others may read, that is not ours, or that is missing."""
    wrong, n_files = 0, 0
    for path in paths:
        n_files += 1
        if not path.exists():
            yield Finding("permissions", "problem", f"{path} is missing", "restore it from backup")
        elif path.stat().st_mode & OTHERS:
            mode = "700" if path.is_dir() else "600"
            message = f"others may enter or read {path}"
            yield Finding("permissions", "problem", message, f"chmod {mode} {path}")
        elif path.stat().st_uid != os.geteuid() and os.geteuid() != 0:
            message = f"{path} belongs to another account"
            yield Finding("permissions", "warning", message, "run as the account that owns it")
        else:
            continue
        wrong += 1
    if not wrong:
        yield Finding("permissions", "ok", f"{n_files} keys and private folders")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.resolve().parents) if path.exists())


def _kernel_says_unsynchronised() -> bool:
    """Ask adjtimex(2) without changing anything; False where it cannot be asked."""
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return False
    timex = (ctypes.c_long * 64)()  # struct timex: modes, offset, freq, maxerror, esterror, status
    if ask(ctypes.byref(timex)) < 0:
        return False
    return bool(timex[5] & _UNSYNCHRONISED)
