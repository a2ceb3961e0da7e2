"""Store what a site must remember between messages and over a restart."""

from pathlib import Path

from pydantic import Field, ValidationError

from common.contract import Contract, canonical_json
from common.secure_sum.keys import KeyAdvert, RunSecrets, SumContext, refused
from common.storage import durable
from common.storage.atomic_file import remove, write_bytes


class SumState(Contract):
    """Secrets of one key agreement and the rounds they were used for.

    Attributes:
        context: What the keys are for.
        secrets: Three secrets in hex; the file must stay at the site.
        adverts: All participants' signed keys, once they are known.
        masked_round: Newest round a vector was masked for, in any session of the run.
        question: Digest of what that vector answers.
        grouped: Whether it was masked for the site's group of that round alone.
        answered: Digest of the list of survivors this site answered in that round.
        shown: Digest of the sealed shares it answered about; a hospital that masked a second
            vector from a restored state sealed others.
    """

    context: SumContext
    secrets: tuple[str, str, str] = Field(repr=False)
    adverts: tuple[KeyAdvert, ...] = ()
    masked_round: int = 0
    question: str = ""
    grouped: bool = False
    answered: str | None = None
    shown: str = ""

    def run_secrets(self) -> RunSecrets:
        """Return the secrets as bytes."""
        return RunSecrets(*(bytes.fromhex(value) for value in self.secrets))


class StateFile:
    """Keeps a `SumState`; each change is on disk before the site acts on it.

    Args:
        path: File of one run, readable by its owner only; None keeps the state in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> SumState | None:
        """Return the stored state, or None.

        Raises:
            ProtocolError: The file is damaged.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            return SumState.model_validate_json(self._path.read_bytes())
        except (ValidationError, ValueError):
            raise refused(
                f"the state file {self._path} is damaged",
                cure="delete it; this site then sits out until keys are agreed on again, from the "
                "next round on",
            ) from None

    def save(self, state: SumState) -> None:
        """Store a state durably."""
        if self._path is None:
            return
        durable.private_folder(self._path.parent)
        text = canonical_json(state.model_dump(mode="json"))
        write_bytes(self._path, text.encode(), mode=0o600)

    def delete(self) -> None:
        """Remove the secrets from disk; after the last round."""
        if self._path is not None:
            remove(self._path)
