"""Atomic writing and verified reading: every file we make appears whole or not at all."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microstructures.errors import CheckpointError, DataError

FORMAT = 1
MANIFEST = "manifest.json"


def publish(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Write a file so that its final name only ever shows complete content.

    Args:
        path: The final name.
        write: Called with the partial file's path; makes the content there.

    Returns:
        The final path.

    Raises:
        DataError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise DataError(_cannot_write(path, error)) from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def publish_text(path: str | Path, text: str) -> Path:
    """Publish a UTF-8 text file."""
    return publish(path, lambda partial: _write_bytes(partial, text.encode()))


def publish_json(path: str | Path, value: Any) -> Path:
    """Publish a JSON file (no NaN or infinity: they are not JSON)."""
    return publish_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def publish_folder(
    folder: str | Path, write: Callable[[Path], None], *, kind: str, about: dict[str, Any] | None = None
) -> Path:
    """Write a folder with a manifest of SHA-256 hashes, whole or not at all.

    Args:
        folder: The final folder; one that stands there already is replaced only when the new
            one is complete.
        write: Called with the partial folder's path; writes plain files into it (no subfolders).
        kind: What the folder is ("model", "dataset", ...), checked by `open_verified`.
        about: JSON-able facts to keep in the manifest.

    Raises:
        DataError: The disk is full, the folder cannot be written, or its name holds something
            that is not one of our folders.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).exists() and any(folder.iterdir()):
        raise DataError(
            f"expected {folder} to be new, empty or a mesoforge folder, found other files in it; "
            "choose another output folder"
        )
    partial = _partial(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        write(partial)
        _write_manifest(partial, kind, about or {})
        _replace_folder(partial, folder)
    except OSError as error:
        raise DataError(_cannot_write(folder, error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def open_verified(folder: str | Path, *, kind: str) -> dict[str, Any]:
    """Check a published folder against its manifest before any parser sees a byte.

    Returns:
        The manifest's `about` entry.

    Raises:
        CheckpointError: No manifest, another kind or format, a file missing, added or altered.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files, found = manifest["files"], manifest["kind"]
        made_as = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"expected a mesoforge {kind} folder with a {MANIFEST} at {folder}, found none that "
            "reads; check the path, or make the folder again"
        ) from error
    if found != kind or made_as != FORMAT:
        raise CheckpointError(
            f"expected a {kind} of format {FORMAT} at {folder}, found a {found} of format {made_as}"
        )
    present = {p.name for p in folder.iterdir() if p.name != MANIFEST and ".partial-" not in p.name}
    if present != set(files):
        odd = ", ".join(sorted(present ^ set(files)))
        raise CheckpointError(
            f"expected the files of the manifest in {folder}, these are missing or extra: {odd}; "
            "restore the folder or make it again"
        )
    for name, record in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or _sha256(path) != record["sha256"]:
            raise CheckpointError(
                f"{path} does not match its recorded SHA-256: the file was altered or damaged; "
                "restore it from a copy or make the folder again"
            )
    return manifest["about"]


def _write_manifest(folder: Path, kind: str, about: dict[str, Any]) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        _sync(path)
        files[path.name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    manifest = {"format": FORMAT, "kind": kind, "about": about, "files": files}
    _write_bytes(folder / MANIFEST, (json.dumps(manifest, indent=2, allow_nan=False) + "\n").encode())
    _sync(folder / MANIFEST)
    _sync(folder)


def _replace_folder(partial: Path, folder: Path) -> None:
    # A folder cannot be renamed over a full one: the old one steps aside first and is removed
    # only when the new one stands.
    aside = folder.with_name(f"{folder.name}.partial-old-{os.getpid()}")
    if folder.exists():
        os.replace(folder, aside)
    os.replace(partial, folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial-{os.getpid()}")


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cannot_write(path: Path, error: OSError) -> str:
    try:
        free = shutil.disk_usage(path.parent if path.parent.exists() else Path.cwd()).free
        room = f" ({free / 1e6:.0f} MB free)"
    except OSError:
        room = ""
    return f"could not write {path}: {error.strerror or error}{room}; free space or choose another folder"
