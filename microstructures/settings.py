"""Settings from YAML: plain data only, small, without aliases, checked field by field."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from microstructures.errors import DataError

MAX_BYTES = 2**20
MAX_DEPTH = 30

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(path: str | Path, model: type[Settings]) -> Settings:
    """Return the settings of a YAML file as an instance of a pydantic model.

    Refused: more than 1 MB, more than 30 levels, aliases (a few of them can unfold to gigabytes),
    a key given twice, Python tags, and whatever the model does not declare.

    >>> load_settings("configs/uhcs-import.yaml", ImportSettings)  # doctest: +SKIP

    Raises:
        DataError: With the file and the field, what was expected and what came.
    """
    path = Path(path)
    data = _read(path)
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected settings as `name: value` lines, got {_short(data)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise DataError(f"{path}: {_sentence(error, model)}") from error


def _read(path: Path) -> Any:
    try:
        if not path.is_file():
            raise DataError(f"expected a settings file at {path}, found none; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                f"{path}: expected settings of at most 1 MB, got {path.stat().st_size} bytes"
            )
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_PlainLoader)
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"{path}{where}: expected plain YAML, but {problem}") from error
    except (ValueError, RecursionError) as error:  # bad UTF-8, impossible dates and numbers
        raise DataError(f"{path}: expected plain YAML as UTF-8 text, got {error}") from error


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases, double keys and deep nests."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(
                None,
                None,
                "it holds an alias (*name): write the value out",
                self.peek_event().start_mark,
            )
        if self._depth >= MAX_DEPTH:
            raise ComposerError(
                None, None, f"it nests deeper than {MAX_DEPTH} levels", self.peek_event().start_mark
            )
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value if isinstance(key_node.value, str) else None)
            if key[1] is not None and key in seen:
                raise ConstructorError(
                    None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    errors = error.errors(include_url=False)
    first = errors[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = f"; known there: {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else ""
        text = f"unknown setting {field}{known}"
    elif first["type"] == "missing":
        text = f"the setting {field} is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        text = f"{field}: {message}, got {_short(first['input'])}" if field else message
    more = len(errors) - 1
    return f"{text} (and {more} more)" if more else text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
