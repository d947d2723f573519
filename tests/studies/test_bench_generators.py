"""MicroBench by the command, at toy size: floors, baselines, models, resuming, real data."""

import io
import json
import zipfile

import numpy as np
import pytest
import tifffile
import torch

from generators import ConditionalDiffusion
from generators.denoiser import PhaseDenoiser
from microstructures import Parameter, ProcessSpace
from physics.processes import SpinodalDecomposition
from studies.bench_table import Cell
from studies.chapter_page import shown
from studies.exact_truth import extents
from studies.generator_contenders import load_contender
from studies.generator_table import Metric, table
from studies.settings import GeneratorBenchSettings

ALLOY = SpinodalDecomposition()


def save_untrained(folder, *, seed=0, card="Trained for 3 CPU minutes.", **changes):
    torch.manual_seed(seed)
    options = {
        "space": ALLOY.space,
        "voxel_size_um": ALLOY.voxel_size_um,
        "periodic": (True, True),
        "phase_names": ALLOY.phase_names,
        **changes,
    }
    net = PhaseDenoiser(
        space=options["space"],
        n_phases=len(options["phase_names"]),
        periodic=options["periodic"],
        widths=(8, 8),
        blocks=1,
        latent_dim=2,
        features=8,
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ConditionalDiffusion(net, match_fractions=True, **options).save_pretrained(folder, card=card)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, command):
    """A folder with an untrained model, training data of its process, and a toy benchmark."""
    folder = tmp_path_factory.mktemp("bench")
    save_untrained(folder / "first")
    simulate = ["simulate", "--points", 40, "--cells-per-point", 1, "--shape", 16, 16]
    assert command(*simulate, "--out", folder / "data")[0] == 0
    code, out, err = command(*bench(folder, "first"), "--page", folder / "page")
    assert code == 0, err
    assert "M9 above" in out
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures, which take most of the time, are drawn once for the module."""
    monkeypatch.setattr("studies.generator_pictures.track_pictures", lambda *_: {})


def bench(folder, *models, track="A"):
    where = ["--model", *(folder / m for m in models), "--training", folder / "data"]
    return ["bench", "generators", "--quick", "--track", track, *where, "--out", folder / "run"]


def test_the_table_has_floors_baselines_and_the_model(place):
    results = json.loads((place / "run/results.json").read_text())
    section = results["sections"]["spinodal-16x16"]
    assert section["tables"][""]["columns"] == [
        "real against real",
        "Gaussian random field",
        "nearest training images",
        "first",
    ]
    rows = {row["metric"]: row for row in section["tables"][""]["rows"]}
    assert {name.split(" ")[0] for name in rows} == {f"M{k}" for k in range(1, 13)}
    columns = {row["name"]: row for row in section["facts"]["rows"]}
    # Copies are caught, fresh cells of the random field are not.
    assert columns["nearest training images"]["memorisation"]["highest"] == pytest.approx(1.0)
    assert columns["Gaussian random field"]["memorisation"]["highest"] < 0.999
    assert columns["first"]["cpu_seconds"] > 0
    assert columns["first"]["parameters"] > 100
    assert columns["first"]["training_time"] == "3 CPU minutes"
    # An untrained net misses what real against real does not.
    ratio = {
        name: {e["name"]: e["ratio"] for e in column["score"]["ensembles"]}
        for name, column in columns.items()
    }
    assert ratio["first"]["surface"] > 2 * ratio["real against real"]["surface"]
    missed = {bar["name"]: bar["met"] for bar in section["bars"]}
    assert missed["M4 surface, first"] is False
    assert all(", first" in name for name in missed)


def test_the_page_shows_it_and_was_copied(place):
    page = (place / "page/README.md").read_text()
    assert page == (place / "run/page/README.md").read_text()
    assert "Toy sizes" in page
    assert "**missed**" in page
    assert "SliceGAN" in page
    assert (place / "page/spinodal-16x16-1.png").stat().st_size > 1000
    assert not (place / "run/local").exists()


def test_another_model_uses_the_truth_that_is_there(place, command, monkeypatch, undrawn):
    def never(*_, **__):
        raise AssertionError("simulated again")

    monkeypatch.setattr(SpinodalDecomposition, "simulate", never)
    save_untrained(place / "second", seed=1)
    code, _, err = command(*bench(place, "first", "second"))
    assert code == 0, err
    results = json.loads((place / "run/results.json").read_text())
    assert set(results["models"]) == {"first", "second"}
    columns = results["sections"]["spinodal-16x16"]["tables"][""]["columns"]
    assert columns[-2:] == ["first", "second"]
    code, _, err = command(*bench(place, "first"), "--seed", 1)
    assert code == 2
    assert "seed" in err


def test_held_out_and_outer_conditions_are_stated(place, command, undrawn):
    narrow = [Parameter("composition", "-", 0.42, 0.58), *list(ALLOY.space.parameters)[1:]]
    save_untrained(place / "narrow", space=ProcessSpace(narrow))
    words = bench(place, "narrow")
    code, _, err = command(*words, "--held-out", "composition=0.48:0.58")
    assert code == 0, err
    sections = json.loads((place / "run/results.json").read_text())["sections"]
    (name,) = sections
    assert name.startswith("spinodal-16x16-"), "another window is another truth"
    rows = sections[name]["tables"][""]["rows"]
    text = next(row["cells"] for row in rows if row["metric"].startswith("M11"))[-1]["text"]
    inner, edge = text.split("; ")
    assert inner.startswith("inner: ")
    assert "x seen" in edge
    assert edge.endswith("100 % flagged")
    code, _, err = command(*words, "--held-out", "pressure=0:1")
    assert code == 2
    assert "pressure" in err


def test_a_model_of_no_track_is_refused(place, command):
    save_untrained(place / "strange", phase_names=("up", "down"))
    code, _, err = command(*bench(place, "strange"))
    assert code == 2
    assert "strange" in err


def test_measured_data_without_models_gives_floors_and_stays_local(tmp_path, command, monkeypatch):
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for name in ("spherulite_phasefield", "electrodes", "rock_microct_berea"):
        (data / name).mkdir(parents=True)
    wanted = np.repeat([0.506, 0.589, 0.633], 6)[:, None, None]
    np.savez(
        data / "spherulite_phasefield/spherulites.npz",
        phase=(rng.random((18, 16, 16)) < wanted).astype(np.uint8),
        temperature_C=np.repeat([160, 180, 200], 6).astype(np.float32),
    )
    for name in ("NMC_lr_input", "SOFC_lr_input"):
        most = 2 if name.startswith("NMC") else 3
        np.savez(data / f"electrodes/{name}.npz", phase=rng.integers(0, most, (48,) * 3, np.uint8))
    stream = io.BytesIO()
    tifffile.imwrite(stream, (255 * (rng.random((52,) * 3) > 0.2)).astype(np.uint8))
    with zipfile.ZipFile(data / "rock_microct_berea/berea.zip", "w") as archive:
        archive.writestr("berea.tif", stream.getvalue())
    monkeypatch.setenv("MESOFORGE_DATA", str(data))
    words = ["bench", "generators", "--quick", "--track", "B", "C", "--model"]
    save_untrained(tmp_path / "model")
    rock = {"space": ProcessSpace([]), "periodic": (False, False), "phase_names": ("grain", "pore")}
    save_untrained(tmp_path / "berea-model", **rock)
    models = [tmp_path / "model", tmp_path / "berea-model"]
    code, _, err = command(*words, *models, "--out", tmp_path / "run")
    assert code == 0, err
    sections = json.loads((tmp_path / "run/results.json").read_text())["sections"]
    assert set(sections) == {"spherulites", "uhcs", "berea", "nmc", "sofc"}
    assert "Not measured" in sections["uhcs"]["about"]
    rows = {row["metric"]: row for row in sections["berea"]["tables"][""]["rows"]}
    assert rows["M4 surface"]["asked"] == "at most 3 %"
    assert rows["M4 surface"]["floor"].endswith("%")
    # A model of sections enters as the volumes that are made of it; others have no model.
    assert sections["berea"]["tables"][""]["columns"][-1] == "berea-model"
    assert sections["berea"]["facts"]["rows"][-1]["cpu_seconds"] > 0
    assert "No model was given" in sections["nmc"]["about"]
    assert "standard error" in sections["berea"]["about"]
    # Three blocks of 16 along each axis, with a section before, between and behind them.
    assert "sections are 0, 17, 34, 51 along each axis" in sections["berea"]["about"]
    assert "27 real blocks of 16 x 16 x 16" in sections["berea"]["about"]
    assert "The 12 sections at hand against the blocks (" in sections["berea"]["about"]
    assert sections["berea"]["facts"]["rows"][-1]["interfaces"] > 0
    page = (tmp_path / "run/page/README.md").read_text()
    # What was made may be shown in public, measured data only here.
    assert "berea-1.png" in page
    assert "nmc-1.png" not in page
    assert not list((tmp_path / "run/page").glob("nmc*.png"))
    assert "png" in (tmp_path / "run/local/README.md").read_text()


def test_bars_are_for_models_alone():
    metric = Metric("M0", "at most 1", lambda c: "5", lambda c: 5.0, lambda v: v <= 1)
    made = table([metric], [column("model"), column("baseline")])
    assert [cell.met for cell in made.rows[0].cells] == [False, None]
    (bar,) = made.bars()
    assert (bar.name, bar.met) == ("M0, model", False)
    assert shown(Cell("5", False)) == "5 **missed**"
    assert shown(Cell("5", True)) == "5 reached"


def column(role):
    from studies.generator_table import Column

    return Column({"name": role, "role": role})


def test_small_has_the_counts_of_microbench():
    (small,) = extents(2, "small")
    assert (small.shape, small.points, small.cells) == ((64, 64), 40, 64)
    assert (small.nearest, small.held_out) == (2000, 5000)
    assert [e.shape for e in extents(2, "full")] == [(64, 64), (128, 128)]


def test_a_contender_is_known_by_its_weights(tmp_path):
    first, second = (load_contender(str(save_untrained(tmp_path / "m", seed=k))) for k in (0, 1))
    assert first.name == second.name == "m"
    assert first.stage != second.stage
    assert GeneratorBenchSettings().track == ("A", "B", "C")
