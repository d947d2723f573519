"""The command: it answers fast, and refuses bad input in one sentence with exit code 2."""

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from microstructures import Microstructure, MicrostructureDataset
from microstructures.vtkhdf import write_vtkhdf
from studies.models import make_simulator
from studies.settings import ProcessName

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-W", "ignore", "-c", "from studies.command import main; main()"]


def assert_refused(answer, *words):
    """One sentence on stderr that holds the words, exit code 2, no traceback."""
    code, _, err = answer
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err


@pytest.fixture
def maps(tmp_path):
    """A folder of two label maps with a good table beside it."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for name in ("a", "b"):
        picture = np.zeros((32, 32), np.uint8)
        picture[:, ::2] = 1
        Image.fromarray(picture).save(folder / f"{name}.png")
    (tmp_path / "good.csv").write_text("file,anneal_time [h]\na.png,1\nb.png,2\n")
    return folder


def test_help_comes_at_once():
    # The process's own seconds: other work on the machine does not count against it.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*RUN, "--help"], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "design" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_help_imports_nothing_heavy():
    code = (
        "import sys, studies.command\n"
        "heavy = {'torch', 'botorch', 'diffusers', 'neuralop', 'matplotlib', 'h5py', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simulate", "--seed", "-1"], "seed"),
        (["simulate", "--points", "many"], "points"),
        (["simulate", "--colour", "red"], "--colour"),
        (["nonsense"], "nonsense"),
        (["design", "--poisson-ratio", "0.3", "0.5"], "poisson_ratio"),
        (["design", "--target-c11-gpa", "nan"], "target_c11_gpa"),
        (["design", "--settings", "absent.yaml"], "absent.yaml"),
        (["design", "--generator", "no-such-model"], "no-such-model"),
        (["generate", "no-such-model"], "no-such-model"),
        (["generate", "x", "--set", "temperature"], "name=value"),
        (["simulate", "--range", "composition=0.5:0.4"], "0.5 to 0.4"),
        (["simulate", "--range", "composition=0.1:0.4"], "composition"),
        (["simulate", "--range", "composition=low"], "name=low:high"),
        (["simulate", "--range", "pressure=1:2"], "pressure"),
        (["train", "generator", "--data", "absent", "--out", "out"], "absent"),
        (["report", "absent"], "absent"),
        (["predict", "absent.png"], "absent.png"),
        (["import", "absent", "--table", "absent.csv"], "absent"),
    ],
)
def test_bad_words_are_refused_in_one_sentence(mesoforge, tmp_path, words, said):
    assert_refused(mesoforge(*words), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,anneal_time [h]\na.png,1\n", "b.png"),
        ("file,anneal_time\na.png,1\nb.png,2\n", "unit"),
        ("file,anneal_time [h],colour\na.png,1,red\nb.png,2,red\n", "colour"),
        ("file,anneal_time [h]\na.png,nan\nb.png,2\n", "nan"),
        ("file,anneal_time [h]\na.png,1\nb.png,2\nc.png,3\n", "c.png"),
    ],
)
def test_a_bad_table_is_refused_and_nothing_written(mesoforge, tmp_path, maps, table, said):
    (tmp_path / "bad.csv").write_text(table)
    assert_refused(mesoforge("import", maps, "--table", "bad.csv", "--out", "out"), said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("expected_shape: [64, 64]", "(64, 64)"),
        ("values: {0: 0, 7: 1}", "1"),
        ("crop: 48", "48"),
        ("parameters: [{name: anneal_time, unit: h, low: 5, high: 1}]", "5"),
    ],
)
def test_bad_maps_are_refused_and_nothing_written(mesoforge, tmp_path, maps, settings, said):
    (tmp_path / "import.yaml").write_text(settings)
    words = ["import", maps, "--table", "good.csv", "--settings", "import.yaml", "--out", "out"]
    assert_refused(mesoforge(*words), said)
    assert not (tmp_path / "out").exists()


def test_import_makes_a_data_set(mesoforge, tmp_path, maps):
    code, _, err = mesoforge("import", maps, "--table", "good.csv", "--out", "out")
    assert code == 0, err
    assert (tmp_path / "out" / "dataset" / "manifest.json").is_file()


def test_predict_refuses_too_few_materials(mesoforge, tmp_path, maps):
    answer = mesoforge("predict", maps / "a.png", "--youngs-modulus-gpa", "20", "--solver")
    assert_refused(answer, "youngs_modulus_gpa")
    assert not (tmp_path / "runs").exists()


def test_predict_names_the_file_with_an_unknown_label_and_writes_nothing(mesoforge, tmp_path, maps):
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 8:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    answer = mesoforge("predict", maps / "a.png", "mask.png", "--solver", "--out", "out")
    assert_refused(answer, "mask.png", "label 255", "--values 0 255")
    assert not (tmp_path / "out").exists()


def test_predict_takes_a_map_that_lacks_a_phase(mesoforge, tmp_path):
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "soft.png")
    code, _, err = mesoforge("predict", "soft.png", "--solver", "--out", "out")
    assert code == 0, err
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert found["c11_gpa"]["value"] == pytest.approx(20 * 0.67 / (1.33 * 0.34), rel=1e-12)


def test_import_passes_over_hidden_files(mesoforge, tmp_path, maps):
    (maps / ".checkpoints").mkdir()
    (maps / ".checkpoints" / "a.png").write_bytes((maps / "a.png").read_bytes())
    code, _, err = mesoforge("import", maps, "--table", "good.csv", "--out", "out")
    assert code == 0, err


def test_predict_refuses_an_unreadable_file(mesoforge, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    assert_refused(mesoforge("predict", "broken.png", "--solver"), "broken.png")


def test_predict_by_the_solver_writes_stiffness_and_fields(mesoforge, tmp_path):
    stripes = np.zeros((16, 16), np.uint8)
    stripes[8:] = 1
    write_vtkhdf(Microstructure(stripes), tmp_path / "stripes.vtkhdf")
    code, _, err = mesoforge("predict", "stripes.vtkhdf", "--solver", "--out", "out")
    assert code == 0, err
    (found,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    soft, stiff = 20 * 0.67 / (1.33 * 0.34), 200 * 0.75 / (1.25 * 0.5)
    assert found["c11_gpa"]["value"] == pytest.approx(2 / (1 / soft + 1 / stiff), rel=1e-9)
    assert found["level"] == "discrete"
    assert (tmp_path / "out" / found["fields"]).is_file()


def test_a_dry_run_prints_settings_and_cost_and_writes_nothing(mesoforge, tmp_path):
    code, out, _ = mesoforge("simulate", "--points", "5", "--dry-run")
    assert code == 0
    assert "points: 5" in out
    assert "minutes" in out
    assert list(tmp_path.iterdir()) == []


def test_doctor_finds_nothing_broken(mesoforge):
    code, out, _ = mesoforge("doctor")
    assert code == 0, out
    assert "laminate" in out


SMALL = ["simulate", "--points", "4", "--cells-per-point", "1", "--shape", "16", "16"]


def test_simulate_repeats_as_nothing_and_refuses_other_settings(mesoforge, tmp_path):
    assert mesoforge(*SMALL, "--out", "out")[0] == 0
    manifest = (tmp_path / "out" / "dataset" / "manifest.json").read_bytes()
    assert mesoforge(*SMALL, "--out", "out")[0] == 0
    assert (tmp_path / "out" / "dataset" / "manifest.json").read_bytes() == manifest
    assert_refused(mesoforge(*SMALL, "--seed", "4", "--out", "out"), "seed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_simulation_says_how_to_resume(tmp_path, number, code):
    words = ["simulate", "--points", "3000", "--shard", "1", "--shape", "32", "32"]
    # A shell starts background jobs, CI's among them, with Ctrl-C ignored: undo that.
    process = subprocess.Popen(
        [*RUN, *words, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/dataset.building/shard-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "to resume, repeat: mesoforge simulate" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out" / "dataset").exists()


@pytest.mark.parametrize("process", get_args(ProcessName))
def test_every_process_makes_a_data_set(mesoforge, tmp_path, process):
    words = ["simulate", "--process", process, "--points", "2", "--cells-per-point", "2"]
    code, _, err = mesoforge(*words, "--shape", "48", "48", "--out", tmp_path / "run")
    assert code == 0, err
    dataset = MicrostructureDataset.open(tmp_path / "run/dataset")
    cells = [dataset[k] for k in range(len(dataset))]
    assert len(cells) == 4
    space = make_simulator(process).space
    assert all(set(cell.process) == set(space.names) for cell in cells)
    # Two seeds at one point differ; the same cell again is the same.
    assert not np.array_equal(cells[2].phases, cells[3].phases) or np.ptp(cells[2].phases) == 0
    again = make_simulator(process).simulate(cells[2].process, shape=(48, 48), seed=0, first=2)
    assert np.array_equal(again[0].phases, cells[2].phases)
