"""List the benchmarks, run one, or run all: `python -m simulations.benchmarks [NAME | all]`."""

from simulations.benchmarks.parts.command import main

if __name__ == "__main__":
    main()
