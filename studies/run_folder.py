"""One run's folder: locked while a command works in it, its finished stages kept for resuming."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict

from microstructures.errors import DataError, MicrostructureError
from microstructures.publishing import open_verified, publish_folder, publish_text
from microstructures.settings import load_settings
from studies.settings_text import settings_yaml

LOCK, SETTINGS, STAGES = ".lock", "settings.yaml", "stages"


@dataclass(frozen=True)
class Stage:
    """What one stage of a run found: plain facts, arrays by name, and the seconds it took."""

    facts: dict[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class RunFolder:
    """A locked run folder. Stages are published whole; a finished one is read, not repeated."""

    path: Path

    def has(self, name: str) -> bool:
        """Say whether a stage is finished."""
        return (self.path / STAGES / name).exists()

    def stage(self, name: str, work: Callable[[], Stage]) -> Stage:
        """Return the stage's result, from the folder where it is finished, else by working."""
        if not self.has(name):
            started = time.perf_counter()
            done = work()
            save_stage(self.path, name, done, seconds=time.perf_counter() - started)
        return load_stage(self.path, name)


@contextmanager
def open_run(
    path: Path, settings: BaseModel, *, verb: str, inputs: Mapping[str, str] | None = None
) -> Iterator[RunFolder]:
    """Lock a run folder and match its settings; make it when it is new.

    Args:
        path: The folder.
        settings: What identifies the run.
        verb: The command that works in it.
        inputs: Hashes of what the run reads, by name: a model trained again is another input.

    Raises:
        DataError: Another command works in it, it holds a run of other settings, it holds
            something else, or it cannot be written.
    """
    path = Path(path)
    text = settings_yaml({"verb": verb, **settings.model_dump(mode="json"), **(inputs or {})})
    _check_contents(path, text)
    fresh = not (path / SETTINGS).exists()
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_WRONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(
            f"could not write in {path}: {error.strerror or error}; choose another --out"
        ) from error
    try:
        _lock(descriptor, path)
        _sweep(path)
        if fresh:
            publish_text(path / SETTINGS, text)
        try:
            yield RunFolder(path)
        except MicrostructureError:
            if fresh:
                _forget(path, made)
            raise
    finally:
        os.close(descriptor)


class SavedSettings(BaseModel):
    """The verb of a run, and its settings."""

    model_config = ConfigDict(extra="allow", frozen=True)

    verb: str


def run_settings(path: Path) -> dict[str, Any]:
    """Return the verb and settings saved in a run folder.

    Raises:
        DataError: The folder holds no run.
    """
    return load_settings(Path(path) / SETTINGS, SavedSettings).model_dump()


def save_stage(run: Path, name: str, stage: Stage, *, seconds: float) -> None:
    """Publish a stage's facts (JSON) and arrays (safetensors) as one hashed folder."""
    from safetensors.numpy import save_file

    def write(folder: Path) -> None:
        (folder / "facts.json").write_text(json.dumps(stage.facts, indent=2, allow_nan=False))
        arrays = {key: np.ascontiguousarray(value) for key, value in stage.arrays.items()}
        save_file(arrays, folder / "arrays.safetensors")

    publish_folder(run / STAGES / name, write, kind="stage", about={"seconds": round(seconds, 2)})


def load_stage(run: Path, name: str) -> Stage:
    """Read a finished stage after checking its hashes.

    Raises:
        CheckpointError: The stage is missing, incomplete or altered.
    """
    from safetensors.numpy import load_file

    folder = run / STAGES / name
    about = open_verified(folder, kind="stage")
    facts = json.loads((folder / "facts.json").read_text())
    return Stage(facts, load_file(folder / "arrays.safetensors"), about["seconds"])


def find_folder(path: Path, inside: str) -> Path:
    """Return `path/inside` where `path` is a run folder that made one, else `path` itself."""
    path = Path(path)
    return path / inside if (path / inside / "manifest.json").is_file() else path


def _check_contents(path: Path, text: str) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise DataError(f"expected {path} to be a folder, found a file; choose another --out")
    if (path / SETTINGS).exists():
        _same_settings(path, run_settings(path), yaml.safe_load(text))
    elif any(entry.name != LOCK and ".partial-" not in entry.name for entry in path.iterdir()):
        raise DataError(
            f"expected {path} to be new, empty or a run folder, found other files in it; "
            "choose another --out"
        )


def _same_settings(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    saved, wanted = _flat(saved), _flat(wanted)
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            raise DataError(
                f"expected the settings that {path} was made with ({name}: {saved.get(name)}), got "
                f"{name}: {wanted.get(name)}; repeat them to resume, or choose another --out"
            )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"training.steps": 5} for {"training": {"steps": 5}}."""
    leaves: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            leaves |= {f"{name}.{inner}": leaf for inner, leaf in _flat(value).items()}
        else:
            leaves[name] = value
    return leaves


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"expected no other command at work in {path}, found one; wait for it or choose "
            "another --out"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())


def _forget(path: Path, made: Sequence[Path]) -> None:
    """Undo a refused command that wrote nothing but its settings, the folders it made with it."""
    if not {entry.name for entry in path.iterdir()} <= {LOCK, SETTINGS}:
        return
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # somebody else has put something there
        for folder in made[1:]:
            folder.rmdir()


def _sweep(path: Path) -> None:
    """Remove what a killed command left half-written; the lock is held, so nobody works on it."""
    for left in [*path.glob("*.partial-*"), *(path / STAGES).glob("*.partial-*")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
