"""Atomic writing and verified reading: every file we make appears whole or not at all."""

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from microstructures.errors import CheckpointError, DataError

FORMAT = 1
MANIFEST = "manifest.json"
_LONGEST_MANIFEST_BYTES = 256 * 2**20


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
    path = _checked(path)
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        write(partial)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise DataError(_cannot_write(path, error)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def publish_text(path: str | Path, text: str) -> Path:
    """Publish a UTF-8 text file."""
    return publish(path, lambda partial: _write_bytes(partial, text.encode()))


def publish_json(path: str | Path, value: Any) -> Path:
    """Publish a JSON file.

    Raises:
        DataError: The value holds NaN or infinity (they are not JSON), or cannot be written.
    """
    try:
        text = _json_text(value)
    except ValueError as error:
        raise DataError(
            f"expected finite numbers for {path}, got NaN or infinity; nothing was written"
        ) from error
    return publish_text(path, text)


def publish_folder(
    folder: str | Path,
    write: Callable[[Path], None],
    *,
    kind: str,
    about: dict[str, Any] | None = None,
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
    folder = _checked(folder)
    if os.path.islink(folder):
        folder = folder.resolve()
    _undo_interrupted_swap(folder)
    if not _replaceable(folder):
        raise DataError(
            f"expected {folder} to be new, empty or a mesoforge folder, found other files in it; "
            "choose another output folder"
        )
    partial = _partial(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
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

    The manifest carries the hash of its own text, so a changed byte anywhere is noticed.

    Returns:
        The manifest's `about` entry.

    Raises:
        CheckpointError: No manifest, another kind or format, a file missing, added or altered.
    """
    folder = Path(folder)
    _undo_interrupted_swap(folder)
    manifest = _read_manifest(folder, kind)
    if manifest["kind"] != kind or manifest["format"] != FORMAT:
        raise CheckpointError(
            f"expected a {kind} of format {FORMAT} at {folder}, found a {manifest['kind']} of "
            f"format {manifest['format']}; choose another folder"
        )
    files = manifest["files"]
    try:
        present = {p.name for p in folder.iterdir() if ".partial-" not in p.name} - {MANIFEST}
        if present != set(files):
            odd = ", ".join(sorted(present ^ set(files)))
            raise CheckpointError(
                f"expected the files of the manifest in {folder}, these are missing or extra: "
                f"{odd}; restore the folder or make it again"
            )
        for name, record in files.items():
            path = folder / name
            if path.is_symlink() or not path.is_file() or sha256(path) != record["sha256"]:
                raise CheckpointError(
                    f"{path} does not match its recorded SHA-256: the file was altered or "
                    "damaged; restore it from a copy or make the folder again"
                )
    except OSError as error:
        raise CheckpointError(
            f"could not read {folder}: {error.strerror or error}; check its permissions"
        ) from error
    return manifest["about"]


def folder_digest(folder: str | Path) -> str:
    """Return the SHA-256 of a published folder's manifest: one number for all its content."""
    return sha256(Path(folder) / MANIFEST)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_manifest(folder: Path, kind: str, about: dict[str, Any]) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        _sync(path)
        files[path.name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    manifest = {"format": FORMAT, "kind": kind, "about": about, "files": files}
    _write_bytes(folder / MANIFEST, _sealed(manifest).encode())
    _sync(folder / MANIFEST)
    _sync(folder)


def _read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if not path.is_file():
            raise FileNotFoundError(path)
        if path.stat().st_size > _LONGEST_MANIFEST_BYTES:
            raise ValueError("longer than any manifest")
        text = path.read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a mesoforge {kind} folder with a {MANIFEST} at {folder}, found none that "
            "reads; check the path, or make the folder again"
        ) from error
    try:
        manifest = json.loads(text)
        manifest.pop("sha256")
        intact = _sealed(manifest).encode() == text
        whole = all(isinstance(manifest[key], dict) for key in ("about", "files"))
        whole = whole and {"kind", "format"} <= set(manifest)
        whole = whole and all("sha256" in record for record in manifest["files"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = whole = False
    if not (intact and whole):
        raise CheckpointError(
            f"{path} does not match its own SHA-256: it was altered or damaged; restore it from "
            "a copy or make the folder again"
        )
    return manifest


def _sealed(manifest: dict[str, Any]) -> str:
    digest = hashlib.sha256(_json_text(manifest).encode()).hexdigest()
    return _json_text({**manifest, "sha256": digest})


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _replaceable(folder: Path) -> bool:
    try:
        if not os.path.exists(folder):
            return True
        return (folder / MANIFEST).exists() or not any(folder.iterdir())
    except OSError:
        return False


def _replace_folder(partial: Path, folder: Path) -> None:
    # A folder cannot be renamed over a full one: the old one steps aside first and is removed
    # only when the new one stands. A kill between the two renames is undone by the next reader
    # or writer (`_undo_interrupted_swap`).
    stem, _, process = partial.name.rpartition("-")
    aside = partial.with_name(f"{stem}-old-{process}")
    if folder.exists():
        os.replace(folder, aside)
    os.replace(partial, folder)
    _sync(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _undo_interrupted_swap(folder: Path) -> None:
    with suppress(OSError):
        if folder.exists():
            return
        for aside in _leftovers(folder):
            if ".partial-old-" in aside.name and (aside / MANIFEST).exists():
                os.replace(aside, folder)
                return


def _sweep(path: Path) -> None:
    for leftover in _leftovers(path):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _leftovers(path: Path) -> list[Path]:
    """Partial versions of `path` whose process has ended (or is this one)."""
    stem = _partial(path).name.rpartition("-")[0]
    pattern = f"{glob.escape(stem)}-*"
    return sorted(p for p in path.parent.glob(pattern) if not _runs(p.name.rpartition("-")[2]))


def _runs(process: str) -> bool:
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _partial(path: Path) -> Path:
    # File systems allow 255 bytes in a name: a long one is cut to leave room for the suffix.
    stem = os.fsencode(path.name)[:200].decode("utf-8", "ignore")
    return path.with_name(f"{stem}.partial-{os.getpid()}")


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if "\0" in str(path) or not path.name:
        raise DataError(f"expected a file or folder name to write to, got {str(path)!r}")
    return path


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: Path, error: OSError) -> str:
    try:
        free = shutil.disk_usage(path.parent if path.parent.exists() else Path.cwd()).free
        room = f" ({free / 1e6:.0f} MB free)"
    except OSError:
        room = ""
    reason = error.strerror or error
    return f"could not write {path}: {reason}{room}; free space or choose another folder"
