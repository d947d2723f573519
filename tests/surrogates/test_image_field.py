"""Image to field: cracks and walls as solved, what is built in, the critic, training and files."""

import math

import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import label

from microstructures import DataError
from physics import IsotropicElastic, solve_elasticity
from surrogates import ImageFieldSurrogate
from surrogates.image_cells import CaseShares, cell_of_kind, crack, padded
from surrogates.image_field_net import StressNet
from surrogates.image_field_training import (
    ImageFieldSettings,
    StressDraw,
    StressObjective,
    initial_objective,
    train_image_field,
)
from surrogates.image_fields import poisson_field
from surrogates.image_labels import ImageLabels, described, drawn_cells, solved_image_labels
from surrogates.quantities import MaterialRange, Stiffness, local_moduli
from surrogates.stress_errors import (
    concentration,
    equivalent_error,
    error_map,
    relative_error,
    von_mises_stress,
)

PORE = IsotropicElastic(youngs_modulus_gpa=0.0)
SHARES = CaseShares(0.25, 0.25, 0.25)


def stress_net(dim: int = 2) -> StressNet:
    """Return a net whose last layer is not zero, so that it says something."""
    torch.manual_seed(0)
    net = StressNet(dim=dim, widths=(4, 8), blocks=1, features=8)
    last = net.operator.unet.last.convolution
    torch.nn.init.normal_(last.weight, std=0.3)  # pyright: ignore
    return net


@pytest.fixture(name="labels", scope="module")
def labels_(tmp_path_factory):
    torch.manual_seed(0)
    phases = (torch.rand(6, 4, 4) < 0.5).to(torch.uint8)
    phases = phases.repeat_interleave(4, 1).repeat_interleave(4, 2)
    return solved_image_labels(
        phases,
        MaterialRange((2.0, 10.0), (0.2, 0.4)),
        SHARES,
        tmp_path_factory.mktemp("labels") / "labels",
        n_phases=2,
        tolerance=1e-4,
        seed=1,
        identity={},
    )


@pytest.fixture(name="surrogate", scope="module")
def surrogate_(labels):
    return ImageFieldSurrogate(stress_net(), labels.familiarity())


def test_a_crack_is_traction_free_and_concentrates_stress():
    across, along = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    mask = crack(
        (32, 32), centre=(15.5, 15.5), along=along, across=across, length=13, thickness=1.0
    )
    phases = mask.long()[None]
    solid = IsotropicElastic(youngs_modulus_gpa=100.0)
    stress = solve_elasticity(phases, [solid, PORE]).stress[0, 0]
    far = float(stress[0, 0].mean())
    assert float(stress[:, mask].abs().max()) == 0
    beside = mask.roll(2, 0) & ~mask
    middle = torch.zeros_like(mask)
    middle[:, 13:19] = True
    assert float(stress[0][beside & middle].abs().max()) < 0.15 * far
    assert float(stress[0].max()) > 2 * far


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("kink", [0.0, math.pi / 4])
def test_a_crack_has_its_length_and_its_kink(dim, kink):
    side, length = 24, 14.0
    axes = torch.eye(dim)
    mask = crack(
        (side,) * dim, centre=[0.0] * dim, along=axes[0], across=axes[1], length=length,
        thickness=1.0, kink=kink,
    )  # fmt: skip
    mask = mask.roll([side // 2] * dim, list(range(dim)))
    found = label(mask.numpy(), structure=torch.ones([3] * dim).numpy())
    assert found[1] == 1  # pyright: ignore[reportIndexIssue]
    where = mask.nonzero() - side // 2
    assert int(where[:, 0].min()) == -7
    tip = where[where[:, 0].argmax()]
    assert math.atan2(int(tip[1]), int(tip[0])) == pytest.approx(kink, abs=0.1)
    assert float(tip[:2].float().norm()) == pytest.approx(length / 2, abs=1.5)


def test_free_sides_and_grips_are_what_they_say():
    """A bar of one phase: tension along it alone gives E / (1 - nu^2), across it nothing."""
    young, nu, label_pore, label_grip = 100.0, 0.3, 1, 2
    solid = IsotropicElastic(youngs_modulus_gpa=young, poisson_ratio=nu)
    bar = padded(torch.zeros(16, 12, dtype=torch.uint8), axis=1, width=4, label=label_pore)
    stress = solve_elasticity(bar[None].long(), [solid, PORE], tolerance=1e-8).stress[0]
    assert torch.allclose(stress[0, 0, :, :12], torch.tensor(young / (1 - nu**2)).double())
    assert float(stress[1].abs().max()) < 1e-5
    gripped = padded(torch.zeros(12, 16, dtype=torch.uint8), axis=0, width=4, label=label_grip)
    gripped = padded(gripped[:, :12], axis=1, width=4, label=label_pore)
    grip = IsotropicElastic(youngs_modulus_gpa=1e4, poisson_ratio=nu)
    fields = solve_elasticity(gripped[None].long(), [solid, PORE, grip])
    strain = fields.strain[0, 0, 0]
    assert float(strain[12:, :12].abs().max()) < 0.05  # the grips are all but rigid
    assert float(strain[:12, :12].mean()) == pytest.approx(16 / 12, rel=0.01)
    with pytest.raises(DataError, match="strip of at least 1 voxel"):
        padded(bar, axis=2, width=1, label=0)


def test_cases_are_drawn_by_seed_and_cell_alone():
    phases = torch.zeros(40, 16, 16, dtype=torch.uint8)
    materials = MaterialRange((1.0, 30.0), (0.2, 0.4))
    drawn, again = (drawn_cells(phases[:n], materials, SHARES, n_phases=2, seed=3) for n in (40, 7))
    assert torch.equal(drawn.phases[:7], again.phases)
    assert drawn.materials[:7] == again.materials
    assert len(set(drawn.kinds)) == 4
    for kind, cell in zip(drawn.kinds, drawn.phases, strict=True):
        present = set(cell.unique().tolist())
        expected = {"periodic": {0}, "cracked": {0, 2}, "free sides": {0, 2}, "gripped": {0, 2, 3}}
        assert present == expected[kind]
    volume = cell_of_kind(
        torch.zeros(12, 12, 12, dtype=torch.uint8), "gripped", n_phases=2, specimens_cracked=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert volume.shape == (12, 12, 12)
    assert set(volume.unique().tolist()) == {0, 2, 3}


@pytest.mark.parametrize("dim", [2, 3])
def test_a_homogeneous_cell_is_exact_and_a_pore_carries_nothing(dim):
    solid = IsotropicElastic(youngs_modulus_gpa=3.0, poisson_ratio=0.25)
    net = stress_net(dim)
    phases = torch.zeros(1, *[16] * dim, dtype=torch.long)
    values = Stiffness().phase_moduli([solid, PORE], dim).unsqueeze(0).float()
    with torch.no_grad():
        stress = net(local_moduli(phases, values))
        exact = solid.stiffness(dim).float()
        assert torch.allclose(stress.movedim((1, 2), (-2, -1)), exact, atol=1e-5)
        phases[0, 3] = 1
        stress = net(local_moduli(phases, values))
    assert float(stress[0, :, :, 3].abs().max()) == 0
    assert float(stress[0, :, :, 5].std()) > 0.01


@pytest.mark.parametrize("dim", [2, 3])
def test_loads_across_free_sides_do_nothing_whatever_the_weights(dim, surrogate):
    """And of a bar of one phase, what the net starts from is the solver's answer."""
    solid = IsotropicElastic(youngs_modulus_gpa=3.0, poisson_ratio=0.25)
    net = stress_net(dim)
    phases = padded(torch.zeros([16] * (dim - 1) + [12]), axis=dim - 1, width=4, label=1)
    phases = phases.long()[None]
    values = Stiffness().phase_moduli([solid, PORE], dim).unsqueeze(0).float()
    exact = solve_elasticity(phases, [solid, PORE], tolerance=1e-6).stress.float()
    with torch.no_grad():
        stress = net(local_moduli(phases, values))
        torch.nn.init.zeros_(net.operator.unet.last.convolution.weight)  # pyright: ignore
        torch.nn.init.zeros_(net.operator.unet.last.convolution.bias)  # pyright: ignore
        start = net(local_moduli(phases, values))
    idle = exact.flatten(2).abs().amax((0, 2)) < 1e-3
    assert int(idle.sum()) == dim
    assert float(stress[:, idle].abs().max()) < 1e-6
    assert float(stress[:, ~idle].std()) > 0.1
    assert float((start - exact).abs().max()) < 1e-3


def test_units_cancel_and_the_load_is_linear(blobs, materials, surrogate):
    cells = blobs(2, seed=4)
    macro = torch.tensor([[[0.001, -0.002, 0.0005]]]).expand(2, 1, 3)
    found = surrogate.predict(cells, materials, macro)
    unit = surrogate.predict(cells, materials)
    again = surrogate.predict(
        cells,
        [
            m.model_copy(update={"youngs_modulus_gpa": 1e4 * m.youngs_modulus_gpa})
            for m in materials
        ],
        macro,
    )
    assert torch.allclose(again.stress, 1e4 * found.stress, rtol=1e-4, atol=1e-4)
    assert torch.allclose(again.distance, found.distance, atol=1e-4)
    assert torch.allclose(again.imbalance, found.imbalance, atol=1e-5)
    combined = torch.einsum("bl,blnxy->bnxy", macro[:, 0], unit.stress)
    assert torch.allclose(found.stress[:, 0], combined, atol=1e-6)


def test_periodic_shifts_commute_with_the_net(blobs, materials, surrogate):
    cells, step = blobs(2, seed=5), surrogate.net.size_multiple
    here = surrogate.predict(cells, materials).stress
    there = surrogate.predict(cells.roll((step, 2 * step), (1, 2)), materials).stress
    assert torch.allclose(here.roll((step, 2 * step), (3, 4)), there, atol=1e-4)
    assert not torch.allclose(here, there, atol=1e-2)


def test_a_turned_label_solves_the_turned_cell(labels):
    draw = StressDraw(labels)
    batch = torch.arange(len(labels))
    moduli, stress, load = draw(batch, torch.Generator().manual_seed(5))
    assert torch.allclose(load.norm(dim=1), torch.ones(len(labels)))
    for k in range(3):
        # Each voxel's own moduli as a material of its own: labels by distinct shear modulus.
        shear, phases = moduli[k, 1].unique(return_inverse=True)
        bulk = [float(moduli[k, 0][phases == p][0]) for p in range(len(shear))]
        table = [_material(b, float(g)) for b, g in zip(bulk, shear, strict=True)]
        exact = solve_elasticity(phases[None], table).stress.float()
        assert float((stress[k] - exact[0]).norm() / exact.norm()) < 5e-3
    assert not torch.equal(stress[0], labels.stress[0].float())


def _material(bulk: float, shear: float) -> IsotropicElastic:
    if shear == 0:
        return PORE
    nu = (bulk - shear) / (2 * bulk)
    return IsotropicElastic(youngs_modulus_gpa=2 * shear * (1 + nu), poisson_ratio=nu)


def test_the_error_map_and_von_mises_are_what_they_say():
    generator = torch.Generator().manual_seed(0)
    truth, off = torch.randn(2, 2, 3, 2, 8, 8, generator=generator, dtype=torch.float64).unbind(0)
    found = truth + 0.1 * off
    size = error_map(found, truth).square().flatten(2).mean(2).sqrt()
    assert torch.allclose(size, relative_error(found, truth))
    # Uniaxial tension in plane strain: s33 = nu s11.
    stress = torch.zeros(1, 1, 3, 4, 4, dtype=torch.float64)
    stress[:, :, 0] = 2.0
    solid = torch.ones(1, 4, 4, dtype=torch.float64)
    q = von_mises_stress(stress, 0.3 * solid)
    assert float(q.mean()) == pytest.approx(2 * math.sqrt(1 - 0.3 + 0.3**2))
    solid[0, :2] = 0
    q[0, 0, :2] = 100  # hidden by the mask
    assert float(concentration(q, solid)) == pytest.approx(float(q[0, 0, 3, 3]))
    assert float(equivalent_error(1.1 * q, q, solid)) == pytest.approx(0.1)
    moduli = Stiffness().phase_moduli([_material(2.0, 0.8), PORE], 2)
    assert poisson_field(moduli.view(1, 2, 1, 2)).flatten().tolist() == [pytest.approx(0.3), 0.0]


def test_the_critic_teaches_the_net_and_not_the_other_way_round(labels):
    settings = tiny(critic_widths=(4,), adversarial=0.5)
    objective = initial_objective(settings, dim=2)
    batch = StressDraw(labels)(torch.arange(2), torch.Generator().manual_seed(0))
    gradients = {}
    for weight in (0.5, 0.0):
        twin = StressObjective(
            objective.net,
            objective.critic,
            settings.model_copy(update={"adversarial": weight}),
        )
        twin.zero_grad()
        twin(*batch)[0].backward()
        gradients[weight] = {
            n: p.grad.clone() for n, p in twin.named_parameters() if p.grad is not None
        }
    last = "net.operator.unet.last.convolution.weight"
    assert not torch.equal(gradients[0.5][last], gradients[0.0][last])
    own = [n for n in gradients[0.5] if n.startswith("critic.")]
    assert own
    assert all(torch.equal(gradients[0.5][n], gradients[0.0][n]) for n in own)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phases": torch.full((1, 16, 16), 2)}, "labels 0..1"),
        ({"phases": torch.zeros(1, 18, 18, dtype=torch.long)}, "multiples of 4"),
        ({"phases": torch.zeros(1, 8, 8, dtype=torch.long)}, "at least 16"),
        ({"phases": torch.zeros(1, 16, 16, 16, dtype=torch.long)}, "2-D cells"),
        ({"phases": torch.full((1, 2, 16, 16), math.nan)}, "fractions must"),
        ({"phases": torch.ones(1, 16, 16, dtype=torch.long)}, "only pores in cell 0"),
        ({"macro_strain": torch.zeros(1, 1, 6)}, r"expected shape \(1, load, 3\)"),
        ({"macro_strain": torch.full((1, 1, 3), math.nan)}, "finite strains"),
        ({"materials": [1.0, 2.0]}, "IsotropicElastic"),
    ],
)
def test_bad_input_is_refused(surrogate, materials, change, said):
    given = {
        "phases": torch.zeros(1, 16, 16, dtype=torch.long),
        "materials": [materials[0], PORE],
        "macro_strain": None,
    } | change
    with pytest.raises(DataError, match=said):
        surrogate.predict(given["phases"], given["materials"], given["macro_strain"])


def tiny(**changes) -> ImageFieldSettings:
    training = {"steps": 20, "batch_size": 2, "warmup_steps": 2, "checkpoint_every": 8}
    return ImageFieldSettings.model_validate(
        {
            "random_fields": 0,
            "widths": (4, 4),
            "critic_widths": (4, 4),
            "features": 4,
            "half": False,
            "training": training,
            **changes,
        }
    )


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, dataset):
    dataset, settings = dataset.subset([0, 1, 2, 3]), tiny()
    whole = train_image_field(dataset, settings, tmp_path / "whole")

    def stop(step: int, *_: object) -> None:
        if step == 11:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train_image_field(dataset, settings, tmp_path / "model", progress=stop)
    train_image_field(dataset, settings, tmp_path / "model")
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "model"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    made = ImageFieldSurrogate.from_pretrained(tmp_path / "model")
    phases = dataset.phases[:1].long()
    pair = [IsotropicElastic(youngs_modulus_gpa=e) for e in (1.0, 5.0)]
    saved, loaded = (model.predict(phases, pair) for model in (whole, made))
    assert torch.equal(saved.stress, loaded.stress)
    assert torch.equal(saved.distance, loaded.distance)
    labels = ImageLabels(**load_file(tmp_path / "model.labels" / "labels.safetensors"))
    moduli = local_moduli(labels.phases, labels.moduli)
    assert float(described(moduli).amin()) > 0
    with pytest.raises(DataError, match="labels of these cells"):
        train_image_field(dataset, tiny(cracked_share=0.0), tmp_path / "model")


def test_sides_and_shares_that_do_not_fit_are_refused_before_solving(tmp_path, dataset):
    with pytest.raises(DataError, match="fewer critic_widths"):
        train_image_field(dataset, tiny(critic_widths=(4,) * 5), tmp_path / "model")
    assert not (tmp_path / "model.labels").exists()
    with pytest.raises(ValueError, match=r"add up to 1\.3"):
        tiny(cracked_share=0.9, free_share=0.2, gripped_share=0.2)
