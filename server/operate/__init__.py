"""Commands of `tumorboard server`; `__init__.pyi` lists what they call, imported when one runs."""

from common.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
