import json
import pickle
import random

import h5py
import numpy as np
import pytest
import torch

from microstructures import (
    CheckpointError,
    DataError,
    DatasetBuilder,
    Microstructure,
    MicrostructureDataset,
    Parameter,
    ProcessSpace,
)
from microstructures.publishing import open_verified, publish_folder
from microstructures.seeds import derive_seed

SPACE = ProcessSpace(
    [
        Parameter("time_h", "h", 1.0, 100.0, "log"),
        Parameter("passes", "-", 0.0, 9.0, "integer"),
        Parameter("cooling", "-", scale="choice", choices=("air", "water")),
    ]
)


def sample(seed, shape=(6, 4), **changes):
    rng = np.random.default_rng(seed)
    process = {"time_h": 1.0 + 90 * rng.random(), "passes": int(rng.integers(9)), "cooling": "air"}
    if seed % 3 == 0:
        process["time_h"] = None
    arguments = {
        "phases": rng.integers(0, 3, shape).astype(np.uint8),
        "voxel_size_um": 0.5,
        "periodic": (True, False, False)[: len(shape)],
        "process": process,
        "phase_names": ("a", "b", "c"),
        "channels": {
            "grey": rng.integers(0, 9, shape).astype(np.int16),
            "strain/x": rng.random((3, *shape)),
            "mask": rng.random(shape) > 0.5,
        },
    }
    return Microstructure(**{**arguments, **changes})


def same(a, b):
    np.testing.assert_array_equal(a.phases, b.phases)
    assert (a.voxel_size_um, a.periodic, a.phase_names) == (
        b.voxel_size_um,
        b.periodic,
        b.phase_names,
    )
    assert a.process == b.process
    assert set(a.channels) == set(b.channels)
    for name, channel in a.channels.items():
        assert channel.dtype == b.channels[name].dtype
        np.testing.assert_array_equal(channel, b.channels[name])


def build(folder, order=(0, 1, 2), about=None, shape=(6, 4)):
    builder = DatasetBuilder(folder, SPACE, about=about or {"seed": 1})
    missing = builder.missing(len(order))
    for k in order:
        if k in missing:
            builder.add(k, [sample(derive_seed(k, i), shape) for i in range(k + 1)])
    return builder.finish()


@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)])
def test_structures_survive_memory_and_disk(tmp_path, shape):
    made = [sample(k, shape) for k in range(5)]
    specimens, sources = ["s", "s", "é", "t", "t"], [f"map {k}" for k in range(5)]
    builder = DatasetBuilder(tmp_path / "d", SPACE)
    builder.add(1, made[3:], specimens[3:], sources=sources[3:])
    builder.add(0, made[:3], specimens[:3], sources=sources[:3])
    stored = builder.finish()
    held = MicrostructureDataset.from_structures(made, SPACE, specimens=specimens, sources=sources)
    for data in (stored, held, pickle.loads(pickle.dumps(stored))):
        assert len(data) == 5
        for mine, original in zip(data, made, strict=True):
            same(mine, original)
        assert data.specimens == specimens
        assert data.sources == sources
        assert data.phases.dtype == torch.uint8
        assert data.phases.shape == (5, *shape)
        assert data.shape == shape
        assert data.n_phases == 3
        assert data.space == SPACE
        expected = torch.tensor([SPACE.to_unit(m.process) for m in made])
        torch.testing.assert_close(data.process_units, expected, equal_nan=True)
    same(stored[-1], made[-1])
    with pytest.raises(IndexError):
        stored[5]


def test_a_sample_is_a_copy():
    data = MicrostructureDataset.from_structures([sample(0)], SPACE)
    data[0].phases[:] = 2
    assert (data[0].phases != 2).any()


def test_a_loader_in_other_processes_reads_channels(tmp_path):
    data = build(tmp_path / "d")
    loader = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    read = list(loader)
    assert len(read) == len(data)
    for mine, original in zip(read, data, strict=True):
        same(mine, original)


def test_any_order_of_shards_gives_the_same_bytes(tmp_path):
    first = build(tmp_path / "a", (0, 1, 2))
    second = build(tmp_path / "b", (2, 0, 1))
    assert first.digest == second.digest
    for name in ("manifest.json", "shard-00000.h5", "shard-00002.h5"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_shards_are_not_copied(tmp_path):
    builder = DatasetBuilder(tmp_path / "d", SPACE)
    builder.add(0, [sample(0)])
    (gathered,) = (tmp_path / "d.building").glob("shard-*")
    node = gathered.stat().st_ino
    builder.finish()
    assert (tmp_path / "d" / "shard-00000.h5").stat().st_ino == node


def test_a_kill_at_any_step_costs_at_most_a_shard(tmp_path, kill_at_each_step):
    clean = build(tmp_path / "clean")
    folder = tmp_path / "d"

    def check(step):
        if folder.exists():
            assert MicrostructureDataset.open(folder).digest == clean.digest

    assert kill_at_each_step(lambda: build(folder), check) >= 10
    assert MicrostructureDataset.open(folder).digest == clean.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean", "d"]


def test_a_kill_at_each_step_from_the_start_resumes_exactly(tmp_path, kill_at_each_step):
    clean = build(tmp_path / "clean", (0, 1))
    folder = tmp_path / "d"

    def resume_and_restart(step):
        assert build(folder, (0, 1)).digest == clean.digest
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    assert kill_at_each_step(lambda: build(folder, (0, 1)), resume_and_restart) >= 20


@pytest.mark.parametrize("room", [0, 100, 2_000, 6_000])
def test_a_full_disk_is_one_sentence(tmp_path, on_full_disk, room):
    def fill():
        with pytest.raises(DataError, match="free"):
            build(tmp_path / "d")

    assert on_full_disk(fill, room=room) == 0
    assert not (tmp_path / "d").exists()
    assert build(tmp_path / "d").digest == build(tmp_path / "clean").digest


def test_a_repeat_continues_or_opens(tmp_path):
    builder = DatasetBuilder(tmp_path / "d", SPACE, about={"seed": 1})
    builder.add(1, [sample(derive_seed(1, i)) for i in range(2)])
    again = DatasetBuilder(tmp_path / "d", SPACE, about={"seed": 1})
    assert again.missing(3) == [0, 2]
    with pytest.raises(DataError, match="2 are missing"):
        again.finish()
    made = build(tmp_path / "d")
    assert made.digest == build(tmp_path / "clean").digest
    assert made.about == {"seed": 1}
    finished = DatasetBuilder(tmp_path / "d", SPACE, about={"seed": 1})
    assert finished.missing(3) == []
    assert finished.finish().digest == made.digest
    with pytest.raises(DataError, match="complete"):
        finished.add(0, [sample(0)])
    for wrong in (2, 4):
        with pytest.raises(DataError, match=r"expected \d shards"):
            finished.missing(wrong)


@pytest.mark.parametrize("finished", [False, True])
def test_another_job_is_not_mixed_in(tmp_path, finished):
    if finished:
        build(tmp_path / "d")
    else:
        DatasetBuilder(tmp_path / "d", SPACE, about={"seed": 1}).add(0, [sample(0)])
    with pytest.raises(DataError, match="other settings"):
        DatasetBuilder(tmp_path / "d", SPACE, about={"seed": 2})
    with pytest.raises(DataError, match="other settings"):
        DatasetBuilder(tmp_path / "d", ProcessSpace(SPACE.parameters[:2]), about={"seed": 1})


def test_foreign_folders_and_files_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match="choose another"):
            DatasetBuilder(place, SPACE)
    with pytest.raises(DataError):
        DatasetBuilder(tmp_path / ("n" * 256), SPACE)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phases": np.zeros((4, 6), np.uint8), "channels": {}}, "shape"),
        ({"voxel_size_um": 0.25}, "voxel_size_um"),
        ({"periodic": (True, True)}, "periodic"),
        ({"phase_names": ("a", "b", "d")}, "phase_names"),
        ({"channels": {}}, "channels"),
    ],
)
def test_samples_of_a_dataset_are_alike(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        MicrostructureDataset.from_structures([sample(0), sample(1, **changes)], SPACE)
    builder = DatasetBuilder(tmp_path / "d", SPACE)
    builder.add(0, [sample(0)])
    with pytest.raises(DataError, match=words):
        builder.add(1, [sample(1, **changes)])
    builder.add(0, [sample(0)])
    with pytest.raises(DataError, match="other content"):
        builder.add(0, [sample(1)])
    assert len(builder.finish()) == 1


def test_impossible_samples_are_refused(tmp_path):
    builder = DatasetBuilder(tmp_path / "d", SPACE)
    with pytest.raises(DataError, match="at least one"):
        builder.add(0, [])
    with pytest.raises(DataError, match="at least one"):
        MicrostructureDataset.from_structures([], SPACE)
    with pytest.raises(DataError, match="time_h between"):
        builder.add(0, [sample(0, process={"time_h": 1e3})])
    with pytest.raises(DataError, match="pressure"):
        builder.add(0, [sample(0, process={"pressure": 1.0})])
    with pytest.raises(DataError, match="1 specimens"):
        builder.add(0, [sample(0)], ["a", "b"])
    with pytest.raises(DataError, match="number"):
        builder.add(-1, [sample(0)])
    with pytest.raises(DataError, match="missing"):
        builder.finish()
    assert not (tmp_path / "d").exists()


def test_each_flipped_byte_is_noticed(tmp_path):
    build(tmp_path / "d")
    dice = random.Random(0)
    files = sorted((tmp_path / "d").iterdir())
    for _ in range(60):
        path = dice.choice(files)
        content = path.read_bytes()
        where = dice.randrange(len(content))
        flipped = bytes([content[where] ^ (1 << dice.randrange(8))])
        path.write_bytes(content[:where] + flipped + content[where + 1 :])
        with pytest.raises(CheckpointError):
            MicrostructureDataset.open(tmp_path / "d")
        path.write_bytes(content)


def test_a_shard_damaged_before_the_end_is_noticed(tmp_path):
    builder = DatasetBuilder(tmp_path / "d", SPACE)
    builder.add(0, [sample(0)])
    (path,) = (tmp_path / "d.building").glob("shard-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        builder.finish()


def republished(folder, change):
    """Publish a dataset again after changing its first shard: hashes fit, content may not."""
    about = open_verified(folder, kind="dataset")
    shards = {p.name: p.read_bytes() for p in folder.glob("shard-*")}

    def write(partial):
        for name, content in shards.items():
            (partial / name).write_bytes(content)
        with h5py.File(partial / "shard-00000.h5", "r+") as file:
            change(file, about)

    return publish_folder(folder, write, kind="dataset", about=about)


def external_link(file, about):
    del file["phases"]
    file["phases"] = h5py.ExternalLink("/etc/passwd", "/phases")


def external_storage(file, about):
    del file["phases"]
    file.create_dataset("phases", (1, 6, 4), "u1", external=[("/etc/passwd", 0, 24)])


def bomb(file, about):
    texts = json.loads(file["texts"][()].tobytes())
    layout = {**texts["layout"], "shape": [100_000, 100_000]}
    del file["phases"], file["texts"]
    file.create_dataset("phases", (1, 100_000, 100_000), "u1", chunks=(1, 1000, 1000))
    texts = json.dumps({**texts, "layout": layout}).encode()
    file["texts"] = np.frombuffer(texts, np.uint8)
    about["layout"] = layout


def other_label(file, about):
    file["phases"][0, 0, 0] = 9


def other_choice(file, about):
    file["process"][0, 2] = 7


def less_about(file, about):
    del about["samples_per_shard"]


def lying_about(file, about):
    about["samples_per_shard"] = [3]


@pytest.mark.parametrize(
    "change",
    [external_link, external_storage, bomb, other_label, other_choice, less_about, lying_about],
)
def test_a_hostile_dataset_is_refused(tmp_path, change):
    builder = DatasetBuilder(tmp_path / "d", SPACE)
    builder.add(0, [sample(1)])
    builder.finish()
    republished(tmp_path / "d", change)
    with pytest.raises(CheckpointError):
        MicrostructureDataset.open(tmp_path / "d")


def grouped(counts):
    names = [f"s{g}" for g, n in enumerate(counts) for _ in range(n)]
    made = [sample(k, channels={}) for k in range(len(names))]
    return MicrostructureDataset.from_structures(made, SPACE, specimens=names, sources=names)


@pytest.mark.parametrize("counts", [[1, 1], [5, 1, 1], [30, 2], [4] * 10, [1] * 20])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_no_specimen_is_on_both_sides(counts, share):
    data = grouped(counts)
    for seed in range(3):
        train, held = data.split(share, seed=seed)
        assert not set(train.specimens) & set(held.specimens)
        assert len(train) + len(held) == len(data)
        assert len(train) >= 1
        assert len(held) >= 1
        if 0.05 < share < 0.95:
            assert abs(len(held) - share * len(data)) <= max(counts)


def test_a_split_depends_on_names_and_seed_alone():
    data = grouped([4] * 10)
    train, held = data.split(0.3, seed=0)
    assert len(held) == 12
    _, again = data.subset(list(reversed(range(len(data))))).split(0.3, seed=0)
    assert set(again.specimens) == set(held.specimens)
    _, other = data.split(0.3, seed=1)
    assert set(other.specimens) != set(held.specimens)
    assert len({data.digest, train.digest, held.digest}) == 3
    assert data.split(0.3, seed=0)[1].digest == held.digest


def test_a_subset_keeps_everything_in_order(tmp_path):
    data = build(tmp_path / "d")
    rows = [4, 0, 3]
    chosen = data.subset(rows).subset([0, 2])
    for mine, row in zip(chosen, (4, 3), strict=True):
        same(mine, data[row])
    assert chosen.specimens == [data.specimens[k] for k in (4, 3)]
    torch.testing.assert_close(chosen.process_units, data.process_units[[4, 3]], equal_nan=True)


def test_impossible_choices_are_refused():
    data = grouped([2, 2])
    for rows in ([], [4], [-1]):
        with pytest.raises(DataError, match="indices"):
            data.subset(rows)
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(DataError, match="share"):
            data.split(share, seed=0)
    with pytest.raises(DataError, match="two specimens"):
        grouped([3]).split(0.5, seed=0)


def test_content_decides_the_digest():
    first = MicrostructureDataset.from_structures([sample(0), sample(1)], SPACE)
    again = MicrostructureDataset.from_structures([sample(0), sample(1)], SPACE)
    other = MicrostructureDataset.from_structures([sample(0), sample(2)], SPACE)
    assert first.digest == again.digest != other.digest
