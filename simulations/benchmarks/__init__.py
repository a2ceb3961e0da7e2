"""Benchmarks: every published figure as a check that anybody can repeat.

Benchmarks stand in folders by topic and run by their own name alone:
`python -m simulations.benchmarks.NAME`.
"""

from pathlib import Path

__path__ += [str(folder) for folder in sorted(Path(__file__).parent.iterdir()) if folder.is_dir()]
