"""Run folders: locked, tied to their settings, resumed stage by stage."""

import multiprocessing

import numpy as np
import pytest

from microstructures import CheckpointError, DataError
from studies.run_folder import Stage, find_folder, load_stage, open_run, run_settings
from studies.settings import SimulateSettings

SETTINGS = SimulateSettings(points=2)


def count_stage(run, made):
    def work():
        made.append(1)
        return Stage({"n": 3}, {"field": np.arange(6.0).reshape(2, 3)})

    return run.stage("one", work)


def test_a_finished_stage_is_read_and_not_repeated(tmp_path):
    made: list[int] = []
    for _ in range(2):
        with open_run(tmp_path / "run", SETTINGS, verb="simulate") as run:
            stage = count_stage(run, made)
    assert made == [1]
    assert stage.facts == {"n": 3}
    np.testing.assert_array_equal(stage.arrays["field"], np.arange(6.0).reshape(2, 3))
    assert run_settings(tmp_path / "run")["verb"] == "simulate"


def test_other_settings_are_refused_and_named(tmp_path):
    with open_run(tmp_path / "run", SETTINGS, verb="simulate") as run:
        count_stage(run, [])
    other = SETTINGS.model_copy(update={"seed": 9})
    with (
        pytest.raises(DataError, match=r"seed: 0.*seed: 9"),
        open_run(tmp_path / "run", other, verb="simulate"),
    ):
        pass


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(DataError, match="other files"), open_run(tmp_path, SETTINGS, verb="x"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_refused_command_leaves_no_folder(tmp_path):
    with pytest.raises(DataError), open_run(tmp_path / "a" / "run", SETTINGS, verb="simulate"):
        raise DataError("bad input")
    assert list(tmp_path.iterdir()) == []


def test_other_inputs_are_refused_and_named(tmp_path):
    for known in ("old", "old"):
        with open_run(tmp_path / "run", SETTINGS, verb="x", inputs={"gate_sha256": known}) as run:
            count_stage(run, [])
    with (
        pytest.raises(DataError, match=r"gate_sha256: old.*gate_sha256: new"),
        open_run(tmp_path / "run", SETTINGS, verb="x", inputs={"gate_sha256": "new"}),
    ):
        pass


def _try(path, answers):
    try:
        with open_run(path, SETTINGS, verb="simulate"):
            answers.put("opened")
    except DataError as error:
        answers.put(str(error))


def test_two_commands_do_not_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with open_run(tmp_path / "run", SETTINGS, verb="simulate"):
        other = context.Process(target=_try, args=(tmp_path / "run", answers))
        other.start()
        said = answers.get(timeout=30)
        other.join()
    assert "no other command at work" in said


def test_an_altered_stage_is_noticed(tmp_path):
    with open_run(tmp_path / "run", SETTINGS, verb="simulate") as run:
        count_stage(run, [])
    facts = tmp_path / "run" / "stages" / "one" / "facts.json"
    facts.write_text(facts.read_text().replace("3", "4"))
    with pytest.raises(CheckpointError, match=r"facts\.json"):
        load_stage(tmp_path / "run", "one")


def test_leftovers_of_a_killed_command_are_swept(tmp_path):
    with open_run(tmp_path / "run", SETTINGS, verb="simulate") as run:
        count_stage(run, [])
    leftover = tmp_path / "run" / "stages" / "two.partial-123"
    leftover.mkdir()
    (tmp_path / "run" / "results.json.partial-9").write_text("{")
    with open_run(tmp_path / "run", SETTINGS, verb="simulate"):
        assert not leftover.exists()
        assert not list((tmp_path / "run").glob("*.partial-*"))


def test_models_and_data_are_found_in_their_run(tmp_path):
    (tmp_path / "run" / "dataset").mkdir(parents=True)
    (tmp_path / "run" / "dataset" / "manifest.json").write_text("{}")
    assert find_folder(tmp_path / "run", "dataset") == tmp_path / "run" / "dataset"
    assert find_folder(tmp_path / "run", "model") == tmp_path / "run"
