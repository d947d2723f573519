"""Own maps and a table: import, fine-tuning with early stopping, report, map over the window."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from studies.models import load_generator

NET = ["widths=[8,16]", "features=32", "latent_dim=2", "match_fractions=false"]
STEPS = ["training.steps=2", "training.batch_size=4", "training.warmup_steps=1"]
STOP = [
    "early_stopping.use_all=false",
    "early_stopping.every=1",
    "early_stopping.samples=8",
    "early_stopping.held_out_share=0.3",
]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Eight label maps of stripes along x, coarser with time, and their table."""
    folder = tmp_path_factory.mktemp("own") / "maps"
    folder.mkdir()
    draw, lines = np.random.default_rng(0), ["file,time [h],temperature [K]"]
    for k in range(8):
        width = 1 + k % 4
        line = ((np.arange(48) + draw.integers(9)) // width) % 2
        picture = np.tile(line[:, None], (1, 48)) ^ (draw.random((48, 48)) < 0.05)
        Image.fromarray(picture.T.astype(np.uint8)).save(folder / f"map{k}.png")
        lines.append(f"map{k}.png,{width},{700 + 10 * (k // 4)}")
    (folder.parent / "table.csv").write_text("\n".join(lines))
    (folder.parent / "import.yaml").write_text("crop: 16\ncrops_per_map: 3\nvoxel_size_um: 1\n")
    return folder


@pytest.fixture(scope="module")
def data(command, maps):
    """The imported data set."""
    home = maps.parent
    words = ["import", maps, "--table", home / "table.csv", "--settings", home / "import.yaml"]
    code, _, err = command(*words, "--out", home / "data")
    assert code == 0, err
    return home / "data"


@pytest.fixture(scope="module")
def source(command, workshop, tmp_path_factory):
    """The small generator of the workshop, of another process and periodic cells."""
    return workshop / "generator"


@pytest.fixture(scope="module")
def tuned(command, data, source):
    """A run that fine-tuned with early stopping, and its control."""
    out = data.parent / "tuned"
    words = ["train", "generator", "--data", data, "--init-from", source, "--control"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("generators.code_prior.STEPS", 5)
        code, said, err = command(
            *words, "--out", out, "--set", *NET, *STEPS, *STOP, "isotropic=auto", "flips=auto"
        )
    assert code == 0, err
    return out, said


def test_the_run_says_what_it_took_over_what_it_turned_and_where_it_stopped(tuned):
    out, said = tuned
    assert "tensors taken over" in said
    assert "process.unknown" in said
    assert "axes are not exchanged" in said
    assert "nearest to the held-out specimens at step" in said
    history = json.loads((out / "early-stopping.json").read_text())
    assert [row["step"] for row in history["history"]] == [1, 2]
    assert (out / "control-early-stopping.json").is_file()
    assert "init_from_sha256" in (out / "settings.yaml").read_text()
    model, control = load_generator(str(out)), load_generator(str(out / "control"))
    pairs = zip(model.net.parameters(), control.net.parameters(), strict=True)
    assert any((a != b).any() for a, b in pairs)


def test_the_report_has_control_memorisation_and_history(command, tuned, data, tmp_path):
    out, _ = tuned
    words = ["report", out, "--against", data, "--training", data, "-n", 6]
    code, said, err = command(*words, "--out", tmp_path / "report")
    assert code == 0, err
    assert "nearer to a training image" in said
    facts = json.loads((tmp_path / "report" / "fidelity.json").read_text())
    assert facts["memorisation"]["against_other_maps"] is True
    assert facts["memorisation"]["held_out"] == 24
    assert len(facts["control"]["metrics"]) == 6
    page = (tmp_path / "report" / "report.html").read_text()
    for heading in ("Control: trained from scratch", "judged on held-out", "Memorisation"):
        assert heading in page


def test_copies_of_training_images_are_found(data):
    from microstructures import MicrostructureDataset
    from studies.memorisation_report import find_copies

    dataset = MicrostructureDataset.open(data / "dataset")
    copies = dataset.phases[::3].roll(3, 1).flip(2)
    found = find_copies(copies, dataset, dataset)
    assert found.found.share > 0.5
    assert found.found.highest == pytest.approx(1.0, abs=1e-4)
    assert found.median_real < 0.99


def test_a_measured_value_is_mapped_with_noise_and_density(command, tuned, tmp_path):
    out, _ = tuned
    words = ["report", out, "--map", "mean_chord_x_um", "-n", 2, "--points", 3]
    words += ["--shape", 16, 16]
    code, said, err = command(*words, "--out", tmp_path / "window")
    assert code == 0, err
    assert "median standard error" in said
    rows = list(csv.DictReader((tmp_path / "window" / "window.csv").read_text().splitlines()))
    assert len(rows) == 3 * 3 * 2
    assert {float(row["time"]) for row in rows} >= {1.0, 4.0}
    assert all(0 <= float(row["training_density"]) <= 1 for row in rows)
    assert float(rows[0]["volume_fraction standard error"]) >= 0
    assert (tmp_path / "window" / "window.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--map", "hardness"], "expected a measure of volume_fraction"),
        (["--map", "volume_fraction", "--phase", "austenite"], "expected a phase of"),
        (["--map", "volume_fraction", "--where", "time=2", "temperature=700"], "leaves free"),
        (["--map", "volume_fraction", "--where", "pressure=2"], "pressure"),
    ],
)
def test_a_map_that_cannot_be_is_refused(command, tuned, tmp_path, words, said):
    code, _, err = command("report", tuned[0], *words, "--out", tmp_path / "window")
    assert code == 2
    assert said in err
    assert not (tmp_path / "window").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--init-from", "no-such-model"], "no-such-model"),
        (["--init-from", "spinodal-2d-gan"], "expected a ConditionalDiffusion"),
        (["--control"], "expected --init-from with --control"),
        (["--set", "early_stopping.patience=0"], "patience"),
        (["--set", "noise_range=[20,0.3]"], "noise_range"),
        (["--set", "early_stopping.every=2"], "at least two specimens"),
    ],
)
def test_options_that_do_not_fit_are_refused(command, maps, tmp_path, data, words, said):
    if "two specimens" in said:
        table = tmp_path / "table.csv"
        rows = (maps.parent / "table.csv").read_text().splitlines()
        table.write_text(
            "\n".join([rows[0] + ",piece", *(f"{row},one" for row in rows[1:])]), encoding="utf-8"
        )
        settings = tmp_path / "import.yaml"
        settings.write_text("crop: 16\ncrops_per_map: 3\nspecimen_column: piece\n")
        words_in = ["import", maps, "--table", table, "--settings", settings]
        code, _, err = command(*words_in, "--out", tmp_path / "data")
        assert code == 0, err
        data = tmp_path / "data"
    code, _, err = command("train", "generator", "--data", data, *words, "--out", tmp_path / "run")
    assert code == 2, err
    assert said in err
    assert not (tmp_path / "run").exists()
