"""Test the ledger: cut its power at random, and damage its file at random.

Used by the tests and by the benchmark `ledger_crash`.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from client.site.sealed_replies import SealedReplies, payload_digest
from common.errors import BudgetError, LedgerError
from common.ledger.ledger import Ledger, LedgerBudgets, SpendEntry
from common.ledger.ledger_budget import Cap
from common.ledger.ledger_file import read_ledger
from common.ledger.ledger_state import LedgerState
from common.privacy.accounting import composed_epsilon
from simulations.attackers.power_cut import survive

STUDY = "ab" * 32
ROUND_COST = 0.01


def round_entry(number: int, *, model: str = "cd" * 32) -> SpendEntry:
    """Return the spend of one training round that costs `ROUND_COST`."""
    return SpendEntry(
        study_digest=STUDY,
        run_id="trial",
        round=number,
        model_digest=model,
        partition="train",
        purpose="train",
        mechanism="skellam",
        parameters={"sigma": 10.0},
        mu_squared=ROUND_COST,
    )


def budget_for(rounds: int) -> LedgerBudgets:
    """Return budgets that admit exactly this number of rounds."""
    return LedgerBudgets(hospital={"train": Cap(composed_epsilon(ROUND_COST * rounds, 1e-5), 1e-5)})


@dataclass
class CrashCount:
    """What was seen over many power cuts.

    Attributes:
        cuts: Children that were killed.
        studies: Ledgers that were filled to their budget.
        overspends: Rounds whose patients were read without a line in the ledger, or ledgers above
            their budget, or rounds answered with two payloads.
        lost_commits: Answers that had left and were not found committed with the same bytes.
        refusals: Times a ledger did not open again after a mere cut.
    """

    cuts: int = 0
    studies: int = 0
    overspends: int = 0
    lost_commits: int = 0
    refusals: int = 0
    errors: list[str] = field(default_factory=list)


def crash_trials(folder: Path, cuts: int, *, seed: int, rounds: int = 4) -> CrashCount:
    """Fill ledgers to their budget under random power cuts until the number of cuts is reached.

    Args:
        folder: Empty folder to work in.
        cuts: Number of power cuts.
        seed: Of the moments and the losses; noise and ledger know no seed.
        rounds: Rounds the budget admits; one more is always tried.
    """
    dice, count = random.Random(seed), CrashCount()
    while count.cuts < cuts:
        home = folder / f"site-{count.studies}"
        home.mkdir()
        touched_rounds: set[int] = set()
        digests: dict[int, str] = {}
        is_done = False
        while not is_done and count.cuts < cuts:
            try:
                lines, was_killed = survive(
                    _site(home, rounds),
                    at_call=dice.randint(1, 45),
                    dice=random.Random(dice.random()),
                )
            except RuntimeError as error:
                count.refusals += 1
                count.errors.append(str(error))
                break
            count.cuts += was_killed
            is_done = not was_killed
            _note(lines, touched_rounds, digests, count)
            _compare(home, rounds, touched_rounds, digests, count)
        count.studies += 1
    return count


def _site(home: Path, rounds: int) -> Callable[[Callable[[str], None]], None]:
    def serve(tell: Callable[[str], None]) -> None:
        ledger = Ledger(home / "ledger.jsonl", "trial-site", budget_for(rounds))
        replies = SealedReplies(home / "replies")
        for number in range(1, rounds + 2):
            key = ("train", "trial", number, "cd" * 32)
            try:
                reservation = ledger.reserve(round_entry(number))
            except BudgetError:
                tell(f"refused {number}")
                continue
            reply = replies.load(key)
            if reply is None:
                tell(f"touched {number}")
                reply = replies.store(key, "{}", random.SystemRandom().randbytes(64))
            ledger.commit(reservation, payload_digest(*reply))
            tell(f"sent {number} {payload_digest(*reply)}")

    return serve


def _note(lines: list[str], doubt: set[int], replies: dict[int, str], count: CrashCount) -> None:
    for line in lines:
        word, number, *rest = line.split()
        if word == "touched":
            doubt.add(int(number))
        elif word == "sent" and replies.setdefault(int(number), rest[0]) != rest[0]:
            count.overspends += 1
            count.errors.append(f"round {number} was answered twice")


def _compare(
    home: Path, rounds: int, doubt: set[int], replies: dict[int, str], count: CrashCount
) -> None:
    path, state = home / "ledger.jsonl", LedgerState()
    try:
        records = read_ledger(path) if path.exists() and path.stat().st_size else []
    except LedgerError as error:
        if doubt:
            count.refusals += 1
            count.errors.append(str(error))
        return
    for record in records:
        state.apply(record, str(path))
    reservations = {r.entry.round: r for r in state.reservations()}
    count.overspends += len(reservations) > rounds
    count.overspends += len(doubt - set(reservations))
    for number, digest in replies.items():
        reservation = reservations.get(number)
        reply = SealedReplies(home / "replies").load(("train", "trial", number, "cd" * 32))
        is_kept = (
            reservation is not None and reservation.payload_digest == digest and reply is not None
        )
        if not is_kept or reply is None or payload_digest(*reply) != digest:
            count.lost_commits += 1
            count.errors.append(f"round {number} was lost")


DAMAGES = ("byte", "truncation", "swap", "removal", "repetition", "rollback")


def damage(ledger: Path, kind: str, dice: random.Random, earlier: bytes) -> None:
    """Damage a ledger file in place, so that its bytes differ.

    Args:
        ledger: The file.
        kind: One of `DAMAGES`.
        dice: Chooses where.
        earlier: An older state of the file, for a rollback.
    """
    before = ledger.read_bytes()
    lines = before.splitlines(keepends=True)
    after = before
    while after == before:
        if kind == "byte":
            place = dice.randrange(len(before))
            new = bytes([(before[place] + dice.randrange(1, 256)) % 256])
            after = before[:place] + new + before[place + 1 :]
        elif kind == "truncation":
            after = before[: dice.randrange(len(before))]
        elif kind == "rollback":
            after = earlier
        else:
            first, second = dice.sample(range(len(lines)), 2)
            new_lines = list(lines)
            if kind == "swap":
                new_lines[first], new_lines[second] = new_lines[second], new_lines[first]
            elif kind == "removal":
                del new_lines[first]
            else:
                new_lines.insert(second, new_lines[first])
            after = b"".join(new_lines)
    ledger.write_bytes(after)


def undetected_damages(folder: Path, trials: int, *, seed: int, lines: int = 41) -> list[str]:
    """Return the random damages that a ledger did not notice.

    A damage counts as noticed if opening the ledger, or comparing it with the head that others
    remember, refuses.

    Args:
        folder: Empty folder to work in.
        trials: Number of damages.
        seed: Of their kinds and places.
        lines: Lines of the ledger, odd.
    """
    dice = random.Random(seed)
    path, states = folder / "ledger.jsonl", []
    ledger = Ledger(path, "trial-site", budget_for(lines))
    for number in range(1, (lines + 1) // 2):
        states.append(path.read_bytes())
        ledger.commit(ledger.reserve(round_entry(number)), "ef" * 32)
    whole, head = path.read_bytes(), ledger.head
    side = path.with_name(path.name + ".head")
    side_bytes = side.read_bytes()
    misses = []
    for trial in range(trials):
        kind = DAMAGES[trial % len(DAMAGES)]
        path.write_bytes(whole)
        side.write_bytes(side_bytes)
        damage(path, kind, dice, dice.choice(states))
        damaged_bytes = path.read_bytes()
        if kind == "rollback":  # whoever restores a backup restores the head file with it
            _matching_head(side, damaged_bytes)
        try:
            Ledger(path, "trial-site", budget_for(lines)).require_head(head)
        except LedgerError:
            continue
        misses.append(f"trial {trial}: {kind}")
    return misses


def _matching_head(side: Path, content: bytes) -> None:
    last = json.loads(content.splitlines()[-1])
    body = {"head": last["sha256"], "sequence": last["sequence"]}
    side.write_bytes(json.dumps(body, separators=(",", ":")).encode() + b"\n")
