"""Bad data, weights and shapes end in one sentence and exit code 2, with nothing half-written."""

import json

import numpy as np
import pytest
import torch

from generators.diffusion import ConditionalDiffusion
from generators.diffusion_training import DiffusionSettings, initial_objective
from microstructures import Microstructure, MicrostructureDataset, Parameter, ProcessSpace
from networks.saving import save_model

TINY = ["widths=[8,8]", "features=32", "latent_dim=2", "training.steps=6"]
SPACE = ProcessSpace([Parameter("T", "K", 300.0, 305.0)])


def refused(command, words, out):
    """Run a command that must fail in one line and leave nothing; return that line."""
    code, _, err = command(*words, "--out", out)
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1
    assert not out.exists()
    return err


def write_maps(folder, *, shapes, labels=(0, 1), column="T [K]", values=None):
    """Write random label maps and their table; return the words that import them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    values = range(300, 300 + len(shapes)) if values is None else values
    rows = ["file" + (f",{column}" if column else "")]
    for k, (shape, value) in enumerate(zip(shapes, values, strict=True)):
        np.save(folder / f"m{k}.npy", rng.choice(np.array(labels, np.uint8), size=shape))
        rows.append(f"m{k}.npy" + (f",{value}" if column else ""))
    (folder / "table.csv").write_text("\n".join(rows))
    return ["import", folder, "--table", folder / "table.csv"]


SIX = [(16, 16)] * 6
IMPORTS = {
    "one phase": ({"shapes": SIX, "labels": (0,)}, ["at least two labels", "only 0"]),
    "no process column": ({"shapes": SIX, "column": ""}, ["at least one process parameter"]),
    "constant number": ({"shapes": SIX, "values": [300] * 6}, ["different values", "only 300"]),
    "constant choice": (
        {"shapes": SIX, "values": ["oil"] * 6, "column": "cooling [-]"},
        ["different values", "only 'oil'"],
    ),
    "sizes": ({"shapes": [*SIX[:5], (24, 16)]}, ["m5.npy", "16 x 16", "24 x 16", "crop"]),
    "axes": ({"shapes": [*SIX * 2, (16, 16, 16)]}, ["m12.npy", "16 x 16 voxels as of m0.npy"]),
    "voxel sizes": (
        {"shapes": SIX, "column": "T [K],v", "values": [f"{300 + k},{1 + k}" for k in range(6)]},
        ["one voxel size", "1 to 6 um", "resample_to_um"],
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_maps_that_make_no_data_set_are_refused(command, tmp_path, name):
    about, said = IMPORTS[name]
    words = write_maps(tmp_path / "maps", **about)
    if name == "voxel sizes":
        (tmp_path / "settings.yaml").write_text("voxel_size_column: v\n")
        words += ["--settings", tmp_path / "settings.yaml"]
    error = refused(command, words, tmp_path / "out")
    assert all(text in error for text in said), error


SETTINGS = "parameters:\n  - {name: T, unit: K, low: 290, high: 320}\nphase_names: [a, b]\n"
TRAININGS = {
    "three maps": ({"shapes": SIX[:3]}, [], "at least 4 imported maps"),
    "one phase": ({"shapes": SIX, "labels": (1,)}, [], "only 'b'"),
    "constant": ({"shapes": SIX, "values": [300] * 6}, [], "two values of T"),
    "no multiple": ({"shapes": [(18, 18)] * 6}, ["widths=[8,8,8]"], "multiples of 8, got (18, 18)"),
    "divergence": ({"shapes": SIX}, ["training.learning_rate=1e30"], "3 non-finite steps in a row"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_data_that_teaches_nothing_is_refused(command, tmp_path, name):
    about, change, said = TRAININGS[name]
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    words = write_maps(tmp_path / "maps", **about)
    words += ["--settings", tmp_path / "settings.yaml", "--out", tmp_path / "data"]
    assert command(*words)[0] == 0
    values = [*TINY, "training.gradient_clip=1e30", *change]
    words = ["train", "generator", "--data", tmp_path / "data", "--set", *values]
    assert said in refused(command, words, tmp_path / "run")


@pytest.mark.parametrize(("family", "value"), [("vae", "rungs=[1,1]"), ("gan", "blocks=[1,1]")])
def test_a_net_of_unequal_lists_is_refused(command, tmp_path, family, value):
    data = tmp_path / "data"
    assert command(*write_maps(tmp_path / "maps", shapes=SIX), "--out", data)[0] == 0
    words = ["train", "generator", "--family", family, "--data", data, "--set", value]
    assert "of one length" in refused(command, words, tmp_path / "run")


@pytest.fixture(scope="module")
def model():
    """An untrained generator of two phases."""
    cells = [Microstructure(np.eye(16, dtype=np.uint8), process={"T": 300.0 + k}) for k in range(6)]
    data = MicrostructureDataset.from_structures(cells, SPACE)
    small = DiffusionSettings(widths=(8, 8), features=32, latent_dim=2)
    net = initial_objective(data, small).denoiser
    return ConditionalDiffusion.of_dataset(net, data, match_fractions=True, steps=2)


def altered(config, name):
    """Return the config of a foreign model."""
    net = config["net"]
    changes = {
        "widths": {"net": {**net, "widths": [16, 8]}},
        "argument": {"net": {**net, "depth": 3}},
        "names": {"phase_names": ["a", "b", "c"]},
        "no net": {"net": None},
        "space": {"net": {**net, "space": [{"name": "T"}]}},
    }
    return {**config, **changes.get(name, {})}


@pytest.mark.parametrize("name", ["widths", "argument", "names", "no net", "space", "infinite"])
def test_foreign_weights_are_refused(command, model, tmp_path, name):
    folder = model.save_pretrained(tmp_path / "saved")
    config = altered(json.loads((folder / "config.json").read_text()), name)
    state = dict(model.net.state_dict())
    if name == "infinite":
        first = next(k for k, v in state.items() if v.is_floating_point())
        state[first] = torch.full_like(state[first], torch.inf)
    foreign = tmp_path / "foreign"
    save_model(foreign, name="ConditionalDiffusion", config=config, state=state, card="")
    words = ["generate", foreign, "--shape", 16, 16, "--set", "T=302"]
    said = "finite weights" if name == "infinite" else "do not fit"
    error = refused(command, words, tmp_path / "out")
    assert str(foreign) in error
    assert said in error


def test_shapes_between_multiples_are_refused_with_what_fits(command, model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    words = ["generate", tmp_path / "model", "--shape", 18, 16, "--set", "T=302"]
    error = refused(command, words, tmp_path / "out")
    assert "multiples of 4, got (18, 16); draw (20, 16)" in error
