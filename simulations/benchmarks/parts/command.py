"""Read the command line of the benchmarks: list them, run one, or run all."""

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from common.errors import TumorboardError
from simulations.benchmarks.parts.catalogue import Benchmark, benchmarks, find_benchmark
from simulations.benchmarks.parts.run_all import run_all

EXAMPLES = """\
examples:
  python -m simulations.benchmarks                                  list the benchmarks
  python -m simulations.benchmarks privacy_core --json              run one
  python -m simulations.benchmarks all --data ../shared/data        run all; go on after a kill
  python -m simulations.benchmarks all --only flamby_fed_tcga_brca secure_sum --miniature
"""


def main(*first: str) -> NoReturn:
    """Do what the command line says, and exit with 0 if all checks hold, else 1.

    Args:
        first: Arguments before those of the process; a source file stands for its benchmark.

    Raises:
        SystemExit: Always.
    """
    names = [Path(name).stem if name.endswith(".py") else name for name in first]
    given = parser().parse_args([*names, *sys.argv[1:]])
    try:
        if given.name is None:
            raise SystemExit(_list())
        if given.name != "all":
            raise SystemExit(run(find_benchmark(given.name), given))
        chosen = [find_benchmark(name) for name in given.only] or list(benchmarks())
        raise SystemExit(run_all(chosen, given))
    except TumorboardError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_status) from error


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    args = argparse.ArgumentParser(
        prog="python -m simulations.benchmarks",
        description="List the benchmarks, run one, or run all.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    args.add_argument("name", nargs="?", help="a benchmark, or 'all'; without it they are listed")
    args.add_argument("--data", type=Path, default=Path("../shared/data"), help="the real data")
    args.add_argument("--json", action="store_true", help="one JSON object on the last line")
    args.add_argument("--miniature", action="store_true", help="the form that the tests run")
    of_all = args.add_argument_group("of 'all'")
    of_all.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these alone")
    of_all.add_argument("--again", action="store_true", help="also what is finished")
    out = Path("runs/benchmarks")
    of_all.add_argument("--out", type=Path, default=out, help=f"results and logs ({out})")
    return args


def run(benchmark: Benchmark, given: argparse.Namespace) -> int:
    """Run a benchmark, write its checks and return the exit status.

    With `--json` the last line is one object `{"name", "seeds", "checks": [{"what", "value",
    "bound", "op", "holds", "seconds"}, ...]}`.

    Raises:
        TumorboardError: The benchmark cannot be run.
    """
    if given.miniature:
        measured = benchmark.measure(given.data, miniature=True)
    else:
        measured = benchmark.measure_both(given.data)
    if given.json:
        size = benchmark.module.MINIATURE if given.miniature else benchmark.module.FULL
        rows = [check.as_dict() | {"seconds": seconds} for check, seconds in measured]
        fields = {"name": benchmark.name, "seeds": list(size.seeds), "checks": rows}
        sys.stdout.write(json.dumps(fields, allow_nan=False) + "\n")
    else:
        sys.stdout.write("".join(f"{check}\n" for check, _ in measured))
    sys.stdout.flush()
    return 0 if measured and all(check.holds for check, _ in measured) else 1


def _list() -> int:
    listed = list(benchmarks())
    width = max(len(benchmark.name) for benchmark in listed)
    for benchmark in listed:
        sys.stdout.write(f"{benchmark.name:<{width}}  {benchmark.shows} [{benchmark.duration}]\n")
    sys.stdout.write(f"\n{EXAMPLES}")
    return 0
