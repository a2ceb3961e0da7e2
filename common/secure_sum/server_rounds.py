"""Server side of the secure sum: add up uploads, relay sealed shares and open the sum."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from common.errors import ErrorCode, RunError
from common.secure_sum import shares
from common.secure_sum.groups import groups_of
from common.secure_sum.keys import KeyAdvert, Participants, SumContext, check_adverts, refused
from common.secure_sum.ledger_mark import LedgerMark
from common.secure_sum.list_lock import LockedAnswer, unlock
from common.secure_sum.masks import Words, apply_mask, to_signed, to_words, word_type
from common.secure_sum.messages import UnmaskReply, UnmaskRequest
from common.secure_sum.round_secrets import commitment, sum_name
from common.secure_sum.site_rounds import list_digest
from common.wire import Arrays

Shares = npt.NDArray[np.uint8]


class FalseSharesError(Exception):
    """Sites whose part of a sum contradicts itself; the sum is to be repeated without them.

    Attributes:
        sites: Their names, sorted.
    """

    def __init__(self, sites: list[str]) -> None:
        super().__init__(", ".join(sites))
        self.sites = sites


@dataclass(frozen=True)
class OpenedSum:
    """What a round gives.

    Attributes:
        total: (d,) int64, the sum over the survivors.
        survivors: Sites in the sum, sorted.
        lost: Participants that are not in it.
        unanswered: Survivors without a usable answer.
    """

    total: npt.NDArray[np.int64]
    survivors: list[str]
    lost: list[str]
    unanswered: list[str]


@dataclass
class _Round:
    number: int
    about: str
    total: Words
    sealed: dict[str, Shares] = field(default_factory=dict)
    committed: dict[str, Shares] = field(default_factory=dict)
    survivors: list[str] | None = None


class SecureSumServer:
    """The server in the secure sum of one run.

    Args:
        context: What the keys are for.
        roster: Registered public identities by site id, hex.
    """

    def __init__(self, context: SumContext, roster: Mapping[str, str]) -> None:
        self.context = context
        self._roster = dict(roster)
        self._participants: Participants | None = None
        self._round: _Round | None = None

    def agree(self, adverts: Sequence[KeyAdvert]) -> Participants:
        """Fix the participants of this session; show their adverts to all of them.

        Raises:
            ProtocolError: A key is not signed by its site.
            PrivacyError: Too few sites for n_min and t.
        """
        self._participants = check_adverts(adverts, self._roster, self.context)
        return self._participants

    @property
    def site_ids(self) -> list[str]:
        """Participants of this sum, sorted."""
        return self._agreed().site_ids

    def by_group(self, number: int) -> list["SecureSumServer"]:
        """Return the server's part in the sum of every group of one round.

        Raises:
            ProtocolError: Too few participants, or the study has no groups.
        """
        parts = []
        for group in groups_of(self._agreed(), number):
            part = SecureSumServer(group.context, self._roster)
            part._participants = group
            parts.append(part)
        return parts

    def start(self, round_number: int, dimension: int, question: str) -> None:
        """Begin a round; an earlier one that was not opened is abandoned.

        Args:
            round_number: Above every earlier round.
            dimension: Length d of the vectors.
            question: Digest of what is asked, as the sites compute it.
        """
        self._agreed()
        if self._round is not None and round_number <= self._round.number:
            raise refused("rounds only rise", cure="a void round is not repeated")
        zeros = np.zeros(dimension, dtype=word_type(self.context.modulus_bits))
        self._round = _Round(round_number, sum_name(round_number, question), zeros)

    def collect(self, site_id: str, upload: Arrays) -> None:
        """Add one site's masked vector; uploads after `unmask_requests` come too late.

        Args:
            site_id: Who sent it, as the transport has authenticated.
            upload: Arrays named in `UPLOAD_ARRAYS`.

        Raises:
            ProtocolError: The arrays are not what was declared, or come too late or twice.
        """
        current, names = self._current(), self._agreed().site_ids
        count = len(names)
        shape = {
            "masked": (len(current.total),),
            "sealed_shares": (count, shares.SHARE_BYTES * count + 28),
            "commitments": (count, 32),
        }
        kind = {"masked": np.int64 if self.context.modulus_bits == 64 else np.int32}
        for name, size in shape.items():
            array = upload.get(name)
            if array is None or array.shape != size or array.dtype != kind.get(name, np.uint8):
                raise refused(f"the array '{name}' of '{site_id}' is not what was declared")
        if site_id not in names or site_id in current.sealed or current.survivors is not None:
            raise refused(f"an upload of '{site_id}' is not expected now")
        current.total += to_words(upload["masked"], self.context.modulus_bits)
        current.sealed[site_id] = upload["sealed_shares"]
        current.committed[site_id] = upload["commitments"]

    def unmask_requests(self, marks: Sequence[LedgerMark] = ()) -> dict[str, UnmaskRequest]:
        """Close the uploads and return what to ask each survivor.

        Args:
            marks: Where the survivors' ledgers stood when they uploaded.

        Raises:
            RunError: Fewer than n_min sites have uploaded: the round is void.
        """
        current, names = self._current(), self._agreed().site_ids
        survivors = sorted(current.sealed)
        if len(survivors) < self.context.n_min:
            raise _void(f"{len(survivors)} sites have uploaded", self.context.n_min)
        current.survivors = survivors
        requests = {}
        for site in survivors:
            rows = np.stack([current.sealed[sender][names.index(site)] for sender in survivors])
            request = UnmaskRequest(
                run_id=self.context.run_id,
                session=self.context.session,
                round=current.number,
                survivors=survivors,
                marks=list(marks),
            )
            requests[site] = request.model_copy(update={"arrays": {"sealed_shares": rows}})
        return requests

    def open(self, replies: Sequence[UnmaskReply]) -> OpenedSum:
        """Remove the masks of the survivors' sum.

        Args:
            replies: Of the survivors that answered; `threshold` are enough.

        Raises:
            FalseSharesError: Survivors sent shares that cannot be opened, or that contradict
                what they committed to; they are named.
            RunError: Too few answers: the round is void.
            ProtocolError: The answers contradict each other, and nobody can be named.
        """
        current, participants = self._current(), self._agreed()
        if current.survivors is None:
            raise refused("the uploads are still open")
        survivors = current.survivors
        missing = [name for name in participants.site_ids if name not in survivors]
        self._accuse(replies, survivors)
        answers = self._answers(replies, survivors)
        threshold = participants.collusion.threshold
        if len(answers) < threshold:
            raise _void(f"{len(answers)} survivors have answered", threshold)
        seeds = self._seeds(current, answers, missing)
        words = current.total.copy()
        for (sender, peer), seed in seeds.items():
            apply_mask(words, seed, add=peer < sender)
        current.total = np.zeros(0, dtype=words.dtype)
        silent = [name for name in survivors if name not in answers]
        return OpenedSum(to_signed(words), list(survivors), missing, silent)

    def _accuse(self, replies: Sequence[UnmaskReply], survivors: Sequence[str]) -> None:
        """Name senders whose shares more sites than may collude could not open."""
        accusers = {
            name: {r.site_id for r in replies if name in r.unreadable} - {name}
            for name in survivors
        }
        named = sorted(n for n, by in accusers.items() if len(by) > self.context.colluders)
        if 0 < len(named) <= self.context.colluders:
            raise FalseSharesError(named)

    def _answers(
        self, replies: Sequence[UnmaskReply], survivors: Sequence[str]
    ) -> dict[str, LockedAnswer]:
        """Return the answers about this round and list that are of the declared shape."""
        participants, current = self._agreed(), self._current()
        digest = list_digest(participants.digest, current.about, survivors)
        names = participants.site_ids
        answers = {}
        for reply in sorted(replies, key=lambda r: r.site_id):
            shares, covers, tokens = (
                reply.arrays.get(name) for name in ("sealed", "covered", "tokens")
            )
            if reply.site_id not in survivors or reply.list_digest != digest or shares is None:
                continue
            if not (_is_share_table(covers, len(names)) and _is_share_table(tokens, len(names))):
                continue
            answers[reply.site_id] = LockedAnswer(
                shares.tobytes(), _by_name(names, covers), _by_name(names, tokens)
            )
        return answers

    def _seeds(
        self, current: _Round, answers: Mapping[str, LockedAnswer], missing: Sequence[str]
    ) -> dict[tuple[str, str], bytes]:
        """Return the seeds to remove: (sender, sender) self and (sender, lost) pairwise."""
        survivors = current.survivors or []
        digest = list_digest(self._agreed().digest, current.about, survivors)
        pairs = [(sender, peer) for sender in survivors for peer in (sender, *missing)]
        collusion = self._agreed().collusion
        contradicted: list[set[str]] = []
        for helpers in _groups(list(answers), collusion.threshold, self.context.colluders):
            numbers = [self._agreed().number(name) for name in helpers]
            weights = shares.weights_at_zero(numbers)
            weight_of = dict(zip(helpers, weights, strict=True))
            rows = [unlock(name, answers, weight_of, digest) for name in helpers]
            seeds = _combine(pairs, rows, weights)
            if seeds is None:
                continue
            contradicted.append(self._contradicted(current, seeds))
            if not contradicted[-1]:
                return seeds
        # Among so many answers one group is honest throughout: whom it contradicts, lied.
        honest_group = len(answers) - self.context.colluders >= collusion.threshold
        named = set.intersection(*contradicted) if contradicted and honest_group else set()
        if 0 < len(named) <= self.context.colluders:
            raise FalseSharesError(sorted(named))
        raise refused("the survivors' shares contradict what was committed to")

    def _contradicted(self, current: _Round, seeds: Mapping[tuple[str, str], bytes]) -> set[str]:
        """Return the senders with a seed that is not the one they committed to."""
        participants = self._agreed()
        return {
            sender
            for (sender, peer), seed in seeds.items()
            if commitment(participants, sender, peer, current.about, seed)
            != current.committed[sender][participants.number(peer) - 1].tobytes()
        }

    def _agreed(self) -> Participants:
        if self._participants is None:
            raise refused("no keys were agreed on")
        return self._participants

    def _current(self) -> _Round:
        if self._round is None:
            raise refused("no round was started")
        return self._round


def _is_share_table(array: npt.NDArray[np.uint8] | None, count: int) -> TypeGuard[Shares]:
    shape = (count, shares.SHARE_BYTES)
    return array is not None and array.shape == shape and array.dtype == np.uint8


def _by_name(names: Sequence[str], table: Shares) -> dict[str, bytes]:
    return {name: row.tobytes() for name, row in zip(names, table, strict=True)}


def _groups(names: list[str], threshold: int, colluders: int) -> Iterator[list[str]]:
    """Yield groups of helpers to try: all, then all but one, up to all but `colluders`."""
    for left_out in range(min(colluders, len(names) - threshold) + 1):
        for without in combinations(names, left_out):
            yield [name for name in names if name not in without]


def _combine(
    pairs: Sequence[tuple[str, str]], rows: Sequence[bytes | None], weights: Sequence[int]
) -> dict[tuple[str, str], bytes] | None:
    size = shares.SHARE_BYTES
    if any(part is None or len(part) != size * len(pairs) for part in rows):
        return None
    seeds = {}
    for index, pair in enumerate(pairs):
        cut = slice(index * size, (index + 1) * size)
        secret = shares.combine([part[cut] for part in rows if part is not None], weights)
        if secret is None:
            return None
        seeds[pair] = secret
    return seeds


def _void(what: str, minimum: int) -> RunError:
    return RunError(
        f"the round is void: {what}, {minimum} are needed",
        where="secure sum",
        why="a sum over fewer sites would carry too little noise",
        cure="continue with the next round; the spend of the sites that answered stays spent",
        code=ErrorCode.QUORUM,
    )
