"""What a study survives: kills, torn lines, flipped bytes, full disks, a second process."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from microstructures import CheckpointError, DataError
from optimize import Estimate, Study
from optimize.journal import JOURNAL, Journal

ROOT = Path(__file__).resolve().parents[2]
GOALS = {"a": 1.0}
GATE = {"gate": (None, 1.0)}


def write_study(folder, space):
    """A study with one event of each kind; returns its trials."""
    with Study(space, GOALS, GATE, folder=folder, seed=5) as study:
        first, second, third, _ = study.ask(4)
        study.tell(first, {"a": Estimate(1.5, 1.4, 1.6, "statistical"), "gate": 0.25})
        study.fail(second, "the solver stopped")
        study.abandon(third)
        study.attach(first.parameters, {"a": 1.25, "gate": 0.5})
        return study.trials


def reopened(folder, content):
    (folder / JOURNAL).write_bytes(content)
    with Study.load(folder) as study:
        return study.trials


def test_load_needs_the_folder_alone(tmp_path, mixed):
    trials = write_study(tmp_path, mixed)
    with Study.load(tmp_path) as study:
        assert study.trials == trials
        assert (study.space, study.seed, study.goals.objectives) == (mixed, 5, GOALS)
        assert study.goals.constraints == GATE
        assert [t.number for t in study.pending()] == [3]
    assert [t.status for t in trials] == ["told", "failed", "abandoned", "pending", "told"]
    assert trials[1].reason == "the solver stopped"


def test_a_last_record_torn_at_any_byte_is_cut(tmp_path, mixed):
    trials = write_study(tmp_path, mixed)
    content = (tmp_path / JOURNAL).read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    assert reopened(tmp_path, content[:start]) == trials[:-1]
    for end in range(start + 1, len(content)):
        with pytest.warns(RuntimeWarning, match="not written whole"):
            assert reopened(tmp_path, content[:end]) == trials[:-1]
        assert (tmp_path / JOURNAL).read_bytes() == content[:start]


def test_a_study_goes_on_after_a_torn_line(tmp_path, mixed):
    write_study(tmp_path, mixed)
    content = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(content[:-7])
    with pytest.warns(RuntimeWarning, match="not written whole"):
        study = Study(mixed, GOALS, GATE, folder=tmp_path, seed=5)
    study.tell(3, {"a": 2.0, "gate": 0.0})
    study.close()
    with Study.load(tmp_path) as again:
        assert again.best().values == {"a": 2.0, "gate": 0.0}


def test_every_flipped_byte_is_noticed(tmp_path, mixed):
    trials = write_study(tmp_path, mixed)
    content = (tmp_path / JOURNAL).read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for place in range(0, len(content), 3):
        bad = bytearray(content)
        bad[place] ^= 1 << place % 8
        if place < last:
            line = content.count(b"\n", 0, place) + 1
            with pytest.raises(CheckpointError, match=rf"line {line} "):
                reopened(tmp_path, bytes(bad))
        else:
            with pytest.warns(RuntimeWarning, match="not written whole"):
                assert reopened(tmp_path, bytes(bad)) == trials[:-1]


def test_a_damaged_line_end_does_not_cost_the_event_before_the_last(tmp_path, mixed):
    write_study(tmp_path, mixed)
    content = (tmp_path / JOURNAL).read_bytes()
    last = content.rindex(b"\n", 0, -1)
    with pytest.raises(CheckpointError, match="line 5 "):
        reopened(tmp_path, content[:last] + b"\x0b" + content[last + 1 :])


@pytest.mark.parametrize("change", ["drop", "swap", "repeat"])
def test_lines_out_of_place_are_refused(tmp_path, mixed, change):
    write_study(tmp_path, mixed)
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    match change:
        case "drop":
            del lines[2]
        case "swap":
            lines[2], lines[3] = lines[3], lines[2]
        case "repeat":
            lines.insert(2, lines[2])
    with pytest.raises(CheckpointError, match=r"line [34] "):
        reopened(tmp_path, b"".join(lines))


def test_a_valid_line_that_is_no_event_is_refused(tmp_path, mixed):
    write_study(tmp_path, mixed)
    journal = Journal(tmp_path)
    journal.append({"event": "tell", "number": 99, "values": {"a": 1.0, "gate": 0.0}})
    journal.close()
    with pytest.raises(CheckpointError, match="line 7 "):
        Study.load(tmp_path)


def test_no_study_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        Study.load(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(CheckpointError, match="begin with a header"):
        reopened(tmp_path, b"")


@pytest.mark.parametrize("field", ["seed", "goals", "initial"])
def test_other_settings_are_refused(tmp_path, mixed, field):
    write_study(tmp_path, mixed)
    other = {
        "seed": lambda: Study(mixed, GOALS, GATE, folder=tmp_path, seed=6),
        "goals": lambda: Study(mixed, {"a": 2.0}, GATE, folder=tmp_path, seed=5),
        "initial": lambda: Study(mixed, GOALS, GATE, folder=tmp_path, seed=5, initial=3),
    }
    with pytest.raises(DataError, match=rf"another {field};"):
        other[field]()
    Study(mixed, GOALS, GATE, folder=tmp_path, seed=5).close()


def test_bad_settings_leave_no_folder(tmp_path, mixed):
    with pytest.raises(DataError):
        Study(mixed, {"a": "max"}, folder=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_second_process_is_told_who_holds_the_study(tmp_path, mixed):
    study = Study(mixed, GOALS, GATE, folder=tmp_path, seed=5)
    program = f"from optimize import Study; Study.load({str(tmp_path)!r})"
    other = [sys.executable, "-c", program]
    refused = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"DataError: expected the study in {tmp_path} to be free" in refused.stderr
    assert f"in use by process {os.getpid()}" in refused.stderr
    study.close()
    assert subprocess.run(other, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_in_one_process_the_study_left_behind_is_refused(tmp_path, mixed):
    one = Study(mixed, GOALS, GATE, folder=tmp_path, seed=5)
    two = Study.load(tmp_path)
    two.ask()
    with pytest.raises(CheckpointError, match="changed by another study"):
        one.ask()
    assert one.trials == []
    one.close()
    two.ask()
    two.close()
    with pytest.raises(DataError, match="was closed"):
        two.ask()


def test_a_kill_between_ask_and_tell_leaves_the_trial_pending(tmp_path, mixed):
    child = os.fork()
    if child == 0:
        try:
            Study(mixed, GOALS, GATE, folder=tmp_path, seed=5).ask(2)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with Study(mixed, GOALS, GATE, folder=tmp_path, seed=5) as study:
        assert [t.number for t in study.pending()] == [0, 1]
        study.tell(0, {"a": 1.0, "gate": 0.0})
        assert [t.number for t in study.pending()] == [1]


def test_a_reloaded_study_asks_the_same_initial_points(tmp_path, mixed):
    write_study(tmp_path / "a", mixed)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with Study.load(tmp_path / "a") as a, Study.load(tmp_path / "b") as b:
        assert a.ask(3) == b.ask(3)


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path, mixed):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            study = Study(mixed, GOALS, GATE, folder=tmp_path, seed=5)
            study.ask()
            size = (tmp_path / JOURNAL).stat().st_size
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
            try:
                study.ask()
            except DataError as error:
                full = "could not write" in str(error) and "free space" in str(error)
                whole = (tmp_path / JOURNAL).stat().st_size == size
                code = 0 if full and whole and len(study.trials) == 1 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    with Study.load(tmp_path) as study:
        assert len(study.pending()) == 1


def test_a_vanished_folder_is_said_so(tmp_path, mixed):
    study = Study(mixed, GOALS, GATE, folder=tmp_path / "study", seed=5)
    shutil.rmtree(tmp_path / "study")
    with pytest.raises(DataError, match="could not write"):
        study.ask()
    assert study.trials == []
