import csv
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from microstructures import DataError, ImportSettings, import_maps, load_settings
from microstructures.cropping import crop_origins, resample_labels

ROOT = Path(__file__).resolve().parents[2]
HEADER = ["file", "temperature [K]", "time [h]", "cooling [-]"]


def settings(**changes):
    return ImportSettings(**{"phase_names": ("a", "b"), "crop": 8, **changes})


def write_table(path, rows, header=HEADER):
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture
def maps(tmp_path):
    """Four pictures of 24 columns and 20 rows whose lowest 4 rows are ignored, and a table."""
    folder = tmp_path / "maps"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        picture = rng.integers(0, 2, (20, 24)).astype(np.uint8)
        picture[16:] = 255
        iio.imwrite(folder / f"m{k}.png", picture)
    rows = [[f"m{k}.png", 900 + 10 * k, 10**k, "air" if k % 2 else "water"] for k in range(4)]
    write_table(tmp_path / "process.csv", rows)
    return folder


def run(maps, rows=None, header=HEADER, **changes):
    if rows is not None:
        write_table(maps.parent / "process.csv", rows, header)
    return import_maps(
        maps,
        maps.parent / "process.csv",
        settings(**{"ignore_values": (255,), **changes}),
        maps.parent / "out",
    )


def test_units_in_the_header_make_the_process_space(maps):
    data, left_out = run(maps)
    assert left_out is None
    assert data.shape == (8, 8)
    assert data.periodic == (False, False)
    assert data.phase_names == ("a", "b")
    temperature, hours, cooling = data.space
    assert (temperature.name, temperature.unit, temperature.low, temperature.high) == (
        "temperature",
        "K",
        900,
        930,
    )
    assert (hours.scale, cooling.scale, cooling.choices) == ("linear", "choice", ("air", "water"))
    assert Counter(data.sources) == {f"m{k}.png": 6 for k in range(4)}
    assert data[0].process == {"temperature": 900.0, "time": 1.0, "cooling": "water"}
    assert data.specimens == data.sources
    picture = iio.imread(maps / "m0.png").T
    np.testing.assert_array_equal(data[0].phases, picture[:8, :8])
    np.testing.assert_array_equal(data[5].phases, picture[16:, 8:16])


def test_declared_parameters_join_those_of_the_header(maps):
    hours = {"name": "hours", "unit": "h", "column": "time [h]", "scale": "log", "high": 1e4}
    data, _ = run(maps, parameters=[hours], other_columns=["cooling [-]"])
    assert [(p.name, p.scale, p.low, p.high) for p in data.space] == [
        ("hours", "log", 1, 1e4),
        ("temperature", "linear", 900, 930),
    ]


def test_left_out_processes_form_their_own_dataset(maps):
    data, left_out = run(maps, leave_out=[{"temperature": 910, "cooling": "air"}, {"time": 1000}])
    assert set(data.sources) == {"m0.png", "m2.png"}
    assert set(left_out.sources) == {"m1.png", "m3.png"}
    assert left_out.space == data.space
    assert sorted(p.name for p in maps.parent.iterdir() if p.is_dir()) == [
        "maps",
        "out",
        "out-left-out",
    ]


def test_rows_are_filtered_and_specimens_named(maps):
    header = [*HEADER, "set", "sample", "note"]
    rows = [[f"m{k}.png", 900 + k, k + 1, "air", "ab"[k % 2], f"s{k // 2}", ""] for k in range(4)]
    data, _ = run(
        maps,
        rows,
        header,
        where={"set": "a"},
        specimen_column="sample",
        other_columns=["note", "time [h]", "cooling [-]"],
    )
    assert set(data.sources) == {"m0.png", "m2.png"}
    assert set(data.specimens) == {"s0", "s1"}
    train, held = data.split(0.5, seed=0)
    assert not set(train.specimens) & set(held.specimens)


def test_stored_values_become_labels(maps):
    values = {0: 1, 1: 0, 7: 1}
    data, _ = run(maps, values=values)
    np.testing.assert_array_equal(data[0].phases, 1 - iio.imread(maps / "m0.png").T[:8, :8])


def test_without_names_the_labels_of_the_maps_count(maps):
    data, _ = run(maps, phase_names=())
    assert data.phase_names == ("phase 0", "phase 1")
    with pytest.raises(DataError, match="found 0, 1, 255; say with values"):
        run(maps, phase_names=(), ignore_values=())


def test_whole_periodic_maps_are_taken_as_they_are(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    cell = np.random.default_rng(0).integers(0, 2, (2, 6, 5, 4)).astype(np.uint8)
    for k in range(2):
        np.save(folder / f"{k}.npy", cell[k])
    table = write_table(tmp_path / "t.csv", [["0.npy", 1], ["1.npy", 2]], ["file", "T [K]"])
    data, _ = import_maps(folder, table, settings(crop=None, periodic=True), tmp_path / "out")
    assert data.periodic == (True,) * 3
    np.testing.assert_array_equal(data.phases.numpy(), cell)


def test_drawn_crops_depend_on_seed_and_map_alone(maps):
    first, _ = run(maps, crops_per_map=5)
    assert Counter(first.sources) == {f"m{k}.png": 5 for k in range(4)}
    table = maps.parent / "process.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    again, _ = import_maps(
        maps, table, settings(ignore_values=(255,), crops_per_map=5), maps.parent / "again"
    )
    mine = {m.phases.tobytes() for m in first}
    assert mine == {m.phases.tobytes() for m in again}
    other, _ = import_maps(
        maps,
        table,
        settings(ignore_values=(255,), crops_per_map=5, seed=1),
        maps.parent / "other",
    )
    assert mine != {m.phases.tobytes() for m in other}


ROWS = [[f"m{k}.png", 900 + 10 * k, 10**k, "air" if k % 2 else "water"] for k in range(4)]


def changed(row, column, value):
    rows = [list(r) for r in ROWS]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rows": ROWS[:3]}, r"row for the map m3\.png"),
        ({"rows": [*ROWS, ["m9.png", 1, 1, "air"]]}, r"map m9\.png \(line 6\) in the folder"),
        ({"rows": [*ROWS, ROWS[0]]}, r"line 6: .* second of m0\.png"),
        ({"rows": changed(1, 0, "../m1.png")}, "line 3: .*inside the folder"),
        ({"rows": changed(1, 0, "/etc/passwd")}, "line 3: .*inside the folder"),
        ({"rows": changed(1, 0, "")}, "line 3: .*inside the folder"),
        ({"rows": changed(2, 1, "nan")}, "line 4: .*finite number in column 'temperature"),
        ({"rows": changed(2, 1, "inf")}, "line 4: .*finite number"),
        ({"rows": changed(2, 1, "hot")}, "line 4: .*got 'hot'"),
        ({"rows": changed(2, 1, "9,5")}, "line 4: .*got '9,5'"),
        ({"rows": changed(2, 1, "")}, "line 4: .*empty cell"),
        ({"rows": [r[:3] for r in ROWS]}, "line 2: expected 4 cells"),
        ({"rows": []}, "no rows"),
        ({"rows": ROWS, "header": [*HEADER[:3], "cooling"]}, "unknown column 'cooling'.*unit"),
        ({"rows": ROWS, "header": [*HEADER[:3], "cooling []"]}, "unknown column 'cooling "),
        ({"rows": ROWS, "header": [*HEADER[:3], HEADER[2]]}, "distinct column names"),
        ({"rows": ROWS, "header": [*HEADER[:3], ""]}, "distinct column names"),
        ({"rows": ROWS, "header": ["map", *HEADER[1:]]}, "columns file"),
        ({"rows": [[r[0], 900, *r[2:]] for r in ROWS]}, "different values in column 'temp"),
        ({"other_columns": HEADER[1:]}, "at least one process parameter"),
        ({"parameters": [{"name": "pressure", "unit": "Pa"}]}, "column pressure"),
        ({"parameters": [{"name": "time", "unit": "s"}]}, "expected time in s"),
        (
            {"parameters": [{"name": "time", "low": 0, "high": 10}]},
            "line 4: expected time between 0 and 10 h, got 100",
        ),
        ({"parameters": [{"name": "time", "low": 9, "high": 1}]}, "swap"),
        ({"parameters": [{"name": "time", "low": 0, "scale": "log"}]}, "positive"),
        ({"parameters": [{"name": "cooling", "choices": ["air"]}]}, "one of air, got 'water'"),
        ({"where": {"set": "a"}}, "columns set"),
        ({"where": {"cooling [-]": "oil"}}, "found none"),
        ({"exclude": ["m7"]}, "no map m7"),
        ({"leave_out": [{"temperature": 5}]}, "to leave out, found none"),
        ({"leave_out": [{"pressure": 5}]}, "leave_out to name process parameters"),
        ({"leave_out": [{"cooling": "air"}, {"cooling": "water"}]}, "all of them left out"),
        ({"specimen_column": "sample"}, "columns sample"),
        ({"voxel_size_column": "cooling [-]"}, "finite number in column 'cooling"),
        ({"voxel_size_column": "time [h]"}, "one voxel size, the table has 1 to 1000 um"),
        ({"ignore_values": ()}, r"m0\.png: .*255"),
        ({"phase_names": ("a",)}, r"m0\.png: .*labels 1"),
        ({"values": {0: 0}, "phase_names": ()}, r"m0\.png: .*labels 1"),
        ({"expected_shape": (20, 24)}, r"m0\.png: expected a map of \(20, 24\) voxels"),
        ({"crop": 21}, r"m0\.png: .*at least 21 voxels along each axis, got 24 x 20"),
        ({"crop": 17}, r"m0\.png: .*crop of 17 voxels without ignored"),
        ({"crop": None}, r"m0\.png: .*whole map without ignored"),
        ({"resample_to_um": 3.0}, r"m0\.png: .*at least 8 voxels"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(maps, arguments, words):
    before = sorted(maps.parent.iterdir())
    with pytest.raises(DataError, match=words) as caught:
        run(maps, **arguments)
    assert "\n" not in str(caught.value)
    assert sorted(maps.parent.iterdir()) == before


def test_damaged_pictures_and_tables_are_named(maps):
    table = maps.parent / "process.csv"
    for content in (b"", b"file\xff,a [K]\n", b'file,"a [K]\n', b"\0\0\0"):
        table.write_bytes(content)
        with pytest.raises(DataError, match=r"process\.csv: "):
            run(maps)
    with pytest.raises(DataError, match="expected a CSV table"):
        import_maps(maps, maps / "none.csv", settings(), maps.parent / "out")
    with pytest.raises(DataError, match="folder of label maps"):
        import_maps(maps / "none", table, settings(), maps.parent / "out")
    (maps / "deeper").mkdir()
    with pytest.raises(DataError, match="expected label maps"):
        import_maps(maps / "deeper", table, settings(), maps.parent / "out")
    (maps / "m2.png").write_bytes((maps / "m2.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"m2\.png"):
        run(maps, ROWS)
    assert sorted(p.name for p in maps.parent.iterdir()) == ["maps", "process.csv"]


def test_an_empty_cell_may_mean_unknown(maps):
    data, _ = run(maps, changed(2, 1, ""), allow_unknown=True)
    unknown = [s for s, u in zip(data.sources, data.process_units[:, 0], strict=True) if u != u]
    assert set(unknown) == {"m2.png"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": {0: 0, 1: 2}},
        {"values": {0: 0, 1: 1, 2: 2}},
        {"values": {0: 0, 255: 1}, "ignore_values": (255,)},
        {"crop": None, "stride": 4},
        {"periodic": True},
        {"crop": 0},
        {"voxel_size_um": 0.0},
        {"resample_to_um": float("nan")},
        {"cropp": 3},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="validation error"):
        settings(**wrong)


@pytest.mark.parametrize("shape", [(21, 16), (9, 12, 10)])
@pytest.mark.parametrize("factor", [1.0, 2.0, 2.5, 3.3, 0.5])
def test_resampling_keeps_the_majority(shape, factor):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, shape).astype(np.uint8)
    ignored = np.zeros(shape, bool)
    coarse, _ = resample_labels(labels, ignored, factor=factor, n_phases=3)
    assert coarse.shape == tuple(int(n / factor + 1e-6) for n in shape)
    flat, _ = resample_labels(np.full(shape, 2, np.uint8), ignored, factor=factor, n_phases=3)
    assert (flat == 2).all()
    if factor == 2.0:
        for index in np.ndindex(*coarse.shape):
            block = labels[tuple(slice(2 * i, 2 * i + 2) for i in index)]
            assert coarse[index] == np.bincount(block.ravel(), minlength=3).argmax()


def test_thin_lines_vanish_only_below_half_a_voxel():
    labels = np.zeros((30, 30), np.uint8)
    labels[:, 10:12] = 1
    coarse, _ = resample_labels(labels, labels > 1, factor=3.0, n_phases=2)
    assert coarse[:, 3].all()
    assert coarse.sum() == 10


@pytest.mark.parametrize("factor", [1.0, 1.7, 3.0, 0.7])
def test_no_ignored_voxel_mixes_in(factor):
    labels = np.zeros((40, 30), np.uint8)
    ignored = np.zeros_like(labels, bool)
    labels[:, 23:] = 255
    ignored[:, 23:] = True
    labels[3, 4] = 255
    ignored[3, 4] = True
    coarse, out = resample_labels(labels, ignored, factor=factor, n_phases=1)
    assert (coarse[~out] == 0).all()
    assert out.any()
    for corner in crop_origins(out, crop=4, stride=1):
        assert not out[tuple(slice(c, c + 4) for c in corner)].any()


@pytest.mark.parametrize("shape", [(13, 9), (7, 8, 6)])
def test_every_clean_position_is_found(shape):
    ignored = np.random.default_rng(1).random(shape) > 0.98
    crop = 3
    positions = [
        index
        for index in np.ndindex(*[n - crop + 1 for n in shape])
        if not ignored[tuple(slice(i, i + crop) for i in index)].any()
    ]
    assert crop_origins(ignored, crop=crop, stride=1) == positions
    drawn = crop_origins(ignored, crop=crop, stride=1, count=7, seed=(3,))
    assert len(set(drawn)) == 7
    assert set(drawn) <= set(positions)
    assert drawn == crop_origins(ignored, crop=crop, stride=1, count=7, seed=(3,))


def test_a_grid_reaches_both_edges():
    clean = np.zeros((50, 37), bool)
    corners = crop_origins(clean, crop=32, stride=8)
    assert {c[0] for c in corners} == {0, 6, 12, 18}
    assert {c[1] for c in corners} == {0, 5}
    assert crop_origins(clean, crop=38, stride=1) == []
    assert crop_origins(~clean, crop=2, stride=1) == []


KILLED = """
import sys, time
from microstructures import import_maps, load_settings, ImportSettings
import microstructures.importing as importing
importing.MAPS_PER_SHARD = 1
settings = ImportSettings(phase_names=("a", "b"), crop=8, ignore_values=(255,))
def report(done, total):
    print(done, flush=True)
    time.sleep(0.1)
import_maps(sys.argv[1], sys.argv[2], settings, sys.argv[3], progress=report)
"""


def test_a_killed_import_resumes_exactly(maps, monkeypatch):
    monkeypatch.setattr("microstructures.importing.MAPS_PER_SHARD", 1)
    clean, _ = run(maps)
    table, out = maps.parent / "process.csv", maps.parent / "killed"
    command = [sys.executable, "-c", KILLED, str(maps), str(table), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "3":
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    done = []
    again, _ = import_maps(
        maps,
        table,
        settings(ignore_values=(255,)),
        out,
        progress=lambda k, total: done.append((k, total)),
    )
    assert done[-1] == (4, 4)
    assert again.digest == clean.digest
    repeated, _ = import_maps(maps, table, settings(ignore_values=(255,)), out)
    assert repeated.digest == clean.digest
    (maps / "m0.png").write_bytes((maps / "m1.png").read_bytes())
    with pytest.raises(DataError, match="other settings or inputs"):
        import_maps(maps, table, settings(ignore_values=(255,)), out)


def test_the_uhcs_maps_import(real_data, tmp_path):
    folder = real_data / "uhcs_heat_treatment"
    if not folder.is_dir():
        pytest.skip(f"no UHCS maps in {real_data}")
    chosen = load_settings(ROOT / "configs" / "uhcs-import.yaml", ImportSettings)
    data, left_out = import_maps(folder, folder / "metadata.csv", chosen, tmp_path / "crops")
    assert data.shape == (32, 32)
    assert data.voxel_size_um == 1.0
    assert data.periodic == (False, False)
    assert len(set(data.sources)) == 17
    assert len(set(left_out.sources)) == 5
    assert set(left_out.specimens) == {"AC1 970C 90M Q"}
    assert not set(left_out.specimens) & set(data.specimens)
    assert all(
        m.process == {"anneal_temperature_c": 970.0, "anneal_time_h": 1.5, "cooling": "Q"}
        for m in left_out
    )
    assert not any("uhcs0596" in s or "uhcs1528" in s for s in data.sources)
    assert set(np.unique(data.phases)) == {0, 1, 2, 3}
    assert data.space.names == ("anneal_temperature_c", "anneal_time_h", "cooling")
    assert data.space.parameters[1].scale == "log"
