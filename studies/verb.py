"""What all verbs share: their arguments, the dry run, and how they say what they wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from microstructures.errors import DataError

Flags = Parameter(name="*")
Out = Annotated[Path, Parameter(help="Folder to write; repeat on the same folder to resume.")]
SettingsFile = Annotated[Path | None, Parameter(help="YAML file; flags override it.")]
DryRun = Annotated[bool, Parameter(help="Print settings and expected cost; write nothing.")]
Pairs = Annotated[tuple[str, ...], Parameter(name="--set", help="Values as name=value.")]


def run_verb(
    settings: Any, out: Path, dry_run: bool, *, plan: Callable[[Any], Any], work: Callable[[], Any]
) -> None:
    """Print the plan of a dry run, else work and say where the results stand."""
    if dry_run:
        from studies.settings_text import settings_yaml

        print(settings_yaml({**settings.model_dump(mode="json"), "expected": plan(settings)}))
        return
    found = work()
    for sentence in found.get("verdict", ()) if isinstance(found, dict) else ():
        print(sentence)
    say(f"wrote {out}")


def named_values(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return name=value texts as a dict; numbers as numbers, [a, b] as a list.

    Raises:
        DataError: A text is not of that form.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise DataError(f"expected name=value, got {text!r}; for example temperature_k=700")
        values[name] = _value(value)
    return values


def named_ranges(texts: tuple[str, ...]) -> dict[str, list[float]]:
    """Return name=low:high texts as a dict.

    Raises:
        DataError: A text is not of that form.
    """
    ranges = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            low, high = (float(bound) for bound in value.split(":"))
        except ValueError as error:
            raise DataError(
                f"expected name=low:high, got {text!r}; for example composition=0.4:0.5"
            ) from error
        ranges[name] = [low, high]
    return ranges


def _value(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("[") else float(text)
    except ValueError:
        return text


def say(text: str) -> None:
    """Print a line in green to the terminal, apart from what a pipe takes."""
    from rich.console import Console

    Console(stderr=True).print(text, style="green", markup=False, highlight=False, soft_wrap=True)
