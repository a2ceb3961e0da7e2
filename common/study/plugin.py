"""Name code of another distribution in a study, so that its digest covers it."""

from typing import Literal

from pydantic import Field

from common.contract import Contract

PluginKind = Literal["model", "extractor", "aggregation"]


class Plugin(Contract):
    """A model, extractor or aggregation rule that another installed distribution offers."""

    kind: PluginKind
    name: str = Field(description="as the study writes it: model, extractor kind or rule")
    distribution: str
    version: str
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="digest of the sources of its package"
    )

    def __str__(self) -> str:
        """Return what it is and whose, in words."""
        return f"{self.kind} '{self.name}' of {self.distribution} {self.version}"
