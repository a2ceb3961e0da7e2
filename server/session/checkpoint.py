"""Store the checkpoint of a run as safetensors and JSON, and step it forward by a round.

A round is committed when its JSON file is renamed into place; the JSON names the digest of the
arrays, which are on the disk before it. The last two rounds are kept.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from common.contract import Contract, canonical_json, sha256_hex
from common.errors import RunError
from common.storage.atomic_file import write_bytes, write_text
from common.study.study import Study
from common.wire import Arrays, arrays_digest, joint_norm, part_of, prefixed
from server.aggregate.optimizers import OptimizerState, apply_direction

KEPT_ROUNDS = 2
SILENT = "silent"
"""Stands for a site without an answer in `RoundRecord.dropped`."""
VOID = "void"
"""Key in `RoundRecord.facts` that says why a round left the model as it was."""
_NAME = re.compile(r"^round_(\d{6})\.json$")


class RoundRecord(Contract):
    """One committed round, as the learning curve shows it."""

    round: int
    attempts: int = 1
    sites: list[str]
    dropped: dict[str, str] = Field(default_factory=dict, description="site -> code, or 'silent'")
    loss: float | None = Field(default=None, description="patient-weighted; mode none only")
    update_norm: float = Field(description="L2 norm of the change of the global model")
    seconds: float = 0.0
    facts: dict[str, JsonValue] = Field(default_factory=dict)


@dataclass
class Checkpoint:
    """Everything the next round depends on.

    Attributes:
        round: Last committed round; 0 before the first.
        parameters: Global model, float32.
        optimizer: Moments of the server optimiser.
        average: Running float64 sum of the last iterates.
        averaged: How many iterates `average` holds.
        history: One record a committed round.
        memory: What the aggregation method remembers, see `server.aggregate.method`.
    """

    round: int
    parameters: Arrays
    optimizer: OptimizerState = field(default_factory=OptimizerState)
    average: Arrays = field(default_factory=dict)
    averaged: int = 0
    history: list[RoundRecord] = field(default_factory=list)
    memory: Arrays = field(default_factory=dict)


def advance(
    study: Study,
    checkpoint: Checkpoint,
    direction: Arrays,
    record: RoundRecord,
    memory: Arrays | None = None,
) -> Checkpoint:
    """Return the checkpoint after one step of the server optimiser; not yet saved.

    Args:
        study: Names the optimiser, and which iterates are averaged.
        checkpoint: The last one; its optimiser moves on with the new one.
        direction: Direction of descent by parameter; empty where a round was void.
        record: The round; the norm of its change is filled in.
        memory: What the aggregation method remembers; as before by default.
    """
    optimizer = checkpoint.optimizer
    parameters = apply_direction(checkpoint.parameters, direction, study.training.server, optimizer)
    change = {name: parameters[name] - checkpoint.parameters[name] for name in parameters}
    record = record.model_copy(update={"update_norm": joint_norm(change)})
    average, averaged = checkpoint.average, checkpoint.averaged
    window = max(1, round(study.training.rounds * study.training.average_last))
    if record.round > study.training.rounds - window:
        average = {n: a.astype("float64") + average.get(n, 0.0) for n, a in parameters.items()}
        averaged += 1
    return Checkpoint(
        round=record.round,
        parameters=parameters,
        optimizer=optimizer,
        average=average,
        averaged=averaged,
        history=[*checkpoint.history, record],
        memory=checkpoint.memory if memory is None else memory,
    )


def final_model(checkpoint: Checkpoint) -> Arrays:
    """Return the mean of the last iterates, float32."""
    if checkpoint.averaged <= 1:
        return checkpoint.parameters
    return {
        name: (total / checkpoint.averaged).astype("float32")
        for name, total in checkpoint.average.items()
    }


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Commit a round durably and remove all but the last two."""
    arrays = prefixed("model/", checkpoint.parameters) | prefixed("average/", checkpoint.average)
    arrays |= prefixed("memory/", checkpoint.memory) | checkpoint.optimizer.to_arrays()
    stem = folder / f"round_{checkpoint.round:06d}"
    write_arrays(stem.with_suffix(".safetensors"), arrays)
    record: dict[str, JsonValue] = {
        "round": checkpoint.round,
        "averaged": checkpoint.averaged,
        "arrays_digest": arrays_digest(arrays),
        "history": [entry.model_dump(mode="json") for entry in checkpoint.history],
    }
    record["sha256"] = sha256_hex(canonical_json(record))
    write_text(stem.with_suffix(".json"), canonical_json(record))
    for number in _committed(folder)[:-KEPT_ROUNDS]:
        old = folder / f"round_{number:06d}"
        old.with_suffix(".json").unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last committed round, or None if there is none.

    Raises:
        RunError: Its files are damaged.
    """
    numbers = _committed(folder)
    if not numbers:
        return None
    stem = folder / f"round_{numbers[-1]:06d}"
    try:
        record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        arrays = read_arrays(stem.with_suffix(".safetensors"))
        digest = record.pop("sha256")
        if digest != sha256_hex(canonical_json(record)):
            raise ValueError("record")
        if arrays_digest(arrays) != record["arrays_digest"]:
            raise ValueError("arrays")
        return Checkpoint(
            round=record["round"],
            parameters=part_of(arrays, "model/"),
            optimizer=OptimizerState.from_arrays(arrays),
            average=part_of(arrays, "average/"),
            averaged=record["averaged"],
            history=[RoundRecord.model_validate(entry) for entry in record["history"]],
            memory=part_of(arrays, "memory/"),
        )
    except (OSError, ValueError, KeyError, ValidationError, SafetensorError):
        raise RunError(
            "the last checkpoint is damaged",
            where=str(stem.with_suffix(".json")),
            why="its digest does not agree with its content",
            cure="remove the two files of this round: the run continues one round earlier",
        ) from None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays durably; equal arrays give equal bytes."""
    contiguous = {name: np.ascontiguousarray(a) for name, a in sorted(arrays.items())}
    write_bytes(path, save_tensors(contiguous))


def read_arrays(path: Path) -> Arrays:
    """Return the named arrays of a safetensors file."""
    return load_tensors(path.read_bytes())


def _committed(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (_NAME.match(path.name) for path in folder.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)
