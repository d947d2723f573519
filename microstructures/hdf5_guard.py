"""Looking at an HDF5 file made by others without following it to other files or into objects.

Only hard links, groups and plain datasets pass; h5py would otherwise read other files through
external links, external raw storage and virtual datasets.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from microstructures.errors import DataError
from microstructures.limits import check_inflated, check_number

if TYPE_CHECKING:
    import h5py

GZIP, SHUFFLE, FLETCHER32 = 1, 2, 3
MAX_TEXT_BYTES = 2**20


def open_group(parent: "h5py.Group", name: str) -> "h5py.Group":
    """Return a subgroup that is reached by a hard link.

    Raises:
        DataError: It is missing, a link of another kind, or not a group.
    """
    import h5py

    _check_link(parent, name)
    group = parent[name]
    if not isinstance(group, h5py.Group):
        raise DataError(f"expected {group.name} to be a group, got a dataset")
    return group


def open_numbers(group: "h5py.Group", name: str) -> "h5py.Dataset":
    """Return a dataset of numbers that lies in this file, not yet read.

    Raises:
        DataError: A link, external or virtual storage, another type, or an unknown filter.
    """
    dataset = _open_dataset(group, name)
    check_number(dataset.dtype)
    if dataset.dtype.metadata:
        raise DataError(f"expected plain numbers in {dataset.name}, got {dataset.dtype.metadata}")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if filters != [f for f in (SHUFFLE, GZIP, FLETCHER32) if f in filters]:
        raise DataError(
            f"expected {dataset.name} uncompressed or with gzip, got the filters {filters}; write "
            "it again with one of these"
        )
    if dataset.chunks and math.prod(dataset.chunks) > 64 * max(math.prod(dataset.shape), 2**16):
        raise DataError(f"expected chunks no larger than {dataset.name}, got {dataset.chunks}")
    return dataset


def check_chunks(dataset: "h5py.Dataset") -> None:
    """Refuse a gzip block of the wrong length: HDF5 itself would unpack it to any length.

    Raises:
        DataError: A block does not unpack to the size of a chunk.
    """
    if dataset.chunks is None or dataset.compression != "gzip":
        return
    expected = math.prod(dataset.chunks) * dataset.dtype.itemsize

    def check(chunk: Any) -> None:
        check_inflated(dataset.id.read_direct_chunk(chunk.chunk_offset)[1], expected)

    dataset.id.chunk_iter(check)


def read_text(group: "h5py.Group", name: str) -> str:
    """Return a dataset that holds one fixed-length text of at most 1 MiB.

    Raises:
        DataError: Anything else.
    """
    dataset = _open_dataset(group, name)
    if dataset.shape != () or dataset.dtype.kind != "S" or dataset.dtype.itemsize > MAX_TEXT_BYTES:
        raise DataError(f"expected a text in {dataset.name}, got {dataset.dtype} {dataset.shape}")
    return dataset[()].decode()


def read_attribute(group: "h5py.Group", name: str, length: int) -> Any:
    """Return an attribute: `length` numbers as a list, or a text for length 0.

    Raises:
        DataError: It is missing, or of another type or length.
    """
    import h5py

    if name not in group.attrs:
        raise DataError(f"expected the attribute {name} on {group.name}, found none")
    record = group.attrs.get_id(name)
    text = record.dtype.kind == "S" or h5py.check_string_dtype(record.dtype) is not None
    kind_fits = text if length == 0 else record.dtype.kind in "iuf"
    if not kind_fits or record.shape not in (() if length == 0 else (length,), (max(length, 1),)):
        raise DataError(
            f"expected {length or 'a text, not'} numbers in {name} of {group.name}, got "
            f"{record.dtype} of shape {record.shape}"
        )
    value = np.asarray(group.attrs[name]).ravel()
    if length:
        return value.tolist()
    return value[0].decode("ascii", "replace") if isinstance(value[0], bytes) else str(value[0])


def _open_dataset(group: "h5py.Group", name: str) -> "h5py.Dataset":
    import h5py

    _check_link(group, name)
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise DataError(f"expected {dataset.name} to be a dataset, got {type(dataset).__name__}")
    if dataset.external or dataset.is_virtual:
        raise DataError(
            f"expected the data of {dataset.name} in the file itself, it points to other files; "
            "copy it into one file (h5repack)"
        )
    return dataset


def _check_link(group: "h5py.Group", name: str) -> None:
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        raise DataError(f"expected {name!r} in {group.name}, found none of that name")
    if not isinstance(link, h5py.HardLink):
        raise DataError(
            f"expected {name!r} in {group.name} to be in the file itself, it is a "
            f"{type(link).__name__}; copy the data in place of the link"
        )
