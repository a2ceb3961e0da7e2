"""Code that runs at the coordinator; `__init__.pyi` lists the public names."""

from common.lazy import lazy_names

__getattr__, __dir__ = lazy_names(__name__)
