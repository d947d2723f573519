"""Settings as YAML: plain for saved runs, commented for people."""

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studies.settings import BOUND_WORDS


def settings_yaml(settings: BaseModel | Mapping[str, Any]) -> str:
    """Return resolved settings as YAML, one line each, in the order of their declaration."""
    values = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    return "".join(_entry(name, value) for name, value in values.items())


def commented_yaml(model: type[BaseModel]) -> str:
    """Return the defaults as YAML with meaning, unit and bounds above each line."""
    title = (model.__doc__ or model.__name__).strip().splitlines()[0]
    return f"# {title}\n" + _commented(model())


def _commented(defaults: BaseModel) -> str:
    lines = []
    for name, field in type(defaults).model_fields.items():
        value = getattr(defaults, name)
        if isinstance(value, BaseModel):
            inner = textwrap.indent(_commented(value), "  ")
            lines.append(f"\n{name}:{inner}")
        else:
            plain = defaults.model_dump(mode="json", include={name})
            lines.append(f"\n# {_meaning(name, field)}\n{_entry(name, plain[name])}")
    return "".join(lines)


def _meaning(name: str, field: FieldInfo) -> str:
    text = field.description or name
    limits = [
        f"{word} {getattr(limit, key)}"
        for limit in field.metadata
        for key, word in BOUND_WORDS.items()
        if hasattr(limit, key)
    ]
    return text if all(limit in text for limit in limits) else f"{text} ({', '.join(limits)})"


def _entry(name: str, value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return f"{name}: {text.removesuffix(chr(10)).removesuffix('...').strip()}\n"
