"""VTKHDF: ParaView's reader sees the right numbers in the right cells, and all comes back."""

import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pyvista
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microstructures import DataError, Microstructure
from microstructures.reading import read_microstructure
from microstructures.structure import GeneratedMicrostructure
from microstructures.vtkhdf import mandel_to_tensor, tensor_to_mandel, write_vtkhdf

SHAPES = [(3, 4), (3, 4, 5)]
PROCESS = {"temperature_k": 1023.5, "passes": 3, "quench": "oil", "time_h": None, "C/Si": 0.4}


def sample(shape: tuple[int, ...], seed: int = 0) -> Microstructure:
    rng = np.random.default_rng(seed)
    n = 3 * (len(shape) - 1)
    return Microstructure(
        rng.integers(0, 3, shape),
        voxel_size_um=0.3,
        periodic=(True, *[False] * (len(shape) - 1)),
        process=PROCESS,
        phase_names=("ferrite", "Zementit Fe₃C", "pore", "<b>absent</b>"),
        channels={
            "stress": rng.normal(size=(n, *shape)),
            "strain mean": rng.normal(size=(n, *shape)).astype(np.float32),
            "displacement": rng.normal(size=(len(shape), *shape)),
            "orientation": rng.normal(size=(4, *shape)).astype(np.float32),
            "gradient": rng.normal(size=(2, 3, *shape)),
            "grain": rng.integers(-5, 1000, shape),
            "grey": rng.random(shape).astype(np.float16),
            "surface": rng.random(shape) > 0.5,
            "one": rng.random((1, *shape)).astype(">f8"),
        },
    )


def cell(grid: Any, name: str, *index: int) -> np.ndarray:
    """Value of the cell whose centre is at voxel index + 1/2."""
    at = (np.array((*index, 0)[:3]) + 0.5) * grid.spacing
    return grid.cell_data[name][grid.find_containing_cell(at)]


@pytest.mark.parametrize("shape", SHAPES)
def test_paraview_reader_sees_every_voxel_in_its_place(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    written = sample(shape)
    grid = pyvista.read(write_vtkhdf(written, tmp_path / "s.vtkhdf"))
    assert isinstance(grid, pyvista.ImageData)
    assert grid.spacing == (0.3, 0.3, 0.3)
    assert grid.dimensions == tuple(n + 1 for n in (*shape, 1)[:3])
    displacement = written.channels["displacement"]
    for index in np.ndindex(shape):
        assert cell(grid, "phase", *index) == written.phases[index]
        moved = cell(grid, "displacement", *index)
        assert np.array_equal(moved[: len(shape)], displacement[:, *index])
        assert np.all(moved[len(shape) :] == 0)
    assert grid.cell_data["phase"].dtype == np.uint8
    assert {k: float(v[0]) for k, v in grid.field_data.items()} == {
        "temperature_k": 1023.5,
        "passes": 3.0,
    }


def test_tensors_have_true_components(tmp_path: Path) -> None:
    """Mandel (11, 22, 33, √2·23, √2·13, √2·12) = 1..6 becomes a symmetric 3 x 3 tensor."""
    mandel = (
        np.arange(1.0, 7.0)[:, None, None, None]
        * np.array([1, 1, 1, *[2**0.5] * 3])[:, None, None, None]
    )
    stress = np.zeros((6, 2, 3, 4))
    stress[:, 1, 2, 0] = mandel[:, 0, 0, 0]
    structure = Microstructure(np.zeros((2, 3, 4), int), channels={"stress_gpa": stress})
    grid = pyvista.read(write_vtkhdf(structure, tmp_path / "s.vtkhdf"))
    tensor = cell(grid, "stress_gpa", 1, 2, 0).reshape(3, 3)
    assert tensor == pytest.approx(np.array([[1, 6, 5], [6, 2, 4], [5, 4, 3]]), abs=1e-15)
    assert np.count_nonzero(grid.cell_data["stress_gpa"]) == 9
    plane = Microstructure(np.zeros((2, 3), int), channels={"strain": stress[:3, :, :, 0]})
    tensor = cell(pyvista.read(write_vtkhdf(plane, tmp_path / "p.vtkhdf")), "strain", 1, 2)
    shear = 3 / 2**0.5
    assert tensor == pytest.approx(np.array([1, shear, 0, shear, 2, 0, 0, 0, 0]), abs=1e-15)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 1), (1, 1)])
def test_round_trip_gives_everything_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    written = sample(shape)
    read = read_microstructure(write_vtkhdf(written, tmp_path / "s.vtkhdf"))
    assert np.array_equal(read.phases, written.phases)
    assert (read.voxel_size_um, read.periodic) == (0.3, written.periodic)
    assert (read.process, read.phase_names) == (PROCESS, written.phase_names)
    assert list(read.channels) == list(written.channels)
    for name, channel in written.channels.items():
        assert read.channels[name].dtype == channel.dtype.newbyteorder("=")
        if name == "stress":  # float64 shear: divided and multiplied by √2
            assert read.channels[name] == pytest.approx(channel, rel=3e-16, abs=0)
        else:
            assert np.array_equal(read.channels[name], channel), name


@pytest.mark.parametrize("extrapolated", [True, False])
def test_a_generated_structure_says_whether_it_is_extrapolated(
    tmp_path: Path, extrapolated: bool
) -> None:
    made = GeneratedMicrostructure(
        np.eye(4, dtype=np.uint8), process={"time_h": 9.0}, extrapolated=extrapolated
    )
    back = read_microstructure(write_vtkhdf(made, tmp_path / "made.vtkhdf"))
    assert isinstance(back, GeneratedMicrostructure)
    assert back.extrapolated is extrapolated
    fields = pyvista.read(tmp_path / "made.vtkhdf").field_data
    assert fields["extrapolated"].item() == extrapolated
    assert fields["time_h"].item() == 9.0
    plain = write_vtkhdf(Microstructure(np.eye(4, dtype=np.uint8)), tmp_path / "plain.vtkhdf")
    assert not isinstance(read_microstructure(plain), GeneratedMicrostructure)


def test_same_structure_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_vtkhdf(sample((3, 4)), tmp_path / f"{k}.vtkhdf") for k in "ab")
    assert first.read_bytes() == second.read_bytes()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    components=st.lists(st.integers(1, 4), max_size=2),
    dtype=st.sampled_from(["uint8", "int32", "int64", "float16", "float32", "float64", "bool"]),
    size=st.floats(1e-6, 1e6),
    seed=st.integers(0, 10),
)
def test_any_shape_and_channel_comes_back(
    tmp_path: Path, shape: list[int], components: list[int], dtype: str, size: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    channel = (100 * rng.normal(size=(*components, *shape))).astype(dtype)
    written = Microstructure(
        rng.integers(0, 4, shape), voxel_size_um=size, channels={"field": channel}
    )
    read = read_microstructure(write_vtkhdf(written, tmp_path / "s.vtkhdf"))
    assert np.array_equal(read.phases, written.phases)
    assert np.array_equal(read.channels["field"], channel)
    assert (read.channels["field"].dtype, read.voxel_size_um) == (np.dtype(dtype), size)


@pytest.mark.parametrize(("axes", "n"), [(2, 3), (3, 6)])
def test_mandel_inner_product_is_the_tensor_one(axes: int, n: int) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, n, *[2] * axes))
    tensors = mandel_to_tensor(a) * mandel_to_tensor(b)
    assert tensors.sum(0) == pytest.approx((a * b).sum(0), rel=1e-14)
    assert tensor_to_mandel(mandel_to_tensor(a)) == pytest.approx(a, rel=3e-16)


def test_asked_voxel_size_and_flags_win(tmp_path: Path) -> None:
    path = write_vtkhdf(sample((3, 4)), tmp_path / "s.vtkhdf")
    read = read_microstructure(path, voxel_size_um=2.0, periodic=False, values=(2, 1, 0))
    assert (read.voxel_size_um, read.periodic) == (2.0, (False, False))
    assert np.array_equal(read.phases, 2 - sample((3, 4)).phases)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": {"a/b": np.zeros((2, 2))}}, "channel name without '/'"),
        ({"channels": {".": np.zeros((2, 2))}}, "channel name without '/'"),
        ({"channels": {"phase": np.zeros((2, 2))}}, "not 'phase'"),
        ({"channels": {"c": np.zeros((2, 2), complex)}}, "integers or floats, got complex128"),
        ({"channels": {"c": np.full((2, 2), np.nan)}}, "finite values in channel 'c'"),
        ({"channels": {"c": np.zeros((0, 2, 2))}}, r"shape \(0, 2, 2\)"),
        ({"process": {"t": float("nan")}}, "finite numbers, text or None"),
    ],
)
def test_what_cannot_be_kept_is_not_written(tmp_path: Path, changes: dict, message: str) -> None:
    structure = Microstructure(np.zeros((2, 2), int), **changes)
    with pytest.raises(DataError, match=message):
        write_vtkhdf(structure, tmp_path / "s.vtkhdf")
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = write_vtkhdf(sample((3, 4)), tmp_path / "s.vtkhdf")
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DataError, match="could not write"):
            write_vtkhdf(sample((9, 9)), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.vtkhdf"]


def test_suffix_must_be_the_one_paraview_knows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.vtkhdf"):
        write_vtkhdf(sample((3, 4)), tmp_path / "s.h5")


# Files of others.


def foreign(path: Path, where: str = "CellData", **arrays: np.ndarray) -> h5py.File:
    """An image file without our group: 4 x 3 x 2 cells (or points), in h5py's own types."""
    file = h5py.File(path, "w")
    group = file.create_group("VTKHDF")
    top = [4, 3, 2] if where == "CellData" else [3, 2, 1]
    group.attrs["Version"] = (1, 0)
    group.attrs["Type"] = "ImageData"
    group.attrs["WholeExtent"] = (0, top[0], 0, top[1], 0, top[2])
    group.attrs["Origin"] = (5.0, 0.0, 0.0)
    group.attrs["Spacing"] = (0.5, 0.5, 0.5)
    for name, array in arrays.items():
        group.create_dataset(f"{where}/{name}", data=array)
    return file


CELLS = np.arange(24, dtype=np.int32).reshape(2, 3, 4)


@pytest.mark.parametrize("where", ["CellData", "PointData"])
def test_image_of_others_is_read(tmp_path: Path, where: str) -> None:
    path = tmp_path / "other.hdf"
    foreign(path, where, material=CELLS, u=np.stack([CELLS, 2.0 * CELLS, 0.0 * CELLS], -1)).close()
    read = read_microstructure(path, key="material")
    assert read.voxel_size_um == 0.5
    assert np.array_equal(read.phases, CELLS.T)
    assert np.array_equal(read.channels["u"][1], 2.0 * CELLS.T)
    with pytest.raises(DataError, match=r"found 2 \(material, u\); choose one with key="):
        read_microstructure(path)


def test_gzip_shuffle_and_checksum_are_read(tmp_path: Path) -> None:
    with foreign(tmp_path / "z.hdf") as file:
        file.create_dataset(
            "VTKHDF/CellData/phase",
            data=CELLS,
            chunks=(1, 2, 4),
            compression="gzip",
            shuffle=True,
            fletcher32=True,
        )
    assert np.array_equal(read_microstructure(tmp_path / "z.hdf").phases, CELLS.T)


def test_flat_image_of_others_has_two_axes(tmp_path: Path) -> None:
    with foreign(tmp_path / "flat.hdf", phase=CELLS[:1]) as file:
        file["VTKHDF"].attrs["WholeExtent"] = (0, 4, 0, 3, 0, 0)
        file["VTKHDF"].attrs["Spacing"] = (0.5, 0.5, 1.0)
    assert np.array_equal(read_microstructure(tmp_path / "flat.hdf").phases, CELLS[0].T)


# Hostile files: each entry breaks an otherwise sound file.


def external_link(file: h5py.File) -> None:
    file["VTKHDF/CellData/x"] = h5py.ExternalLink("secret.h5", "/x")


def soft_link(file: h5py.File) -> None:
    file["VTKHDF/CellData/x"] = h5py.SoftLink("/VTKHDF/CellData/x")


def external_group(file: h5py.File) -> None:
    del file["VTKHDF"]
    file["VTKHDF"] = h5py.ExternalLink("secret.h5", "/VTKHDF")


def cyclic_group(file: h5py.File) -> None:
    file["VTKHDF/CellData/x"] = file["VTKHDF"]


def raw_storage(file: h5py.File) -> None:
    file.create_dataset(
        "VTKHDF/CellData/x", (2, 3, 4), "u1", external=[("secret.h5", 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3, 4), "u1")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (2, 3, 4))
    file.create_virtual_dataset("VTKHDF/CellData/x", layout)


def references(file: h5py.File) -> None:
    file.create_dataset("VTKHDF/CellData/x", (2, 3, 4), h5py.ref_dtype)


def text_cells(file: h5py.File) -> None:
    file.create_dataset("VTKHDF/CellData/x", (2, 3, 4), h5py.string_dtype())


def compound(file: h5py.File) -> None:
    file.create_dataset("VTKHDF/CellData/x", (2, 3, 4), "i4,f4")


def other_filter(file: h5py.File) -> None:
    file.create_dataset("VTKHDF/CellData/x", data=CELLS, compression="lzf")


def unknown_filter(file: h5py.File) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((2, 3, 4))
    settings.set_filter(4242, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((2, 3, 4))
    h5py.h5d.create(file["VTKHDF/CellData"].id, b"x", h5py.h5t.NATIVE_INT32, space, settings)


def gzip_bomb(file: h5py.File) -> None:
    data = file.create_dataset(
        "VTKHDF/CellData/x", (2, 3, 4), "u1", chunks=(2, 3, 4), compression="gzip"
    )
    data.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(10**8)))


def wide_chunks(file: h5py.File) -> None:
    shape, most = (2, 3, 4), (None, None, None)
    file.create_dataset("VTKHDF/CellData/x", shape, "u1", chunks=(1000, 1000, 500), maxshape=most)


def huge(file: h5py.File) -> None:
    file["VTKHDF"].attrs["WholeExtent"] = (0, 10**6, 0, 10**6, 0, 3)
    file.create_dataset("VTKHDF/CellData/x", (3, 10**6, 10**6), "u1", chunks=(1, 1000, 1000))


def large_and_hollow(file: h5py.File) -> None:
    del file["VTKHDF/CellData/phase"]
    file["VTKHDF"].attrs["WholeExtent"] = (0, 500, 0, 500, 0, 500)
    file.create_dataset("VTKHDF/CellData/phase", (500, 500, 500), "u1", chunks=(50, 50, 50))


def many_components(file: h5py.File) -> None:
    shape = (2, 3, 4, 10**9)
    file.create_dataset("VTKHDF/CellData/x", shape, "f8", chunks=(1, 1, 1, 1000))


def not_finite(file: h5py.File) -> None:
    file["VTKHDF/CellData/x"] = np.full((2, 3, 4), np.inf)


def wrong_shape(file: h5py.File) -> None:
    file["VTKHDF/CellData/x"] = CELLS.T


def empty_dataspace(file: h5py.File) -> None:
    file["VTKHDF/CellData/x"] = h5py.Empty("f4")


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if value is None:
            del file["VTKHDF"].attrs[name]
        else:
            file["VTKHDF"].attrs[name] = value

    return change


def time_steps(file: h5py.File) -> None:
    file.create_group("VTKHDF/Steps")


def no_group(file: h5py.File) -> None:
    del file["VTKHDF"]


def about(text: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.create_group("mesoforge")["about"] = text

    return change


HOSTILE: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "external link": (external_link, "it is a ExternalLink"),
    "cyclic soft link": (soft_link, "it is a SoftLink"),
    "external group": (external_group, "it is a ExternalLink"),
    "cyclic group": (cyclic_group, "to be a dataset, got Group"),
    "raw storage outside": (raw_storage, "points to other files"),
    "virtual dataset": (virtual, "points to other files"),
    "object references": (references, "integers or floats"),
    "text": (text_cells, "integers or floats"),
    "records": (compound, "integers or floats"),
    "another filter": (other_filter, r"filters \[32000\]"),
    "an unknown filter": (unknown_filter, r"filters \[4242\]"),
    "gzip bomb in a chunk": (gzip_bomb, "unpacks to more"),
    "chunks wider than the data": (wide_chunks, "chunks no larger"),
    "3e12 voxels": (huge, "max_voxels"),
    "hollow 500 cubed": (large_and_hollow, "trust=True"),
    "a thousand million components": (many_components, "trust=True"),
    "infinite numbers": (not_finite, "found NaN or infinity"),
    "wrong shape": (wrong_shape, r"shape \(2, 3, 4\) as WholeExtent says"),
    "no dataspace": (empty_dataspace, "to be a dataset"),
    "reversed extent": (attribute("WholeExtent", (4, 0, 0, 3, 0, 2)), "WholeExtent says"),
    "short extent": (attribute("WholeExtent", (0, 4)), "expected 6 numbers in WholeExtent"),
    "extent of text": (attribute("WholeExtent", "0 4 0 3"), "expected 6 numbers"),
    "no extent": (attribute("WholeExtent", None), "attribute WholeExtent"),
    "endless extent": (attribute("WholeExtent", (0.0, np.inf, 0, 3, 0, 2)), "readable VTKHDF"),
    "spacing of zero": (attribute("Spacing", (0.0, 0.0, 0.0)), "voxel_size_um above 0"),
    "unequal spacing": (attribute("Spacing", (1.0, 1.0, 2.0)), "square or cubic"),
    "spacing of NaN": (attribute("Spacing", (np.nan, np.nan, np.nan)), "square or cubic"),
    "turned axes": (attribute("Direction", (0.0, 1, 0, -1, 0, 0, 0, 0, 1)), "along the axes"),
    "another type": (attribute("Type", "UnstructuredGrid"), "ImageData.*UnstructuredGrid"),
    "a later version": (attribute("Version", (3, 0)), r"version \[3, 0\]"),
    "type of numbers": (attribute("Type", (1, 2)), "expected a text"),
    "time steps": (time_steps, "with time steps"),
    "no image": (no_group, "expected 'VTKHDF' in /, found none"),
    "about of numbers": (about(np.arange(9)), "expected a text"),
    "about that is not JSON": (about(np.bytes_("{")), "mesoforge/about of format 1"),
    "about of depth 1e5": (about(np.bytes_("[" * 50_000)), "mesoforge/about of format 1"),
    "about of a later format": (about(np.bytes_('{"format": 2}')), "at format"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    breaks, message = HOSTILE[name]
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = np.zeros((2, 3, 4), np.uint8)
    with foreign(tmp_path / "bad.hdf", phase=CELLS) as file:
        breaks(file)
    with pytest.raises(DataError, match=message) as caught:
        read_microstructure(tmp_path / "bad.hdf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"grain"', b'"grein"', "missing or extra: grain, grein"),
        (b'"components": [4]', b'"components": [3]', "expected 3 components .* found 4"),
        (b'"notation": "mandel"', b'"notation": "mundel"', "notation"),
        (b'"axes": 2', b'"axes": 3', "channel"),
        (b"1023.5", b"1e9999", "process"),
    ],
)
def test_altered_about_is_refused(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = write_vtkhdf(sample((3, 4)), tmp_path / "s.vtkhdf")
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_microstructure(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = write_vtkhdf(sample((3, 4, 5)), tmp_path / "s.vtkhdf")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="readable VTKHDF"):
        read_microstructure(path)
