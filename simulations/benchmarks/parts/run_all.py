"""Run benchmarks one after the other, resumably, and show one table.

Each runs in a process of its own. What it found is kept in a file with a digest of the code and of
the arguments: started again, what has such a file is not run again. A benchmark that ends without
a result does not stop the others, and is run again next time.
"""

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.commands.cli_output import Output
from common.contract import canonical_json, sha256_hex
from common.process.supervisor import end_with_parent
from common.storage.atomic_file import write_text
from common.trust.provenance import source_digests
from simulations.benchmarks.parts.catalogue import Benchmark
from simulations.benchmarks.parts.check import progress

PACKAGES = ("common", "client", "server", "simulations")
COLUMNS = ("benchmark", "verdict", "key figure", "seconds")
LAST_LINES, WIDTH = 5, 90

Finding = dict[str, Any]
"""`name`, `key` (digest of code and arguments), `seconds`, `checks`, `error` (empty: it ended)."""


def run_all(chosen: Sequence[Benchmark], given: Namespace) -> int:
    """Run benchmarks, write the table and return the exit status.

    Args:
        chosen: What to run, in this order.
        given: Command line.

    Returns:
        0 if all checks of all benchmarks hold, else 1.
    """
    options = ["--data", str(given.data.resolve()), *(["--miniature"] if given.miniature else [])]
    code = [source_digests(package) for package in PACKAGES]
    found: list[Finding] = []
    for number, benchmark in enumerate(chosen, start=1):
        key = sha256_hex(canonical_json([benchmark.name, options, code]))
        file = given.out / f"{benchmark.name}.json"
        finding = None if given.again else _finished(file, key)
        progress(
            f"{number} of {len(chosen)}: {benchmark.name}{', finished before' * bool(finding)}"
        )
        if finding is None:
            finding = _run(benchmark.name, options, given.out / f"{benchmark.name}.log", key)
            write_text(file, json.dumps(finding, indent=1))
            progress(f"  {_verdict(finding)}, {finding['seconds']} s")
        found.append(finding)
    output = Output(given.json)
    rows = [[f["name"], _verdict(f), _key_figure(f), f["seconds"]] for f in found]
    output.table("", COLUMNS, rows)
    for finding in found:
        for check in (c for c in finding["checks"] if not c["holds"]):
            output.say(f"{finding['name']} FAILS {_figure(check)} {check.get('note', '')}")
        if finding["error"]:
            output.say(f"{finding['name']} did not end:\n{finding['error']}")
    output.result({"benchmarks": found})
    return 0 if all(_holds(finding) for finding in found) else 1


def _finished(path: Path, key: str) -> Finding | None:
    """Return what an earlier run found, if it ran to its end with this code and arguments."""
    if not path.is_file():
        return None
    finding: Finding = json.loads(path.read_text(encoding="utf-8"))
    return finding if finding["key"] == key and not finding["error"] else None


def _run(name: str, options: Sequence[str], log: Path, key: str) -> Finding:
    """Run a benchmark in its own process, which ends when this one is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "simulations.benchmarks", name, "--json", *options]
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as errors:
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=end_with_parent
        )
    seconds = round(time.monotonic() - started, 1)
    checks: list[Finding] = []
    error = ""
    try:
        checks = json.loads((ended.stdout.splitlines() or [""])[-1])["checks"]
    except (ValueError, KeyError, TypeError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = [line for line in lines if line.strip()][-LAST_LINES:]
        error = "\n".join([*last, f"exit status {ended.returncode}"])
    return {"name": name, "key": key, "seconds": seconds, "checks": checks, "error": error}


def _holds(finding: Finding) -> bool:
    return bool(finding["checks"]) and all(check["holds"] for check in finding["checks"])


def _verdict(finding: Finding) -> str:
    total, failed = len(finding["checks"]), sum(not c["holds"] for c in finding["checks"])
    return "did not end" if not total else f"FAILS {failed} of {total}" if failed else "holds"


def _key_figure(finding: Finding) -> str:
    """Return the first figure that fails, or the first of all."""
    if not finding["checks"]:
        return str(finding["error"].splitlines()[0][:WIDTH])
    checks: list[Finding] = sorted(finding["checks"], key=lambda check: bool(check["holds"]))
    return _figure(checks[0])


def _figure(check: Finding) -> str:
    value = "not measured" if check["value"] is None else f"{check['value']:.4g}"
    bound = "" if check["op"] == "finite" else f" {check['op']} {check['bound']:.4g}"
    what = check["what"] if len(check["what"]) <= WIDTH else check["what"][: WIDTH - 3] + "..."
    return f"{what}: {value}{bound}"
