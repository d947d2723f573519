import json
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microstructures import CheckpointError, DataError
from microstructures.publishing import (
    MANIFEST,
    folder_digest,
    open_verified,
    publish,
    publish_folder,
    publish_json,
    publish_text,
)


def write_files(**texts):
    def write(folder):
        for name, text in texts.items():
            (folder / name).write_text(text)

    return write


def publish_version(folder, text):
    files = write_files(a=f"{text} a", b=f"{text} b")
    return publish_folder(folder, files, kind="model", about={"version": text})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_failing_writer_leaves_the_old_file_and_no_partial(tmp_path):
    path = publish_text(tmp_path / "deep" / "result.txt", "old")

    def fail(partial):
        partial.write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        publish(path, fail)
    assert path.read_text() == "old"
    assert names(path.parent) == ["result.txt"]


def test_json_refuses_what_is_no_number(tmp_path):
    with pytest.raises(DataError, match="NaN or infinity"):
        publish_json(tmp_path / "r.json", {"c11": float("nan")})
    assert names(tmp_path) == []


def test_folder_round_trip(tmp_path):
    folder = publish_version(tmp_path / "m", "1")
    assert open_verified(folder, kind="model") == {"version": "1"}
    first = folder_digest(folder)
    publish_version(folder, "1")
    assert folder_digest(folder) == first
    publish_version(folder, "2")
    assert open_verified(folder, kind="model") == {"version": "2"}
    assert folder_digest(folder) != first
    assert names(tmp_path) == ["m"]


def test_kind_format_and_absence_are_told(tmp_path):
    folder = publish_version(tmp_path / "m", "1")
    with pytest.raises(CheckpointError, match="expected a dataset of format 1"):
        open_verified(folder, kind="dataset")
    for missing in (tmp_path / "none", tmp_path, folder / "a"):
        with pytest.raises(CheckpointError, match="expected a mesoforge model folder"):
            open_verified(missing, kind="model")


def test_each_of_200_flipped_bytes_is_noticed(tmp_path):
    folder = publish_version(tmp_path / "m", "1")
    dice = random.Random(0)
    files = [folder / name for name in names(folder)]
    for _ in range(200):
        path = dice.choice(files)
        content = path.read_bytes()
        where = dice.randrange(len(content))
        flipped = bytes([content[where] ^ (1 << dice.randrange(8))])
        path.write_bytes(content[:where] + flipped + content[where + 1 :])
        with pytest.raises(CheckpointError):
            open_verified(folder, kind="model")
        path.write_bytes(content)
    open_verified(folder, kind="model")


@pytest.mark.parametrize("damage", ["missing", "added", "cut", "linked", "manifest cut"])
def test_other_damage_is_noticed(tmp_path, damage):
    folder = publish_version(tmp_path / "m", "1")
    match damage:
        case "missing":
            (folder / "a").unlink()
        case "added":
            (folder / "c").write_text("c")
        case "cut":
            (folder / "a").write_text("")
        case "linked":
            (folder / "a").rename(tmp_path / "elsewhere")
            (folder / "a").symlink_to(tmp_path / "elsewhere")
        case "manifest cut":
            text = (folder / MANIFEST).read_bytes()
            (folder / MANIFEST).write_bytes(text[: len(text) // 2])
    with pytest.raises(CheckpointError):
        open_verified(folder, kind="model")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, derandomize=True, database=None, max_examples=100)
@given(
    st.dictionaries(st.sampled_from(["format", "kind", "about", "files", "sha256"]), json_values)
)
def test_any_other_manifest_is_refused(tmp_path_factory, manifest):
    folder = tmp_path_factory.mktemp("m")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        open_verified(folder, kind="model")


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", "\0", '{"a": 1' + "0" * 5000 + "}"])
def test_hostile_manifests_are_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError):
        open_verified(tmp_path, kind="model")


def test_foreign_content_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(DataError, match="choose another output folder"):
        publish_version(tmp_path, "1")
    with pytest.raises(DataError, match="choose another output folder"):
        publish_version(tmp_path / "thesis.tex", "1")
    assert names(tmp_path) == ["thesis.tex"]


def test_a_linked_run_folder_stays_a_link(tmp_path):
    publish_version(tmp_path / "disk", "1")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    publish_version(tmp_path / "run", "2")
    assert (tmp_path / "run").is_symlink()
    assert open_verified(tmp_path / "disk", kind="model") == {"version": "2"}
    assert names(tmp_path) == ["disk", "run"]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "a b [1]* ?", ".hidden", "x.partial-y"])
def test_odd_names_work(tmp_path, name):
    publish_text(tmp_path / "files" / name, "text")
    assert names(tmp_path / "files") == [name]
    folder = tmp_path / "folders" / name
    publish_version(folder, "1")
    publish_version(folder, "2")
    assert open_verified(folder, kind="model") == {"version": "2"}
    assert names(tmp_path / "folders") == [name]


def test_impossible_names_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("n" * 256, "file/below", "nul\0", "/"):
        with pytest.raises(DataError):
            publish_text(tmp_path / name, "text")
        with pytest.raises(DataError):
            publish_version(tmp_path / name, "1")
    assert names(tmp_path) == ["file"]


def test_a_kill_at_any_step_leaves_a_whole_file(tmp_path, kill_at_each_step):
    path = publish_text(tmp_path / "r.txt", "old")

    def check(step):
        assert path.read_text() in ("old", "new")

    assert kill_at_each_step(lambda: publish_text(path, "new"), check) >= 4
    assert path.read_text() == "new"
    assert names(tmp_path) == ["r.txt"]


def test_a_kill_at_any_step_leaves_a_whole_folder(tmp_path, kill_at_each_step):
    folder = publish_version(tmp_path / "m", "old")
    seen = set()

    def check(step):
        version = open_verified(folder, kind="model")["version"]
        seen.add(version)
        if version == "new":
            publish_version(folder, "old")

    # A repeat of the writer sweeps what the dead ones left behind.
    assert kill_at_each_step(lambda: publish_version(folder, "new"), check) >= 8
    assert seen == {"old", "new"}
    assert open_verified(folder, kind="model") == {"version": "new"}
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("room", [0, 1, 100, 999, 20_000])
def test_a_full_disk_is_one_sentence_and_keeps_the_old(tmp_path, on_full_disk, room):
    path = publish_text(tmp_path / "r.txt", "old")
    folder = publish_version(tmp_path / "m", "old")

    def fill():
        with pytest.raises(DataError, match="free"):
            publish_text(path, "x" * 50_000)
        with pytest.raises(DataError, match="free"):
            publish_version(folder, "y" * 50_000)

    assert on_full_disk(fill, room=room) == 0
    assert path.read_text() == "old"
    assert open_verified(folder, kind="model") == {"version": "old"}
    assert names(tmp_path) == ["m", "r.txt"]


def test_a_live_neighbour_keeps_its_partial_file(tmp_path):
    neighbour = tmp_path / f"r.txt.partial-{os.getppid()}"
    neighbour.write_text("at work")
    dead = tmp_path / "r.txt.partial-99999999"
    dead.write_text("left behind")
    publish_text(tmp_path / "r.txt", "mine")
    assert names(tmp_path) == ["r.txt", neighbour.name]
