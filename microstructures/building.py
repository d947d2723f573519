"""The folder in which a dataset gathers its shards until it is complete."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microstructures.errors import CheckpointError, DataError
from microstructures.publishing import MANIFEST, open_verified, publish, publish_json, sha256

_JOB = "job.json"
# The name carries the start of the content's hash, so that damage before `finish` is noticed.
_GATHERED = re.compile(r"shard-(\d{5,9})\.([0-9a-f]{16})\.h5")


def shard_name(index: int) -> str:
    """Return the file name of a shard in a finished dataset."""
    return f"shard-{index:05d}.h5"


class Building:
    """Shards that are there so far, in `FOLDER.building` beside the dataset's folder.

    Args:
        folder: The dataset's folder.
        job: JSON-able description; equal descriptions continue each other's work.
        kind: The finished folder's kind.

    Raises:
        DataError: The folder holds something else, or work of another job.
        CheckpointError: The finished dataset is damaged.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], *, kind: str) -> None:
        self.folder = folder.with_name(f"{folder.name}.building")
        self._target = folder
        self._job = json.loads(json.dumps(job, allow_nan=False))
        self._shards_made = self._finished_shards(kind)
        if self.finished:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif os.path.exists(self.folder / _JOB):
            self._check_job(_read_job(self.folder / _JOB), self.folder)
        else:
            publish_json(self.folder / _JOB, self._job)

    @property
    def finished(self) -> bool:
        """Whether the dataset stands complete under its name."""
        return self._shards_made is not None

    def present(self) -> dict[int, Path]:
        """Return the gathered shards by number.

        Raises:
            DataError: Two different versions of a shard.
        """
        shards: dict[int, Path] = {}
        for path in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            match = _GATHERED.fullmatch(path.name)
            if match is None:
                continue
            if int(match[1]) in shards:
                raise DataError(
                    f"expected one version of shard {int(match[1])} in {self.folder}, found two "
                    "with different content; delete that folder and start again"
                )
            shards[int(match[1])] = path
        return shards

    def missing(self, n_shards: int) -> list[int]:
        """Return the numbers below `n_shards` that are not there yet.

        Raises:
            DataError: There are more shards than `n_shards`.
        """
        if n_shards < 1:
            raise DataError(f"expected at least one shard, got {n_shards}")
        present = range(self._shards_made) if self._shards_made is not None else self.present()
        beyond = [k for k in present if k >= n_shards]
        if beyond or (self.finished and len(present) < n_shards):
            raise DataError(
                f"expected {n_shards} shards in {self._target}, found shards up to "
                f"{max(present)} of an earlier run; choose another folder or delete it"
            )
        return [k for k in range(n_shards) if k not in present]

    def add(self, index: int, content: bytes) -> None:
        """Publish one shard; the same content again changes nothing.

        Raises:
            DataError: It was made before with other content, the number is no number, or the
                disk is full.
        """
        if not 0 <= index < 10**9:
            raise DataError(f"expected a shard number from 0, got {index}")
        if self.finished:
            raise DataError(f"expected an unfinished dataset at {self._target}, it is complete")
        digest = hashlib.sha256(content).hexdigest()[:16]
        path = self.folder / f"shard-{index:05d}.{digest}.h5"
        if self.present().get(index, path) != path:
            raise DataError(
                f"shard {index} in {self.folder} was made before with other content; delete that "
                "folder and start again"
            )
        publish(path, lambda partial: _write(partial, content))

    def complete_shards(self, n_shards: int | None) -> list[Path]:
        """Return all shards in order, each checked against the hash in its name.

        Raises:
            DataError: Some are missing.
            CheckpointError: One was damaged.
        """
        present = self.present()
        expected = n_shards if n_shards is not None else max(present, default=0) + 1
        lacking = [k for k in range(expected) if k not in present]
        if lacking or not present:
            raise DataError(
                f"expected {expected} shards in {self.folder}, {len(lacking)} are missing, the "
                f"first is shard {lacking[0]}; repeat the command to make them"
            )
        for path in present.values():
            if not sha256(path).startswith(path.name.split(".")[-2]):
                raise CheckpointError(
                    f"{path} was altered or damaged since it was made; delete it and repeat the "
                    "command"
                )
        return [present[k] for k in sorted(present)]

    def place(self, paths: Sequence[Path], folder: Path) -> None:
        """Put the shards into a folder under their final names, without a second copy on disk."""
        for index, path in enumerate(paths):
            target = folder / shard_name(index)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)

    def _finished_shards(self, kind: str) -> int | None:
        folder = self._target
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise DataError(f"expected a folder at {folder}, found a file; choose another name")
        if not os.path.exists(folder / MANIFEST):
            if os.path.exists(folder) and any(folder.iterdir()):
                raise DataError(
                    f"expected {folder} to be new or empty, found other files in it; choose "
                    "another output folder"
                )
            return None
        about = open_verified(folder, kind=kind)
        self._check_job({key: about.get(key) for key in self._job}, folder)
        return len(about["samples_per_shard"])

    def _check_job(self, found: Any, where: Path) -> None:
        if found != self._job:
            raise DataError(
                f"{where} holds a dataset made from other settings or inputs; choose another "
                "output folder or delete it"
            )


def _read_job(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} does not read; delete its folder and repeat") from error


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
