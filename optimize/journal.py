"""The append-only journal of a study: one event per line, each with its own CRC32.

A line is `{"crc32":"89abcdef","entry":{...}}`; the checksum covers the bytes of the entry, whose
"n" is the line's place. A line is written and synced before its event counts, so a killed study
loses at most the event that was being written.
"""

import fcntl
import io
import json
import os
import shutil
import warnings
import weakref
import zlib
from pathlib import Path
from typing import Any

from microstructures import CheckpointError, DataError
from microstructures.publishing import publish

JOURNAL = "journal.jsonl"
LOCK = "journal.lock"

Event = dict[str, Any]

_HEAD = b'{"crc32":"'
_JOIN = b'","entry":'
_TAIL = b"}"
_ENTRY = len(_HEAD) + 8 + len(_JOIN)


class _FolderLock:
    """An exclusive flock on a study folder, released when the last journal that holds it goes."""

    def __init__(self, folder: Path) -> None:
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        self.release = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            self.release()
            if not isinstance(error, BlockingIOError):
                raise _cannot_write(folder, error) from error
            raise DataError(
                f"expected the study in {folder} to be free, found it in use by process {holder}; "
                "wait for that process or choose another folder"
            ) from error


# One lock per process and folder: a second study on the folder in the same process shares it,
# and `Journal.append` refuses whichever of the two has fallen behind.
_locks: weakref.WeakValueDictionary[Path, _FolderLock] = weakref.WeakValueDictionary()


class Journal:
    """An open journal. `events` holds what it held when it was opened, header first.

    Args:
        folder: Folder of the study; made when `header` is given.
        header: First event of a journal that is not there yet; None opens an existing one only.

    Raises:
        DataError: The folder is in use by another process or cannot be written.
        CheckpointError: No journal there, or a line other than a torn last one is damaged.
    """

    def __init__(self, folder: str | Path, *, header: Event | None = None) -> None:
        folder = Path(folder).resolve()
        self.path = folder / JOURNAL
        if header is None and not self.path.is_file():
            raise CheckpointError(
                f"expected a study with a {JOURNAL} at {folder}, found none; check the path"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error
        self._lock: _FolderLock | None = _locks.get(folder) or _FolderLock(folder)
        _locks[folder] = self._lock
        self.events, self._size = _read(self.path) if self.path.exists() else ([], 0)
        self._count = len(self.events)
        if not self.events:
            self._begin(header)

    def append(self, event: Event) -> None:
        """Write one event and sync it to the disk; on failure the journal stays as it was.

        Raises:
            DataError: The journal is closed, or the disk is full or gone.
            CheckpointError: Another study has written to the journal since.
        """
        if self._lock is None:
            raise DataError(f"expected an open study, {self.path} was closed; load it again")
        line = _encode(self._count, event)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                self._write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._count += 1
        self._size += len(line)

    def close(self) -> None:
        """Give the folder free; the journal takes no more events."""
        self._lock = None

    def _write(self, descriptor: int, line: bytes) -> None:
        if os.fstat(descriptor).st_size != self._size:
            raise CheckpointError(
                f"expected {self.path} to be as this study left it, found it changed by another "
                "study; load it again and go on with that one"
            )
        try:
            written = 0
            while written < len(line):
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._size)
            raise

    def _begin(self, header: Event | None) -> None:
        if header is None:
            raise CheckpointError(
                f"expected {self.path} to begin with a header, found none; start the study anew"
            )
        line = _encode(0, header)
        publish(self.path, lambda partial: _write_header(partial, line))
        self.events, self._count, self._size = [json.loads(json.dumps(header))], 1, len(line)


def _write_header(partial: Path, line: bytes) -> None:
    partial.write_bytes(line)


def _encode(place: int, event: Event) -> bytes:
    entry = json.dumps({"n": place, **event}, separators=(",", ":"), allow_nan=False).encode()
    return _HEAD + f"{zlib.crc32(entry):08x}".encode() + _JOIN + entry + _TAIL + b"\n"


def _decode(line: bytes, place: int) -> Event | None:
    """Return the event of a line, None when any byte of it is not as it was written."""
    entry = line[_ENTRY : -len(_TAIL)]
    if line != _HEAD + f"{zlib.crc32(entry):08x}".encode() + _JOIN + entry + _TAIL:
        return None
    try:
        event = json.loads(entry)
        return event if event.pop("n") == place else None
    except (ValueError, AttributeError, KeyError, RecursionError):
        return None


def _read(path: Path) -> tuple[list[Event], int]:
    """Return the events of a journal and its length in bytes, cutting a torn last line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"could not read {path}: {error.strerror or error}") from error
    lines = io.BytesIO(content).readlines()
    events: list[Event] = []
    size = 0
    for place, line in enumerate(lines):
        event = _decode(line[:-1], place) if line.endswith(b"\n") else None
        if event is None:
            # A tear leaves a piece of one record; two record heads in one line mean that a
            # line end was damaged, and cutting would lose a whole event.
            if place + 1 < len(lines) or line.count(_HEAD) > 1:
                raise CheckpointError(
                    f"line {place + 1} of {path} does not match its checksum: the journal was "
                    "altered or damaged; restore it from a copy or start the study anew"
                )
            _cut(path, size)
            break
        events.append(event)
        size += len(line)
    return events, size


def _cut(path: Path, size: int) -> None:
    warnings.warn(
        f"the last line of {path} was not written whole and is cut; its event is lost",
        RuntimeWarning,
        stacklevel=5,
    )
    try:
        with path.open("r+b") as stream:
            stream.truncate(size)
            os.fsync(stream.fileno())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DataError:
    try:
        room = f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free)"
    except OSError:
        room = ""
    return DataError(
        f"could not write {path}: {error.strerror or error}{room}; free space or choose another "
        "folder"
    )
