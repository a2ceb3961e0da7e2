"""Base class of every contract: unknown keys refused, values frozen, errors with file and key."""

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


_PLAIN_WORDS = {"extra_forbidden": "unknown key", "missing": "this key is needed"}


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
                cure="correct the keys above; `tumorboard study schema` prints what is allowed",
            ) from None


class _StrictLoader(yaml.SafeLoader):
    """The safe loader; a key that is written twice is refused, where YAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[object] = set()
        for key_node, _ in node.value:
            is_merge = key_node.tag == "tag:yaml.org,2002:merge"
            key = None if is_merge else self.construct_object(key_node, deep=True)
            if key_node.tag == "tag:yaml.org,2002:str" and key in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key '{key}' is written twice", problem_mark=key_node.start_mark
                )
            keys.add(str(key))
        return super().construct_mapping(node, deep)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key '{key}' is written twice")
    return dict(pairs)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds, or a JSON file if its name ends in `.json`.

    JSON needs its own parser: YAML 1.1 reads the JSON number 1e-05 as text.

    Raises:
        ConfigError: The file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = (
            json.loads(text, object_pairs_hook=_without_repeats)
            if path.suffix.lower() == ".json"
            else yaml.load(text, _StrictLoader)  # noqa: S506  a safe loader, stricter
        )
    except FileNotFoundError:
        raise ConfigError(
            "the file does not exist", where=str(path), cure="check the path for a typing error"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            "the file cannot be read as UTF-8 text",
            where=str(path),
            why=str(error),
            cure="save it as UTF-8",
        ) from None
    except OSError as error:
        raise ConfigError(
            "the file cannot be read", where=str(path), why=str(error), cure="check its permissions"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            "the file is not valid YAML or JSON",
            where=str(path),
            why=" ".join(str(error).split()),
            cure="correct the line named above",
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
        message = _PLAIN_WORDS.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        is_obvious = problem["type"] == "missing" or isinstance(problem["input"], dict)
        value = "" if is_obvious else f" (value: {_cut(problem['input'])})"
        lines.append(f"    - {key}: {message}{value}")
    return "\n".join(lines)


def _cut(value: object, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 3]}..."
