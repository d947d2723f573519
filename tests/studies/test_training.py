"""The verb `train` for each family of generators."""

import pytest

from generators import ConditionalDiffusion, ConditionalGAN, ConditionalVAE
from studies.models import load_generator

TINY = {
    "diffusion": ["widths=[8,16]", "features=32", "latent_dim=2"],
    "gan": [
        "widths=[8,8]",
        "blocks=[1,1]",
        "critic_widths=[8,8]",
        "encoder_widths=[8,8]",
        "features=32",
        "latent_dim=2",
    ],
    "vae": ["widths=[8,8]", "rungs=[1,1]", "noise_channels=[2,2]", "features=32", "latent_dim=2"],
}
STEPS = ["training.steps=2", "training.batch_size=4", "training.warmup_steps=1"]


@pytest.fixture(scope="module")
def data(command, tmp_path_factory):
    """A small data set made by the command."""
    folder = tmp_path_factory.mktemp("data")
    words = ["simulate", "--points", 6, "--cells-per-point", 1, "--shape", 16, 16]
    assert command(*words, "--out", folder / "data")[0] == 0
    return folder / "data"


@pytest.mark.parametrize(
    ("family", "model"),
    [("diffusion", ConditionalDiffusion), ("gan", ConditionalGAN), ("vae", ConditionalVAE)],
)
def test_a_family_is_trained_and_found_again(command, data, tmp_path, family, model, monkeypatch):
    monkeypatch.setattr("generators.fraction_head.STEPS", 20)
    monkeypatch.setattr("generators.gan_training.FIT_STEPS", 20)
    words = ["train", "generator", "--family", family, "--data", data, "--out", tmp_path / "run"]
    code, _, err = command(*words, "--set", *TINY[family], *STEPS)
    assert code == 0, err
    generator = load_generator(str(tmp_path / "run"))
    assert type(generator) is model
    assert 0 < generator.density({"composition": 0.5})[0] <= 1
    structures = tmp_path / "structures"
    words = ["generate", tmp_path / "run", "-n", 1, "--shape", 16, 16, "--out", structures]
    code, _, err = command(*words, "--set", "composition=0.5")
    assert code == 0, err


def test_an_unknown_family_and_foreign_settings_are_refused(command, data, tmp_path):
    words = ["train", "generator", "--data", data, "--out", tmp_path / "run"]
    code, _, err = command(*words, "--family", "flow")
    assert code == 2
    assert "flow" in err
    code, _, err = command(*words, "--family", "diffusion", "--set", "rungs=[1,1]")
    assert code == 2
    assert "rungs" in err
    assert not (tmp_path / "run").exists()
