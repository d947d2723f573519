"""Volumes of 192^3 fit into 16 GB: memory per voxel, and chunks that change nothing."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from generators.denoiser import PhaseDenoiser
from generators.diffusion import ConditionalDiffusion
from generators.section_diffusion import SectionDiffusion
from microstructures import Parameter, ProcessSpace

SPACE = ProcessSpace([Parameter("a", "-", 0.0, 1.0)])

PEAK = """
import sys, torch
torch.set_num_threads(1)
from physics.processes import SpinodalDecomposition
from generators import ConditionalDiffusion, ConditionalGAN, SectionDiffusion
from generators.gan_net import PhaseGenerator
if sys.argv[1] == "gan":
    alloy = SpinodalDecomposition()
    net = PhaseGenerator(space=alloy.space, n_phases=2, periodic=(True,) * 3, widths=(32, 64, 64),
        blocks=(1, 3, 1), latent_dim=8, features=128, encoder_widths=(16, 24, 32))
    model = ConditionalGAN(net, space=alloy.space, voxel_size_um=0.005, periodic=(True,) * 3,
        phase_names=("a", "b"), match_fractions=True)
else:
    model = SectionDiffusion.of_sections(ConditionalDiffusion.from_pretrained(sys.argv[2]))
options = {"steps": 2} if sys.argv[1] == "sections" else {}
def used():  # the peak of getrusage would be that of the parent, if that is larger
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
model.sample({"composition": 0.5}, n=1, shape=(8, 8, 8), seed=0, **options)
before = used()
model.sample({"composition": 0.5}, n=1, shape=(64, 64, 64), seed=0, **options)
print(used() - before)
"""


@pytest.mark.parametrize("family", ["gan", "sections"])
def test_memory_per_voxel_leaves_room_for_192_cubed(family):
    found = subprocess.run(
        [sys.executable, "-c", PEAK, family, "spinodal-2d-diffusion"],
        capture_output=True,
        text=True,
        check=True,
    )
    growth = int(found.stdout)
    assert 0 < growth * (192 / 64) ** 3 < 14e9


def test_sections_denoised_in_parts_give_the_same_volume(monkeypatch):
    torch.manual_seed(0)
    net = PhaseDenoiser(
        space=SPACE,
        n_phases=2,
        periodic=(True, True),
        widths=(8, 8),
        blocks=1,
        latent_dim=4,
        features=16,
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    flat = ConditionalDiffusion(
        net,
        space=SPACE,
        voxel_size_um=0.5,
        periodic=(True, True),
        phase_names=("a", "b"),
        match_fractions=False,
        steps=4,
    )
    volumes = SectionDiffusion.of_sections(flat)
    request = {"process": {"a": 0.3}, "n": 2, "shape": (8, 12, 16), "seed": 0, "steps": 4}
    whole = np.stack([v.phases for v in volumes.sample(**request)])
    monkeypatch.setattr("generators.section_denoiser.SECTION_PIXELS", 400)
    parts = np.stack([v.phases for v in volumes.sample(**request)])
    assert 0.05 < whole.mean() < 0.95
    assert np.mean(parts != whole) < 0.01  # a convolution of other batches may differ in a last bit
