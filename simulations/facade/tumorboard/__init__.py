"""Offer a notebook all public names, `dir(tumorboard)`; each loads when first used.

Example:
    import tumorboard as tb

    cohort = tb.read_cohort("patients.csv", tb.CohortColumns(...))
    result = tb.simulate(cohort, epsilon=[1, 8])
    tb.compare(result).plot_arms("c_index")
"""

from common.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
