"""The door for foreign label maps: axes, labels, round trips, and everything it must refuse."""

import contextlib
import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from microstructures import DataError, Microstructure
from microstructures.pictures import write_picture
from microstructures.reading import read_microstructure

ASYMMETRIC = np.array([[0, 1, 2], [3, 4, 5]], dtype=np.uint8)  # two rows (y), three columns (x)

# Files are rewritten by every example, so one folder for all of them is right.
in_one_folder = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def labels(axes: int) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=axes, max_dims=axes, min_side=2, max_side=6),
        elements=st.integers(0, 5),
    )


# Axes: picture columns are direction 1, rows direction 2, pages direction 3.


def test_png_columns_are_direction_1(tmp_path: Path) -> None:
    Image.fromarray(ASYMMETRIC).save(tmp_path / "map.png")
    assert np.array_equal(read_microstructure(tmp_path / "map.png").phases, ASYMMETRIC.T)


@pytest.mark.parametrize("compression", [None, "zlib", "packbits"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_tiff_pages_are_direction_3(
    tmp_path: Path, compression: str | None, tile: tuple[int, int] | None
) -> None:
    if compression == "packbits":  # tifffile itself cannot write it without imagecodecs
        pictures = [Image.fromarray(ASYMMETRIC + k) for k in range(4)]
        pictures[0].save(
            tmp_path / "s.tif", save_all=True, append_images=pictures[1:], compression="packbits"
        )
    else:
        stack = np.stack([ASYMMETRIC + k for k in range(4)])
        tifffile.imwrite(
            tmp_path / "s.tif", stack, compression=compression, tile=tile, photometric="minisblack"
        )
    phases = read_microstructure(tmp_path / "s.tif").phases
    assert phases.shape == (3, 2, 4)
    assert phases[2, 0, 3] == ASYMMETRIC[0, 2] + 3


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, np.float32])
def test_npy_is_taken_as_stored(tmp_path: Path, dtype: type) -> None:
    stored = (ASYMMETRIC > 2).astype(dtype)
    np.save(tmp_path / "map.npy", np.asfortranarray(stored))
    assert np.array_equal(read_microstructure(tmp_path / "map.npy").phases, stored)


def test_npz_key_chooses_the_array(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, phase=ASYMMETRIC, grey=ASYMMETRIC * 2)
    assert np.array_equal(read_microstructure(path, key="phase").phases, ASYMMETRIC)
    with pytest.raises(DataError, match=r"found 2 \(grey, phase\); choose one with key="):
        read_microstructure(path)
    with pytest.raises(DataError, match="an array named 'gray', found grey, phase"):
        read_microstructure(path, key="gray")
    np.savez(path, only=ASYMMETRIC)
    assert np.array_equal(read_microstructure(path).phases, ASYMMETRIC)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_png_of_few_bits_gives_stored_values(tmp_path: Path, bits: int) -> None:
    highest = 2**bits - 1
    path = tmp_path / "few.png"
    path.write_bytes(grey_png(np.array([[0, highest, highest - 1, 1]]), bits))
    assert read_microstructure(path).phases[:, 0].tolist() == [0, highest, highest - 1, 1]


def test_palette_png_gives_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(ASYMMETRIC, mode=None).convert("L")
    indexed = Image.frombytes("P", picture.size, ASYMMETRIC.tobytes())
    indexed.putpalette([250, 10, 10, 10, 250, 10] + [7] * 762)
    indexed.save(tmp_path / "p.png")
    assert np.array_equal(read_microstructure(tmp_path / "p.png").phases, ASYMMETRIC.T)


@in_one_folder
@given(phases=labels(2) | labels(3))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_picture_round_trip(tmp_path: Path, phases: np.ndarray, suffix: str) -> None:
    written = Microstructure(phases, periodic=(False,))
    path = tmp_path / f"map{suffix}"
    if suffix == ".png" and phases.ndim == 3:
        with pytest.raises(DataError, match="2-D image for a PNG"):
            write_picture(written, path)
        return
    assert write_picture(written, path) == path
    assert np.array_equal(read_microstructure(path).phases, phases)


def test_picture_of_another_kind_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a \.png, \.tif or \.tiff picture, got '\.jpg'"):
        write_picture(Microstructure(ASYMMETRIC), tmp_path / "map.jpg")
    assert not list(tmp_path.iterdir())


# Labels.


def test_values_map_stored_values_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([[0, 255], [255, 255]], dtype=np.uint8))
    read = read_microstructure(
        tmp_path / "mask.npy", values=(255, 0, 7), voxel_size_um=0.5, periodic=(True, False)
    )
    assert read.phases.tolist() == [[1, 0], [0, 0]]
    assert (read.n_phases, read.voxel_size_um, read.periodic) == (3, 0.5, (True, False))


@pytest.mark.parametrize(
    ("stored", "values", "message"),
    [
        (np.array([[0.0, 0.5]]), None, r"whole labels from 0 to 255, found 0\.0, 0\.5; .*values="),
        (np.array([[0.0, np.nan]]), None, "found 0.0, nan"),
        (np.array([[0.0, np.inf]]), None, "found 0.0, inf"),
        (np.array([[0, 256]]), None, "found 0, 256"),
        (np.array([[-1, 2]]), None, "found -1, 2"),
        (np.arange(1000, 1020)[None], None, "1007 and 12 more"),
        (np.array([[0, 128, 255]]), (0, 255), r"unknown labels 128: expected only \(0, 255\)"),
        (np.array([[0.0, np.nan]]), (0, 1), "unknown labels nan"),
        (np.array([[0, 1]]), (0, 0), "1 to 256 distinct values"),
        (np.array([0, 1]), None, "2 or 3 axes"),
        (np.zeros((2, 0)), None, "at least one voxel"),
        (np.zeros((2, 2, 2, 2)), None, "2 or 3 axes"),
    ],
)
def test_what_is_not_a_label_is_refused(
    tmp_path: Path, stored: np.ndarray, values: tuple[int, ...] | None, message: str
) -> None:
    np.save(tmp_path / "map.npy", stored)
    with pytest.raises(DataError, match=message) as caught:
        read_microstructure(tmp_path / "map.npy", values=values)
    assert str(caught.value).startswith(str(tmp_path / "map.npy"))


# Hostile and damaged files.


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def grey_png(rows: np.ndarray, bits: int, *, declared: tuple[int, int] | None = None) -> bytes:
    width, height = declared or (rows.shape[1], rows.shape[0])
    lines = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npy_declaring(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + content


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def tiff(*pages: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for page in pages:
            writer.write(page, metadata=None, contiguous=False, **options)
    return stream.getvalue()


def tiff_with(tag: int, value: int, **options: Any) -> bytes:
    """A one-page 8 x 32 TIFF with one tag overwritten in place."""
    content = bytearray(tiff(np.zeros((32, 8), np.uint8), photometric="minisblack", **options))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as opened:
        entry = opened.pages[0].tags[tag]  # pyright: ignore[reportAttributeAccessIssue]
        width = {3: "<H", 4: "<I"}[int(entry.dtype)]
        struct.pack_into(width, content, entry.valueoffset, value)
    return bytes(content)


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch hostile-code-ran",)


HOSTILE = {
    "empty": (b"", "begins with b''"),
    "text": (b"not a picture", "begins with"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), "JPEG blurs labels"),
    "png cut in the header": (grey_png(ASYMMETRIC, 8)[:20], "cut short"),
    "png cut in the pixels": (grey_png(ASYMMETRIC, 8)[:50], "cut short"),
    "png of too few rows": (
        grey_png(ASYMMETRIC, 8, declared=(3, 9)),
        "expected 36 bytes .* unpacks to 8",
    ),
    "png of 2e18 pixels": (grey_png(ASYMMETRIC, 8, declared=(2**30, 2**31 - 1)), "max_voxels"),
    "png bomb": (grey_png(ASYMMETRIC, 8, declared=(30000, 30000)), "trust=True"),
    "npy of objects": (npy(np.array([[Marker()]], dtype=object)), "integers or floats"),
    "npy of text": (npy(np.array([["a"]])), "integers or floats"),
    "npy of records": (npy(np.zeros((2, 2), dtype="i4,f4")), "integers or floats"),
    "npy of complex": (npy(np.zeros((2, 2), dtype=complex)), "integers or floats"),
    "npy cut short": (npy(ASYMMETRIC)[:-1], "cut short"),
    "npy with more behind": (npy(ASYMMETRIC) + b"x", "cut short or damaged"),
    "npy of 1e18 voxels": (npy_declaring((10**9, 10**9)), "max_voxels"),
    "npy of negative shape": (npy_declaring((-2, -3), b"123456"), "at least one voxel"),
    "npy of wild header": (b"\x93NUMPY\x01\x00\x10\x00" + b"{" * 16, "readable NPY"),
    "npy of version 9": (b"\x93NUMPY\x09\x00" + bytes(32), "NPY"),
    "npz bomb": (npz(a=npy_declaring((300, 10**6), bytes(3 * 10**8))), "trust=True"),
    "npz of objects": (npz(a=npy(np.array([[Marker()]], dtype=object))), "integers or floats"),
    "npz cut short": (npz(a=npy(ASYMMETRIC))[:-30], "readable NPZ"),
    "npz without arrays": (npz(), "begins with"),
    "npz of something else": (npz(a=b"hello"), "readable NPZ"),
    "tiff header only": (b"II*\0\x08\0\0\0", "TIFF"),
    "tiff cut short": (
        tiff(np.zeros((64, 64), np.uint8), photometric="minisblack")[:-900],
        "inside",
    ),
    "tiff of colour": (tiff(np.zeros((4, 4, 3), np.uint8), photometric="rgb"), "one channel"),
    "tiff of unequal pages": (tiff(ASYMMETRIC, ASYMMETRIC.T), "pages of one shape and type"),
    "tiff of fewer rows": (tiff_with(257, 16), "strip|bytes"),
    "tiff of more rows": (tiff_with(257, 64), "strip|bytes|inside"),
    "tiff of more columns": (tiff_with(256, 16), "bytes"),
    "tiff of other bits": (tiff_with(258, 16), "bytes"),
    "tiff of 4e9 columns": (tiff_with(256, 2**32 - 1), "max_voxels|strip"),
    "deflated tiff of fewer rows": (tiff_with(257, 16, compression="zlib"), "unpacks to more"),
    "deflated tiff of more columns": (tiff_with(256, 16, compression="zlib"), "unpacks to 256"),
    "tiff said to be jpeg": (tiff_with(259, 7), "without loss"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_in_one_sentence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "foreign.bin"
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message) as caught:
            read_microstructure(path)
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["foreign.bin"]


def test_colour_pictures_are_refused(tmp_path: Path) -> None:
    for mode in ("RGB", "RGBA", "LA"):
        Image.new(mode, (3, 2)).save(tmp_path / "color.png")
        with pytest.raises(DataError, match="one channel"):
            read_microstructure(tmp_path / "color.png")


def test_overlapping_strips_are_a_bomb(tmp_path: Path) -> None:
    """All strips point to the same bytes: the file's size counts, not the sum of the strips."""
    rows, columns = 8000, 16000
    at = 8 + columns
    tags = [(256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 1), (273, 4, rows, at), (278, 4, 1, 1), (279, 4, rows, at + 4 * rows)]
    content = struct.pack("<2sHI", b"II", 42, at + 8 * rows) + bytes(columns)
    content += struct.pack("<I", 8) * rows + struct.pack("<I", columns) * rows
    content += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    path = tmp_path / "bomb.tif"
    path.write_bytes(content + bytes(4))
    with pytest.raises(DataError, match="declares 128000000 bytes in 80110 stored ones"):
        read_microstructure(path)
    with pytest.raises(DataError, match="at most 1000 voxels"):
        read_microstructure(path, max_voxels=1000)


def test_trust_opens_a_file_that_grows_much(tmp_path: Path) -> None:
    path = tmp_path / "one_phase.npz"
    np.savez_compressed(path, a=np.zeros((8200, 8200), np.uint8))
    with pytest.raises(DataError, match="trust=True"):
        read_microstructure(path)
    assert read_microstructure(path, trust=True).shape == (8200, 8200)


def test_description_cannot_redefine_the_shape(tmp_path: Path) -> None:
    """An ImageJ hyperstack with one page and many described slices is not read as one slice."""
    path = tmp_path / "hyperstack.tif"
    stack = np.zeros((5, 8, 8), np.uint8)
    tifffile.imwrite(path, stack, truncate=True, shaped=True, photometric="minisblack")
    with pytest.raises(DataError, match="320 voxels that the file describes"):
        read_microstructure(path)


@pytest.mark.parametrize("name", ["missing.png", "."])
def test_path_that_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="expected a file of labels"):
        read_microstructure(tmp_path / name)


def test_key_needs_a_file_with_names(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", ASYMMETRIC)
    with pytest.raises(DataError, match="key only with"):
        read_microstructure(tmp_path / "map.npy", key="phase")


@settings(max_examples=150, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    name=st.sampled_from(["png", "tiff", "deflated tiff", "npy", "npz"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    kept=st.floats(0.2, 1),
)
def test_mutated_files_give_labels_or_a_data_error(
    tmp_path: Path, name: str, flips: list[tuple[float, int]], kept: float
) -> None:
    content = bytearray(MUTABLE[name][: max(8, int(kept * len(MUTABLE[name])))])
    for where, value in flips:
        content[int(where * len(content))] = value
    path = tmp_path / "mutated"
    path.write_bytes(content)
    with contextlib.suppress(DataError):  # anything else fails the test
        assert read_microstructure(path, max_voxels=10**6).phases.size <= 10**6


VOLUME = np.indices((3, 5, 7)).sum(0).astype(np.uint8)
MUTABLE = {
    "png": grey_png(ASYMMETRIC, 8),
    "tiff": tiff(*VOLUME, photometric="minisblack"),
    "deflated tiff": tiff(*VOLUME, photometric="minisblack", compression="zlib"),
    "npy": npy(VOLUME),
    "npz": npz(a=npy(VOLUME)),
}
