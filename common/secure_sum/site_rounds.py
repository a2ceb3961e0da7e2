"""Site side of the secure sum, with every request it refuses.

A round takes two exchanges: the masked upload, and one answer about who survived. A site masks
one vector per round, in rising rounds, under seeds that depend on the question the vector answers:
uploads about different questions do not add up to anything. It answers one list of survivors per
round, which must name itself and at least n_min sites; and in that answer it gives, for each other
site, a share either of its self seed (it survived) or of its pairwise seeds (it did not), never of
both.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.contract import canonical_json, sha256_hex
from common.errors import ProtocolError
from common.secure_sum.groups import group_with
from common.secure_sum.keys import (
    Groups,
    KeyAdvert,
    Participants,
    SumContext,
    advertise,
    check_adverts,
    refused,
)
from common.secure_sum.ledger_mark import LedgerMark
from common.secure_sum.list_lock import lock
from common.secure_sum.masks import apply_mask, to_signed, to_words
from common.secure_sum.messages import UnmaskReply, UnmaskRequest
from common.secure_sum.round_secrets import (
    SiteKeys,
    commitments,
    open_shares,
    seal_shares,
    sum_name,
)
from common.secure_sum.site_state import StateFile, SumState
from common.wire import Arrays


class SecureSumSite:
    """One site in the secure sum of one run.

    Args:
        site_id: This site.
        identity_key: Its registered Ed25519 identity.
        roster: Registered public identities by site id, hex; this site's own included.
        t: Sites that may collude with the server, >= 1.
        n_min: Fewest sites whose sum may be opened.
        run_id: The run.
        study_digest: The study; keys are bound to it.
        session: Number of the key agreement in this run; only rises.
        modulus_bits: 64 or 32.
        groups: Numbers of the groups in sums of training, if the study has groups.
        state_file: Where secrets and used rounds are kept over a restart; None: in memory.

    Raises:
        ProtocolError: The state file is damaged or of a later session.
    """

    def __init__(
        self,
        site_id: str,
        identity_key: Ed25519PrivateKey,
        roster: Mapping[str, str],
        t: int,
        n_min: int,
        *,
        run_id: str,
        study_digest: str,
        session: int = 1,
        modulus_bits: int = 64,
        groups: Groups | None = None,
        state_file: Path | None = None,
    ) -> None:
        self.site_id = site_id
        self._identity, self._roster = identity_key, dict(roster)
        context = SumContext.model_validate(
            {
                "run_id": run_id,
                "session": session,
                "study_digest": study_digest,
                "colluders": t,
                "n_min": n_min,
                "modulus_bits": modulus_bits,
                "groups": groups,
            }
        )
        self._file = StateFile(state_file)
        self._state = self._restore(context)
        self._keys: SiteKeys | None = None
        if self._state.adverts:
            self.receive_keys(self._state.adverts)

    @property
    def context(self) -> SumContext:
        """What the keys are for."""
        return self._state.context

    @property
    def keys_agreed(self) -> bool:
        """Whether the participants' keys are known, perhaps from before a restart."""
        return self._keys is not None

    def advertise(self, witnessed: tuple[LedgerMark, ...] = ()) -> KeyAdvert:
        """Return this site's signed public keys, with what it remembers of others' ledgers."""
        secrets = self._state.run_secrets()
        return advertise(self._identity, self.site_id, self.context, secrets, witnessed)

    def receive_keys(self, adverts: Sequence[KeyAdvert]) -> str:
        """Check the participants' signed keys and agree on secrets; return their digest.

        Raises:
            ProtocolError: A key is not signed, this site's own is missing or changed, or other
                keys were agreed on in this session.
            PrivacyError: Too few sites for n_min and t.
        """
        participants = check_adverts(adverts, self._roster, self.context)
        own, shown = self.advertise(), participants.advert_of(self.site_id)
        if shown is None or (shown.mask_key, shown.channel_key) != (own.mask_key, own.channel_key):
            raise refused("this site's own keys are missing or changed")
        if self._state.adverts and self._state.adverts != participants.adverts:
            raise refused("other keys were already agreed on in this session")
        self._keys = SiteKeys.agree(self.site_id, participants, self._state.run_secrets())
        self._change(adverts=participants.adverts)
        return participants.digest

    def masked(
        self,
        round_number: int,
        vector: npt.NDArray[np.int64],
        question: str,
        *,
        grouped: bool = False,
    ) -> Arrays:
        """Return the masked vector of a round with its sealed shares; see `UPLOAD_ARRAYS`.

        The caller stores the answer and sends it again when asked; a second vector for the same
        round would reveal the difference of the two.

        Args:
            round_number: Above every round masked before.
            vector: (d,) int64, noised.
            question: Digest of what was asked and of d; the same at all sites.
            grouped: Whether the sum is that of this site's group in the round, not of all.

        Raises:
            ProtocolError: No keys were agreed on, the round was used, or there are no groups.
        """
        keys = self._keys_of(round_number, grouped=grouped)
        if round_number <= self._state.masked_round:
            raise refused(
                f"round {round_number} was already masked",
                cure="continue with the next round; a void round is not repeated",
            )
        self._change(
            masked_round=round_number, question=question, grouped=grouped, answered=None, shown=""
        )
        about = sum_name(round_number, question)
        self._fresh = os.urandom(32)
        seeds = keys.seeds(about, self._fresh)
        words = to_words(vector, self.context.modulus_bits)
        for peer, seed in seeds.items():
            apply_mask(words, seed, add=peer >= self.site_id)
        signed = to_signed(words)
        return {
            "masked": signed if self.context.modulus_bits == 64 else signed.astype(np.int32),
            "sealed_shares": seal_shares(keys, about, seeds),
            "commitments": commitments(keys, about, seeds),
        }

    def unmask(self, request: UnmaskRequest) -> UnmaskReply:
        """Return the locked answer about one list of survivors.

        If a survivor's shares cannot be opened, the answer is its name instead.

        Raises:
            ProtocolError: The round is not the one this site masked, the list is too short,
                names a stranger to the sum or not this site, or another list was answered.
        """
        keys = self._keys_of(self._state.masked_round, grouped=self._state.grouped)
        names = keys.participants.site_ids
        survivors = self._check_list(request, keys.participants)
        about = sum_name(request.round, self._state.question)
        digest = list_digest(keys.participants.digest, about, survivors)
        if self._state.answered not in (None, digest):
            raise refused("another list of survivors was already answered in this round")
        rows = request.arrays.get("sealed_shares")
        if rows is None or rows.dtype != np.uint8 or rows.shape[:1] != (len(survivors),):
            raise refused("the survivors' shares are missing")
        missing = [name for name in names if name not in survivors]
        reply = UnmaskReply(
            site_id=self.site_id,
            run_id=self.context.run_id,
            session=self.context.session,
            round=request.round,
            list_digest=digest,
        )
        shown = sha256_hex(rows.tobytes())
        if self._state.answered is not None and self._state.shown not in ("", shown):
            raise refused("other shares were already answered in this round")
        opened, unreadable = _open_rows(keys, about, survivors, rows)
        if unreadable:  # nothing is given away; enough accusers put the sender out of the run
            return reply.model_copy(update={"unreadable": unreadable})
        answer = b"".join(
            shares[name] for sender, shares in opened.items() for name in (sender, *missing)
        )
        self._change(answered=digest, shown=shown)
        lock_box = lock(
            answer,
            self.site_id,
            keys.channels,
            keys.participants.collusion.threshold,
            digest,
        )
        arrays = {
            "sealed": np.frombuffer(lock_box.sealed, dtype=np.uint8),
            "covered": _rows(lock_box.covered[name] for name in names),
            "tokens": _rows(lock_box.tokens[name] for name in names),
        }
        return reply.model_copy(update={"arrays": arrays})

    def close(self) -> None:
        """Forget all secrets; after the last round of the run."""
        self._file.delete()
        self._keys = None

    def _restore(self, context: SumContext) -> SumState:
        earlier = self._file.load()
        if earlier is not None and earlier.context.run_id != context.run_id:
            raise refused("the state file belongs to another run", cure="use one file per run")
        if earlier is not None and earlier.context == context:
            return earlier
        if earlier is not None and earlier.context.session >= context.session:
            raise refused("the session of a key agreement only rises")
        secrets = tuple(os.urandom(32).hex() for _ in range(3))
        state = SumState.model_validate(
            {
                "context": context,
                "secrets": secrets,
                "masked_round": earlier.masked_round if earlier else 0,
            }
        )
        self._file.save(state)
        return state

    def _change(self, **fields: object) -> None:
        state = self._state.model_copy(update=fields)
        if state != self._state:
            self._file.save(state)
            self._state = state

    def _agreed(self) -> SiteKeys:
        if self._keys is None:
            raise refused("no keys were agreed on")
        return self._keys

    def _keys_of(self, number: int, *, grouped: bool) -> SiteKeys:
        """Return the keys of one sum: of all participants, or of this site's group in a round."""
        keys = self._agreed()
        if not grouped:
            return keys
        return keys.within(group_with(keys.participants, number, self.site_id))

    def _check_list(self, request: UnmaskRequest, participants: Participants) -> list[str]:
        context, names, survivors = participants.context, participants.site_ids, request.survivors
        if (request.run_id, request.session) != (context.run_id, context.session):
            raise refused("the request is of another run or key agreement")
        if request.round != self._state.masked_round:
            raise refused(f"round {request.round} is not the one this site masked last")
        if survivors != sorted(set(survivors)) or not set(survivors) <= set(names):
            raise refused("the list of survivors names a stranger, or a site twice")
        if self.site_id not in survivors:
            raise refused("the list of survivors does not name this site, which has uploaded")
        if len(survivors) < context.n_min:
            raise refused(
                f"{len(survivors)} survivors are fewer than n_min = {context.n_min}",
                cure="the round is void; continue with the next one",
            )
        return list(survivors)


def _open_rows(
    keys: SiteKeys, about: str, survivors: Sequence[str], rows: npt.NDArray[np.uint8]
) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Return the shares of every survivor, and the names of those whose shares do not open."""
    opened, unreadable = {}, []
    for sender, row in zip(survivors, rows, strict=True):
        try:
            opened[sender] = open_shares(keys, about, sender, row)
        except ProtocolError:
            unreadable.append(sender)
    return opened, unreadable


def list_digest(participants_digest: str, about: str, survivors: Sequence[str]) -> str:
    """Return what names one list of survivors of one sum, in hex."""
    return sha256_hex(canonical_json([participants_digest, about, list(survivors)]))


def _rows(parts: Iterable[bytes]) -> npt.NDArray[np.uint8]:
    rows = list(parts)
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1)
