"""The CSV table that says which process made each label map."""

import csv
import io
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from microstructures.errors import DataError
from microstructures.process_space import Parameter, ProcessSpace
from microstructures.structure import ProcessValue

MAX_TABLE_BYTES = 64 * 2**20
_NAME_AND_UNIT = re.compile(r"(.*?)\s*\[(.*)\]")


class ColumnSettings(BaseModel):
    """One process parameter and the column that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, description="name in the process, e.g. anneal_temperature_c")
    unit: str | None = Field(None, description='unit, "-" for none; from the header when absent')
    low: float | None = Field(None, description="lower bound; the smallest value when absent")
    high: float | None = Field(None, description="upper bound; the largest value when absent")
    scale: Literal["linear", "log", "integer", "choice"] | None = Field(
        None, description="linear for numbers and choice for words when absent"
    )
    choices: tuple[str, ...] = Field((), description="categories; those in the table when absent")
    column: str | None = Field(None, description="column; `name [unit]` or `name` when absent")


class TableSettings(BaseModel):
    """How to read the table."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    file_column: str = Field("file", description="column with the map's path inside the folder")
    parameters: tuple[ColumnSettings, ...] = Field(
        (), description="process parameters; every column `name [unit]` is one without this"
    )
    other_columns: tuple[str, ...] = Field((), description="columns that are not used")
    specimen_column: str | None = Field(
        None, description="column with the specimen; each map its own specimen when absent"
    )
    voxel_size_column: str | None = Field(None, description="column with the voxel edge in um")
    voxel_size_um: PositiveFloat | None = Field(
        None, description="voxel edge of every map in um; 1 or what the file says when absent"
    )
    where: dict[str, str] = Field({}, description="use only rows where a column has this value")
    exclude: tuple[str, ...] = Field((), description="maps to leave away, by name without suffix")
    leave_out: tuple[dict[str, float | str], ...] = Field(
        (), description="processes whose samples go to the dataset OUT-left-out"
    )
    allow_unknown: bool = Field(False, description="an empty cell means unknown")


@dataclass(frozen=True)
class MapRow:
    """One label map with what the table says about it."""

    file: str
    process: dict[str, ProcessValue]
    specimen: str
    voxel_size_um: float | None
    left_out: bool


@dataclass(frozen=True)
class _Record:
    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class _Column:
    header: str
    unit: str
    settings: ColumnSettings


def read_process_table(
    path: str | Path, settings: TableSettings, *, files: Collection[str]
) -> tuple[ProcessSpace, list[MapRow]]:
    """Return the process space and the rows of the maps to use, in the table's order.

    Args:
        path: A CSV file with a header: UTF-8, commas, one row per map.
        settings: How to read it.
        files: The maps that the folder holds, as paths inside it with forward slashes.

    Raises:
        DataError: One sentence with the table, the line and column, what was expected and what
            came: a column that is not known or has no unit, a map without row, a row without
            map, an empty cell, NaN, a word for a number, a value outside its bounds.
    """
    path = Path(path)
    try:
        header, records = _read_csv(path)
        columns = _parameter_columns(header, settings)
        chosen = _rows_with_maps(records, settings, files)
        space = ProcessSpace([_parameter(c, chosen, settings) for c in columns])
        rows = [_map_row(record, columns, space, settings) for record in chosen]
        _check_leave_out(rows, space, settings)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return space, rows


def _read_csv(path: Path) -> tuple[list[str], list[_Record]]:
    try:
        if not path.is_file():
            raise DataError("expected a CSV table there, found none; check the path")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise DataError(f"expected a table of at most 64 MB, got {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(reader, [])]
        records = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"line {reader.line_num}: expected {len(header)} cells as in the header, got "
                    f"{len(cells)}"
                )
            stripped = (cell.strip() for cell in cells)
            records.append(_Record(reader.line_num, dict(zip(header, stripped, strict=True))))
    except OSError as error:
        raise DataError(f"could not be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected a CSV table as UTF-8 text, got {error}") from error
    double = sorted({name for name in header if header.count(name) > 1})
    if double or "" in header:
        raise DataError(
            f"expected distinct column names, got {', '.join(double) or 'an empty one'}"
        )
    if not records:
        raise DataError("expected a header and at least one row, got no rows")
    return header, records


def _parameter_columns(header: list[str], settings: TableSettings) -> list[_Column]:
    columns = [_declared_column(header, declared) for declared in settings.parameters]
    named = {settings.file_column, *settings.where, *settings.other_columns}
    named |= {c for c in (settings.specimen_column, settings.voxel_size_column) if c is not None}
    lacking = sorted(named - set(header) - set(settings.other_columns))
    if lacking:
        raise DataError(
            f"expected the columns {', '.join(lacking)}, got {', '.join(header)}; name the right "
            "ones in the settings"
        )
    taken = named | {c.header for c in columns}
    for name in header:
        match = _NAME_AND_UNIT.fullmatch(name)
        if name in taken:
            continue
        if match is None or not match[1] or not match[2].strip():
            raise DataError(
                f'unknown column {name!r}: expected the unit in the header, as in "{name} [K]", '
                "for a process parameter; or list it in other_columns"
            )
        given = ColumnSettings.model_validate({"name": match[1]})
        columns.append(_Column(name, match[2].strip(), given))
    if not columns:
        raise DataError(
            "expected at least one process parameter, got none; write its column as `name [unit]` "
            "or declare it under parameters"
        )
    return columns


def _declared_column(header: list[str], declared: ColumnSettings) -> _Column:
    wanted = declared.column or declared.name
    with_unit = {m[1]: name for name in header if (m := _NAME_AND_UNIT.fullmatch(name))}
    name = wanted if wanted in header else with_unit.get(wanted)
    if name is None:
        raise DataError(
            f"expected the column {wanted} of parameter {declared.name}, got {', '.join(header)}"
        )
    match = _NAME_AND_UNIT.fullmatch(name)
    in_header = match[2].strip() if match else None
    unit = declared.unit or in_header
    if not unit:
        raise DataError(
            f'expected a unit for parameter {declared.name}, got none; give its unit ("-" for none)'
        )
    if in_header and unit != in_header:
        raise DataError(
            f"expected {declared.name} in {unit} as in the settings, the header says {in_header}"
        )
    return _Column(name, unit, declared)


def _rows_with_maps(
    records: list[_Record], settings: TableSettings, files: Collection[str]
) -> list[_Record]:
    by_file: dict[str, _Record] = {}
    for record in records:
        file = _inside(record, settings.file_column)
        if file in by_file:
            raise DataError(f"line {record.line}: expected one row per map, got a second of {file}")
        by_file[file] = record
    stems = {PurePosixPath(file).stem for file in (*by_file, *files)}
    unknown = sorted(set(settings.exclude) - stems)
    if unknown:
        raise DataError(f"expected the excluded maps to exist, found no map {', '.join(unknown)}")
    kept = {f: r for f, r in by_file.items() if PurePosixPath(f).stem not in settings.exclude}
    orphans = [
        f for f in files if f not in by_file and PurePosixPath(f).stem not in settings.exclude
    ]
    if orphans:
        raise DataError(
            f"expected a row for the map {orphans[0]}, found none{_and_more(orphans)}; add the row "
            "or exclude the map"
        )
    chosen = {
        file: record
        for file, record in kept.items()
        if all(record.cells[column] == value for column, value in settings.where.items())
    }
    lacking = [f"{file} (line {r.line})" for file, r in chosen.items() if file not in set(files)]
    if lacking:
        raise DataError(
            f"expected the map {lacking[0]} in the folder, found none{_and_more(lacking)}; add the "
            "map or exclude it"
        )
    if not chosen:
        raise DataError(f"expected rows where {dict(settings.where)}, found none")
    return list(chosen.values())


def _inside(record: _Record, column: str) -> str:
    file = record.cells[column].replace("\\", "/")
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or "\0" in file:
        raise DataError(
            f"line {record.line}: expected the path of a map inside the folder in column "
            f"{column!r}, got {file!r}"
        )
    return str(path)


def _parameter(column: _Column, records: list[_Record], settings: TableSettings) -> Parameter:
    given, name = column.settings, column.header
    cells = [(r, r.cells[name]) for r in records]
    empty = [r.line for r, cell in cells if not cell]
    if empty and not settings.allow_unknown:
        raise DataError(
            f"line {empty[0]}: expected a value in column {name!r}, got an empty cell; fill it in, "
            "exclude the map, or set allow_unknown"
        )
    filled = [(r, cell) for r, cell in cells if cell]
    words = filled and not any(_looks_like_number(cell) for _, cell in filled)
    scale = given.scale or ("choice" if given.choices or words else "linear")
    if scale == "choice":
        choices = given.choices or tuple(sorted({cell for _, cell in filled}))
        if len(choices) < 2 and not given.choices:
            got = f"only {', '.join(choices)!r}" if choices else "none"
            raise DataError(
                f"expected different values in column {name!r}, got {got}; give "
                "choices under parameters, or list it in other_columns"
            )
        return Parameter(given.name, column.unit, scale="choice", choices=choices)
    numbers = [_number(record, name) for record, _ in filled]
    low = given.low if given.low is not None else min(numbers, default=None)
    high = given.high if given.high is not None else max(numbers, default=None)
    if low is None or high is None or (low == high and None in (given.low, given.high)):
        raise DataError(
            f"expected different values in column {name!r}, got only {low}; give low and high "
            "under parameters, or list it in other_columns"
        )
    return Parameter(given.name, column.unit, low, high, scale)


def _map_row(
    record: _Record, columns: list[_Column], space: ProcessSpace, settings: TableSettings
) -> MapRow:
    process: dict[str, ProcessValue] = {}
    for column, parameter in zip(columns, space, strict=True):
        cell = record.cells[column.header]
        if not cell:
            process[parameter.name] = None
        elif parameter.scale == "choice":
            process[parameter.name] = cell
        else:
            process[parameter.name] = _number(record, column.header)
    try:
        space.to_unit(process)
    except DataError as error:
        raise DataError(f"line {record.line}: {error}") from error
    file = _inside(record, settings.file_column)
    return MapRow(
        file=file,
        process=process,
        specimen=_specimen(record, file, settings),
        voxel_size_um=_voxel_size(record, settings),
        left_out=any(_matches(process, held) for held in settings.leave_out),
    )


def _specimen(record: _Record, file: str, settings: TableSettings) -> str:
    if settings.specimen_column is None:
        return file
    specimen = record.cells[settings.specimen_column]
    if not specimen:
        raise DataError(
            f"line {record.line}: expected a specimen in column {settings.specimen_column!r}, got "
            "an empty cell"
        )
    return specimen


def _voxel_size(record: _Record, settings: TableSettings) -> float | None:
    if settings.voxel_size_column is None:
        return settings.voxel_size_um
    size = _number(record, settings.voxel_size_column)
    if size <= 0:
        raise DataError(
            f"line {record.line}: expected a voxel size above 0 in column "
            f"{settings.voxel_size_column!r}, got {size:g}"
        )
    return size


def _check_leave_out(rows: list[MapRow], space: ProcessSpace, settings: TableSettings) -> None:
    for held in settings.leave_out:
        if not held or not set(held) <= set(space.names):
            raise DataError(
                f"expected leave_out to name process parameters ({', '.join(space.names)}), got "
                f"{held}"
            )
        if not any(_matches(row.process, held) for row in rows):
            raise DataError(f"expected maps made at {held} to leave out, found none")
    if all(row.left_out for row in rows):
        raise DataError("expected maps to train on, got all of them left out")


def _matches(process: Mapping[str, ProcessValue], held: Mapping[str, float | str]) -> bool:
    return all(_equal(process.get(name), value) for name, value in held.items())


def _equal(value: ProcessValue, held: float | str) -> bool:
    if value is None or isinstance(value, str) or isinstance(held, str):
        return value is not None and str(value) == str(held)
    return math.isclose(value, held, rel_tol=1e-6, abs_tol=1e-12)


def _number(record: _Record, column: str) -> float:
    cell = record.cells[column]
    try:
        number = float(cell)
    except ValueError:
        number = None
    if number is None or not math.isfinite(number):
        raise DataError(
            f"line {record.line}: expected a finite number in column {column!r}, got {cell!r}"
        )
    return number


def _looks_like_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
