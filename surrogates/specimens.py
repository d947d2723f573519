"""Specimens: a few pictures each, numbers known of them, and one property measured on them."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from microstructures import DataError, MicrostructureDataset
from microstructures.seeds import generator_for

Columns = Mapping[str, Mapping[str, float]]
"""Numbers by the name of the specimen, then by the name of the column."""


@dataclass(frozen=True)
class Specimens:
    """Specimens with their pictures; `owner` is the specimen of each picture.

    `inputs` are the numbers that are known beside the pictures, in the order of their names.
    `measured`, `lower` and `upper` are the property and what it cannot leave, in its own unit;
    None where they are not known.
    """

    names: tuple[str, ...]
    phases: UInt8[Tensor, "picture *space"]
    owner: Int[Tensor, " picture"]
    inputs: Float[Tensor, "specimen input"]
    measured: Float[Tensor, " specimen"] | None = None
    lower: Float[Tensor, " specimen"] | None = None
    upper: Float[Tensor, " specimen"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def gathered(
        cls,
        dataset: MicrostructureDataset,
        columns: Columns,
        *,
        inputs: Sequence[str],
        measured: str | None = None,
        bounds: tuple[float | str, float | str] | None = None,
    ) -> "Specimens":
        """Return the specimens of a data set with their numbers from a table.

        Args:
            dataset: Pictures, each with the name of its specimen.
            columns: The table (`read_columns`).
            inputs: Columns that are known beside the pictures.
            measured: Column of the property; None to predict it.
            bounds: What the property cannot leave: numbers, or the names of columns.

        Raises:
            DataError: A specimen has no row or no picture, or a number is missing.
        """
        names = tuple(dict.fromkeys(dataset.specimens))
        _check_rows(names, columns)
        place = {name: k for k, name in enumerate(names)}

        def column(which: float | str) -> Tensor:
            values = [
                float(which) if not isinstance(which, str) else _entry(columns, name, which)
                for name in names
            ]
            return torch.tensor(values, dtype=torch.float64)

        known = [column(name) for name in inputs]
        lower, upper = (None, None) if bounds is None else (column(bounds[0]), column(bounds[1]))
        return cls(
            names=names,
            phases=dataset.phases,
            owner=torch.tensor([place[name] for name in dataset.specimens]),
            inputs=torch.stack(known, 1) if known else torch.zeros(len(names), 0).double(),
            measured=None if measured is None else column(measured),
            lower=lower,
            upper=upper,
        )

    def select(self, which: Sequence[int] | Int[Tensor, " some"]) -> "Specimens":
        """Return some specimens, in that order, with all of their pictures and no others."""
        rows = torch.as_tensor(which, dtype=torch.int64)
        pictures = [(self.owner == row).nonzero().flatten() for row in rows]
        taken = torch.cat(pictures)
        owner = torch.repeat_interleave(
            torch.arange(len(rows)), torch.tensor([len(part) for part in pictures])
        )
        known = ("measured", "lower", "upper")
        numbers = {
            name: None if (value := getattr(self, name)) is None else value[rows] for name in known
        }
        return replace(
            self,
            names=tuple(self.names[int(row)] for row in rows),
            phases=self.phases[taken],
            owner=owner,
            inputs=self.inputs[rows],
            **numbers,
        )

    def cropped(self, side: int | None, count: int, *, seed: int) -> "Specimens":
        """Return random crops of the pictures: `count` of each specimen, its pictures in turn.

        Where a crop lies depends on (seed, name of the specimen, number of the crop) alone. None
        as the side takes the pictures as they are.

        Raises:
            DataError: The crop is larger than the pictures.
        """
        if side is None:
            return self
        shape = self.phases.shape[1:]
        if side > min(shape):
            raise DataError(
                f"expected a crop of at most the pictures' {min(shape)} voxels, got {side}; give a "
                "smaller one"
            )
        crops = []
        for row, name in enumerate(self.names):
            own = (self.owner == row).nonzero().flatten()
            for k in range(count):
                u = torch.rand(len(shape), generator=generator_for(seed, "crop", name, k))
                picture = self.phases[own[k % len(own)]]
                for axis, share in enumerate(u.tolist()):
                    start = int(share * (shape[axis] - side + 1))
                    picture = picture.narrow(axis, start, side)
                crops.append(picture)
        owner = torch.arange(len(self)).repeat_interleave(count)
        return replace(self, phases=torch.stack(crops), owner=owner)

    def mean(self, values: Float[Tensor, "picture entry"]) -> Float[Tensor, "specimen entry"]:
        """Return the mean over each specimen's pictures."""
        sums = values.new_zeros(len(self), values.shape[1]).index_add(0, self.owner, values)
        return sums / torch.bincount(self.owner, minlength=len(self)).view(-1, 1)


def split_specimens(
    names: Sequence[str], share: float, *, seed: int
) -> tuple[Int[Tensor, " kept"], Int[Tensor, " held_out"]]:
    """Return rows of specimens to keep and to hold out; the same names give the same sides.

    Raises:
        DataError: There are fewer than two specimens.
    """
    if len(names) < 2:
        raise DataError(
            f"expected at least two specimens, got {len(names)}: nothing can be learnt from one "
            "measured value; pictures of one specimen are no samples of others"
        )
    u = [float(torch.rand(1, generator=generator_for(seed, "held out", n))) for n in names]
    order = torch.tensor(u).argsort()
    count = min(max(1, round(share * len(names))), len(names) - 1)
    return order[count:].sort().values, order[:count].sort().values


def read_columns(
    path: str | Path, names: Sequence[str], *, specimen: str = "specimen"
) -> dict[str, dict[str, float]]:
    """Return the named columns of a table (CSV), one row a specimen.

    Raises:
        DataError: No such file, a column is missing, a specimen comes twice, or an entry is no
            finite number; the message names row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"expected a table (CSV) of the specimens, got {path}, which is no file")
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        header = reader.fieldnames or []
        for name in (specimen, *names):
            if name not in header:
                raise DataError(
                    f"{path.name}: expected a column {name!r}, got {', '.join(header) or 'none'}; "
                    "add it, or name another"
                )
        rows: dict[str, dict[str, float]] = {}
        for line, row in enumerate(reader, start=2):
            key = (row[specimen] or "").strip()
            if not key or key in rows:
                raise DataError(
                    f"{path.name}, line {line}: expected one row per specimen, got "
                    f"{'an empty name' if not key else key + ' again'}"
                )
            rows[key] = {
                name: _number(row[name], f"{path.name}, line {line} ({key})", name)
                for name in names
            }
    return rows


def _number(cell: str | None, where: str, column: str) -> float:
    try:
        number = float(cell or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{where}: expected a finite number in column {column!r}, got {cell!r}; fill it in, or "
            "leave the specimen out"
        )
    return number


def _check_rows(names: Sequence[str], columns: Columns) -> None:
    bare = [name for name in names if name not in columns]
    if bare:
        raise DataError(
            f"expected a row of the table for every specimen with pictures, got none for "
            f"{bare[0]!r}{_more(bare)}; add it, or leave its pictures out"
        )
    unseen = [name for name in columns if name not in set(names)]
    if unseen:
        raise DataError(
            f"expected pictures of every specimen in the table, got none of {unseen[0]!r}"
            f"{_more(unseen)}; add them, or leave out the row"
        )


def _entry(columns: Columns, name: str, column: str) -> float:
    if column not in columns[name]:
        raise DataError(
            f"specimen {name!r}: expected a number in column {column!r}, got "
            f"{', '.join(columns[name]) or 'no columns'}"
        )
    value = columns[name][column]
    if not np.isfinite(value):
        raise DataError(
            f"specimen {name!r}: expected a finite number in column {column!r}, got {value}"
        )
    return value


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
