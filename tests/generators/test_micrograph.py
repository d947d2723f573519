"""Rendering grey micrographs: the diffusion, its constraints, and what it learns."""

import numpy as np
import pytest
import torch

from generators.micrograph import MicrographRenderer
from generators.micrograph_training import GreyObjective, MicrographSettings, train_micrographs
from microstructures import CheckpointError, DataError, Microstructure, Parameter, ProcessSpace
from microstructures.dataset import MicrostructureDataset
from networks import TrainingSettings

SPACE = ProcessSpace([Parameter("side", "-", scale="choice", choices=("left", "right"))])


def pictures(shape, n=6, *, contrast=60.0, periodic=True):
    """Blocks of phase 1; grey 80 and 80 + contrast, the right side 40 brighter, some noise."""
    rng = np.random.default_rng(1)
    made = []
    for k in range(n):
        coarse = rng.integers(0, 2, [s // 4 for s in shape])
        phases = coarse.repeat(4, 0).repeat(4, 1)
        phases = phases.repeat(4, 2) if len(shape) == 3 else phases
        side = ("left", "right")[k % 2]
        grey = 80 + contrast * phases + 40 * (side == "right") + 5 * rng.standard_normal(shape)
        structure = Microstructure(
            phases, process={"side": side}, periodic=(periodic,), phase_names=("dark", "bright")
        )
        made.append(structure.with_channels(grey=grey.round().astype(np.uint8)))
    return made


def trained(tmp_path, structures, *, steps=1, **changes):
    settings = MicrographSettings(
        **{
            "widths": (16, 16),
            "features": 16,
            "steps": 8,
            "training": TrainingSettings(
                steps=steps, batch_size=4, learning_rate=4e-3, ema_steps=20, warmup_steps=5
            ),
            **changes,
        }
    )
    names = [f"picture {k}" for k in range(len(structures))]
    data = MicrostructureDataset.from_structures(structures, SPACE, sources=names)
    return train_micrographs(data, settings, tmp_path / "model")


def test_a_perfect_net_has_no_loss(tmp_path):
    renderer = trained(tmp_path, pictures((8, 8)))
    net, clean = renderer.net, torch.randn(2, 1, 8, 8, dtype=torch.float64)
    sigma, noise = torch.tensor([0.1, 3.0]), torch.randn_like(clean)

    def perfect(x, level, *_):
        # What F must be for c_skip x + c_out F to be the clean image.
        s = level.double().view(-1, 1, 1, 1)
        return (clean - x / (1 + s**2)) * (1 + s**2).sqrt() / s

    net.raw = perfect
    empty = torch.zeros(2, 1)
    loss, _ = GreyObjective(net)(clean, clean, empty, torch.ones(2, 2), sigma.double(), noise)
    assert float(loss) < 1e-20


def test_it_learns_the_grey_of_phases_and_the_tone_of_each_process(tmp_path):
    renderer = trained(tmp_path, pictures((16, 16)), steps=200)
    fresh = [
        Microstructure(p.phases, process={"side": side}, phase_names=p.phase_names)
        for p in pictures((16, 16), n=2)
        for side in ("left", "right")
    ]
    made = renderer.render(fresh, seed=0)
    for structure in made:
        grey = structure.channels["grey"].astype(float)
        assert grey.shape == structure.shape
        dark, bright = grey[structure.phases == 0].mean(), grey[structure.phases == 1].mean()
        assert bright - dark == pytest.approx(60, abs=15)
    left, right = (
        np.mean([m.channels["grey"].mean() for m in made if m.process["side"] == side])
        for side in ("left", "right")
    )
    assert right - left == pytest.approx(40, abs=12)
    asked = renderer.render(fresh[:1], seed=0, brightness=200.0, contrast=10.0)[0].channels["grey"]
    assert asked.mean() == pytest.approx(200, abs=8)
    assert asked.std() == pytest.approx(10, rel=0.35)


@pytest.mark.parametrize("shape", [(8, 12), (8, 8, 12)])
def test_pictures_depend_on_seed_and_number_and_wrap_around(tmp_path, shape):
    structures = pictures(tuple(4 * (s // 4) for s in shape), n=3)
    renderer = trained(tmp_path, structures, steps=3)
    first = [m.channels["grey"] for m in renderer.render(structures, seed=5)]
    again = [m.channels["grey"] for m in renderer.render(structures[:2], seed=5)]
    other = renderer.render(structures[:1], seed=6)[0].channels["grey"]
    np.testing.assert_array_equal(first[:2], again)
    assert (first[0] != other).any()
    phases = torch.from_numpy(structures[0].phases)[None]
    arguments = (torch.zeros(1, 1), torch.tensor([[120.0, 30.0]]))
    noise = torch.randn(1, 1, *shape)
    wraps = (True,) * len(shape)
    plain = renderer._drawn(phases, *arguments, noise, wraps, 8)
    shifted = renderer._drawn(phases.roll(4, 1), *arguments, noise.roll(4, 2), wraps, 8)
    assert (plain.roll(4, 1).int() - shifted.int()).abs().max() <= 1
    framed = renderer._drawn(phases, *arguments, noise, (False,) * len(shape), 8)
    assert (framed != plain).any()


def test_a_saved_renderer_renders_the_same(tmp_path):
    structures = pictures((8, 8))
    renderer = trained(tmp_path, structures, steps=2)
    loaded = MicrographRenderer.from_pretrained(tmp_path / "model")
    for one, two in zip(
        renderer.render(structures, seed=1), loaded.render(structures, seed=1), strict=True
    ):
        np.testing.assert_array_equal(one.channels["grey"], two.channels["grey"])
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError):
        MicrographRenderer.from_pretrained(tmp_path / "model")


def test_windows_of_larger_pictures_are_enough(tmp_path):
    renderer = trained(tmp_path, pictures((24, 16), periodic=False), steps=2, crop=8)
    assert renderer.net.config["periodic"] == [False, False]
    assert renderer.render(pictures((32, 24), n=1), seed=0)[0].channels["grey"].shape == (32, 24)


def test_what_does_not_fit_is_refused(tmp_path):
    structures = pictures((8, 8))
    renderer = trained(tmp_path, structures)
    plain = structures[0]
    for bad, said in (
        (Microstructure(np.zeros((8, 10), int), phase_names=("a", "b")), "multiples of 4"),
        (Microstructure(np.zeros((8, 8, 8), int), phase_names=("a", "b")), "2 axes"),
        (Microstructure(np.zeros((8, 8), int), phase_names=("a", "b", "c")), "phases dark, bright"),
        (Microstructure(plain.phases, voxel_size_um=0.5), "voxels of 1 um"),
    ):
        with pytest.raises(DataError, match=said):
            renderer.render([bad], seed=0)
    with pytest.raises(DataError, match="brightness"):
        renderer.render([plain], seed=0, brightness=300.0)
    bare = [Microstructure(p.phases, process=p.process) for p in structures]
    with pytest.raises(DataError, match="channel 'grey'"):
        trained(tmp_path / "bare", bare)
    with pytest.raises(DataError, match="one grey value"):
        trained(
            tmp_path / "flat", [p.with_channels(grey=np.full((8, 8), 7, np.uint8)) for p in bare]
        )
