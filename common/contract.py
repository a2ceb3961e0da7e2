"""Base of every contract: unknown keys refused, values frozen, errors with file and key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import ConfigError


def canonical_json(value: object) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def sha256_hex(data: bytes | str) -> str:
    """Return the SHA-256 of bytes or UTF-8 text, in hex (64 characters)."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


class Contract(BaseModel):
    """A frozen, strictly keyed value with a canonical digest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return sha256_hex(canonical_json(self.model_dump(mode="json")))

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read and validate a YAML file.

        Raises:
            ConfigError: The file is missing, is not YAML, or breaks the contract; every
                offending key is named.
        """
        return cls.from_mapping(read_yaml_mapping(path), where=str(path))

    @classmethod
    def from_mapping(cls, data: dict[str, Any], *, where: str) -> Self:
        """Validate a mapping; `where` names its source in errors.

        Raises:
            ConfigError: A key is unknown, missing or wrong.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(
                f"{error.error_count()} problem(s) in {cls.__name__}:\n{_list_problems(error)}",
                where=where,
                why="a key that is misread changes what is trained or promised",
                cure="mend the keys named above; `tumorboard study schema` prints what is allowed",
            ) from None


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds, or a JSON file if its name ends in `.json`.

    JSON needs its own parser: YAML 1.1 reads the JSON number 1e-05 as text.

    Raises:
        ConfigError: The file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(
            "the file does not exist", where=str(path), cure="check the path for a typing error"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the file cannot be read", where=str(path), why=str(error), cure="check its permissions"
        ) from None
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ConfigError(
            "the file is not valid YAML or JSON",
            where=str(path),
            why=" ".join(str(error).split()),
            cure="mend the line named above",
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            "the file holds no keys",
            where=str(path),
            why=f"found {type(data).__name__}, expected `key: value` lines",
            cure="start from the template that `tumorboard study init` writes",
        )
    return data


def _list_problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        shown = "" if problem["type"] == "missing" else f" (value: {problem['input']!r:.60})"
        lines.append(f"    - {key}: {problem['msg']}{shown}")
    return "\n".join(lines)
