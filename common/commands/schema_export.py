"""Export JSON Schemas of files that people write or exchange, for editors and programs."""

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import JsonValue

from common.cohort.manifest_table import NAME_PATTERN, PATIENT_ID_PATTERN
from common.cohort.outcomes import MONTHS_PER_UNIT
from common.errors import ConfigError
from common.storage.atomic_file import write_text
from common.study.modalities import COLUMNS, Column
from common.study.site_policy import SitePolicy
from common.study.study import Study
from common.study.weights_card import SignedCard

Schema = dict[str, JsonValue]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def manifest_row_schema() -> Schema:
    """Return the schema of one manifest row as text cells, the way a CSV reader yields it.

    It states which columns and cells are possible; that files exist, images stand once and
    identifiers are unique is checked by `tumorboard site check`.
    """
    binary: Schema = {"type": "string", "enum": ["", "0", "1"]}
    number: Schema = {"type": "string", "pattern": r"^$|^[0-9]+([.][0-9]+)?$"}
    cells: dict[str, Schema] = {
        "patient_id": {"type": "string", "pattern": f"^{PATIENT_ID_PATTERN}$"},
        **{column.name: _cell(column) for column in COLUMNS if not column.each},
        "response": {**binary, "description": "1 = responder"},
        "time": {**number, "description": "follow-up in time_unit"},
        "time_unit": {"type": "string", "enum": ["", *MONTHS_PER_UNIT]},
        "time_months": {**number, "description": "follow-up in months, instead of time"},
        "event": {**binary, "description": "1 = died, 0 = alive when last seen"},
    }
    return {
        "title": "ManifestRow",
        "description": "One patient of the manifest; empty cells mean not known.",
        "type": "object",
        "properties": {**cells},
        "patternProperties": {
            f"^{column.name}{NAME_PATTERN}$": _cell(column) for column in COLUMNS if column.each
        },
        "required": ["patient_id"],
        "dependentRequired": {
            "time": ["time_unit", "event"],
            "time_unit": ["time"],
            "time_months": ["event"],
        },
        "not": {"required": ["time", "time_months"]},
        "additionalProperties": False,
    }


def _cell(column: Column) -> Schema:
    about: Schema = {"description": column.meaning} if column.meaning else {}
    return {"type": "string", **about}


SCHEMAS: dict[str, Callable[[], Schema]] = {
    "study": Study.model_json_schema,
    "site-policy": SitePolicy.model_json_schema,
    "weights-card": SignedCard.model_json_schema,
    "manifest-row": manifest_row_schema,
}
"""Name -> function that builds the schema."""


def json_schema(name: str) -> Schema:
    """Return one JSON Schema (draft 2020-12).

    Raises:
        ConfigError: There is no schema of that name.
    """
    if name not in SCHEMAS:
        raise ConfigError(
            f"there is no schema '{name}'", cure=f"use one of: {', '.join(sorted(SCHEMAS))}"
        )
    return {"$schema": DIALECT, "$id": f"tumorboard:{name}", **SCHEMAS[name]()}


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema to `<folder>/<name>.schema.json` and return the files."""
    paths = []
    for name in SCHEMAS:
        path = folder / f"{name}.schema.json"
        write_text(path, json.dumps(json_schema(name), indent=2, sort_keys=True) + "\n")
        paths.append(path)
    return paths
