"""The path surrogate: its law, its start, what is built in, what it refuses, training and files."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from microstructures import CheckpointError, DataError
from physics.mechanics import (
    ElasticPlastic,
    IsotropicElastic,
    LinearHardening,
    LoadingPath,
    solve_elasticity,
    solve_plasticity,
)
from physics.mechanics.radial_return import PlasticLaw, PlasticState, von_mises
from surrogates.evaluation import overlapping_discs
from surrogates.plastic_cells import PlasticCells, scaled_moduli, voxel_moduli
from surrogates.plastic_curve import offset_yield_stress
from surrogates.plastic_labels import PlasticLabels, PlasticRange, drawn_tests, with_solved_strain
from surrogates.plastic_net import PathNet
from surrogates.plastic_path import PlasticSurrogate
from surrogates.plastic_return import returned, whole_basis
from surrogates.plastic_start import SecantStart
from surrogates.plastic_training import (
    PathDraw,
    PathObjective,
    PlasticSettings,
    path_errors,
    train_plastic_surrogate,
)

RANGE = PlasticRange(3.0, 4.0, (0.005, 0.05), (0.25, 0.35), (2.0, 10.0))
START = SecantStart(2, 3)
STEPS = 4


def phase(young: float, nu: float, first: float, slope: float) -> ElasticPlastic:
    elastic = IsotropicElastic(youngs_modulus_gpa=young, poisson_ratio=nu)
    curve = LinearHardening(yield_stress_gpa=first, modulus_gpa=slope)
    return ElasticPlastic(elastic=elastic, hardening=curve)


SOFT, HARD = phase(70.0, 0.33, 0.1, 1.0), phase(140.0, 0.3, 0.3, 3.0)
TENSION = LoadingPath.uniaxial(strain=0.008, steps=STEPS, dim=2)


def path_net(dim: int = 2, *, seed: int = 0) -> PathNet:
    """Return a net whose last layer is not zero, so that it says something."""
    torch.manual_seed(seed)
    net = PathNet(dim=dim, steps=STEPS, widths=(4, 8), blocks=1, features=8)
    torch.nn.init.normal_(net.unet.last.convolution.weight, std=0.3)  # pyright: ignore
    return net


@pytest.fixture(name="labels", scope="module")
def labels_():
    cells = overlapping_discs(2, shape=(16, 16), seed=3)
    drawn = drawn_tests(cells, RANGE, n_phases=2, steps=STEPS, start=START, seed=5)
    return with_solved_strain(drawn, tolerance=1e-3)


@pytest.fixture(name="surrogate", scope="module")
def surrogate_(labels):
    return PlasticSurrogate(path_net(), labels.familiarity(), start=START, amplitude=10.0)


def cells_of(phases: torch.Tensor, strain: torch.Tensor) -> torch.Tensor:
    """Return scaled moduli of two-phase cells in a random history's place."""
    table = torch.tensor([[68.6, 26.3, 0.1, 1.0], [116.7, 53.8, 0.3, 3.0]]).T
    return voxel_moduli(phases, table.expand(len(phases), 4, 2)).to(strain)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_return_is_that_of_the_solver(dim):
    generator = torch.Generator().manual_seed(dim)
    n, space = dim * (dim + 1) // 2, (4,) * dim
    phases = torch.randint(2, (2, *space), generator=generator)
    strain = 0.004 * torch.randn(2, 5, n, *space, generator=generator, dtype=torch.float64)
    moduli = cells_of(phases, strain)
    law = PlasticLaw(
        moduli[:, None, 0],
        moduli[:, None, 1],
        phases[:, None],
        tuple(
            LinearHardening(yield_stress_gpa=float(s), modulus_gpa=float(h))
            for s, h in ((torch.tensor(0.1), 1.0), (torch.tensor(0.3), 3.0))
        ),
    )
    deviator, pressure = returned(strain, moduli)
    stress = torch.einsum("km,bsk...->bsm...", whole_basis(dim).double(), deviator)
    stress[:, :, :3] += pressure.unsqueeze(2)
    state = law.virgin_state(strain[:, :1])
    for step in range(5):
        update = law.update(strain[:, step : step + 1], state)
        assert float((update.stress[:, 0] - stress[:, step]).abs().max()) < 1e-6
        state = PlasticState(update.state.strain, update.state.equivalent)
    assert float(state.equivalent.max()) > 1e-3


def test_the_elastic_start_approaches_the_solver(blobs):
    cells = blobs(2, seed=4)
    elastic = [SOFT.elastic, HARD.elastic]
    table = torch.tensor([[e.bulk, e.shear, 1.0, 1.0] for e in elastic]).T
    moduli, _ = scaled_moduli(voxel_moduli(cells, table.expand(2, 4, 2)))
    target = torch.tensor([[1.0, -0.5, 0.3]]).expand(2, 3)
    driven = torch.ones(3, dtype=torch.bool)
    exact = solve_elasticity(
        cells.long(), elastic, target[:, None], scheme="rotated", tolerance=1e-6
    ).strain[:, 0]
    misses = []
    for iterations in (0, 2, 12):
        found, _ = SecantStart(iterations, 0).strains(moduli, target, driven)
        misses.append(float((found - exact).norm() / exact.norm()))
    assert misses[1] < 0.3 * misses[0]
    assert misses[2] < 1e-3


def test_the_secant_start_of_one_phase_is_exact_where_flow_keeps_its_direction(surrogate):
    """In pure shear the strain is uniform, and Hencky's theory equals flow theory."""
    phases = torch.zeros(1, 16, 16, dtype=torch.long)
    path = LoadingPath.proportional([[0.0, 0.0, 0.01]], steps=STEPS)
    found = surrogate.predict(phases, [SOFT, HARD], path, corrected=False)
    exact = solve_plasticity(phases, [SOFT, HARD], path)
    assert float((found.mean_stress / exact.mean_stress - 1)[:, :, 2].abs().max()) < 1e-5
    flow = found.equivalent_plastic_strain[:, -1] - exact.equivalent_plastic_strain
    assert float(flow.abs().max()) < 1e-7
    assert found.imbalance is not None
    assert float(found.imbalance.max()) < 1e-5


def test_the_start_alone_is_near_the_solver(labels):
    """Far nearer than uniform strain, which is what a path without a start would be."""
    cells = labels.cells(torch.arange(len(labels)))
    found = path_errors(path_net()(cells, corrected=False), labels.strain, cells.moduli)
    uniform = (cells.multipliers[:, :, None] * cells.target[:, None])[..., None, None]
    flat = replace(cells, elastic=uniform[:, -1].expand_as(cells.elastic))
    flat = replace(flat, secant=flat.elastic)
    taylor = path_errors(path_net()(flat, corrected=False), labels.strain, cells.moduli)
    assert float(found["von_mises"]) < 0.12
    assert float(found["von_mises"]) < 0.5 * float(taylor["von_mises"])


def test_before_yield_the_net_adds_nothing(blobs, surrogate):
    cells = blobs(2, seed=6).long()
    path = LoadingPath.uniaxial(strain=2e-4, steps=STEPS, dim=2)
    found = surrogate.predict(cells, [SOFT, HARD], path)
    bare = surrogate.predict(cells, [SOFT, HARD], path, corrected=False)
    exact = solve_plasticity(cells, [SOFT, HARD], path)
    assert torch.equal(found.stress, bare.stress)
    assert float(exact.equivalent_plastic_strain.max()) == 0.0
    assert float((found.mean_stress / exact.mean_stress - 1)[:, :, 0].abs().max()) < 1e-3


def test_no_voxel_is_beyond_its_yield_curve_whatever_the_weights(blobs, surrogate):
    cells = blobs(2, seed=7).long()
    path = LoadingPath.uniaxial(strain=(0.008, 0.004), steps=STEPS // 2, dim=2)
    found = surrogate.predict(cells, [SOFT, HARD], path)
    q = von_mises(found.stress)
    first, slope = (torch.where(cells == 0, a, b)[:, None] for a, b in ((0.1, 0.3), (1.0, 3.0)))
    curve = first + slope * found.equivalent_plastic_strain
    assert float((q / curve).max()) < 1 + 1e-4
    assert bool((found.equivalent_plastic_strain.diff(dim=1) >= 0).all())
    flowing = found.equivalent_plastic_strain.diff(dim=1)[:, 0] > 1e-6
    assert float((q[:, 1] / curve[:, 1])[flowing & (q[:, 0] > 0)].max()) > 0.99


@pytest.mark.parametrize("dim", [2, 3])
@torch.no_grad()
def test_prescribed_means_are_met_whatever_the_weights(dim):
    generator = torch.Generator().manual_seed(0)
    n, space = dim * (dim + 1) // 2, (8,) * dim
    phases = torch.randint(2, (2, *space), generator=generator)
    moduli, _ = scaled_moduli(cells_of(phases, torch.zeros(1)))
    target = 4 * torch.nn.functional.normalize(torch.randn(2, n, generator=generator))
    multipliers = torch.tensor([0.3, 0.6, 1.0, 0.7]).expand(2, 4)
    for driven in (torch.ones(n, dtype=torch.bool), torch.arange(n) == 0):
        elastic, secant = START.strains(moduli, target * driven, driven)
        cells = PlasticCells(
            moduli, elastic, secant, target * driven, driven.expand(2, n), multipliers
        )
        answer = path_net(dim)(cells)
        assert float(answer.plastic.min(0).values.max()) > 0
        if bool(driven.all()):
            means = answer.strain(moduli[:, 0]).flatten(3).mean(3)
            wanted = multipliers[:, :, None] * target[:, None]
            assert float((means - wanted).abs().max()) < 1e-4
        else:
            means = answer.stress().flatten(3).mean(3)[:, :, 1:dim].mean(2)
            assert float(means.abs().max()) < 1e-5


def test_units_cancel(blobs, surrogate):
    cells = blobs(2, seed=8).long()
    found = surrogate.predict(cells, [SOFT, HARD], TENSION)
    other = [phase(700.0, 0.33, 1.0, 10.0), phase(1400.0, 0.3, 3.0, 30.0)]
    again = surrogate.predict(cells, other, TENSION)
    assert torch.allclose(again.stress, 10 * found.stress, rtol=1e-3, atol=1e-4)
    assert torch.allclose(again.distance, found.distance, atol=1e-4)


def test_a_turned_label_is_a_label(labels):
    """Shift, mirror and exchange of axes commute with start and law: the error does not change."""
    objective = PathObjective(path_net())
    torch.nn.init.zeros_(objective.net.unet.last.convolution.weight)  # pyright: ignore
    draw, batch = PathDraw(labels), torch.arange(len(labels))
    errors = []
    for seed in range(2):
        tensors = draw(batch, torch.Generator().manual_seed(seed))
        errors.append(objective(*tensors)[1])
    assert not torch.equal(*[draw(batch, torch.Generator().manual_seed(s))[0] for s in range(2)])
    for name, value in errors[0].items():
        assert float(value) == pytest.approx(float(errors[1][name]), rel=1e-3)


def test_a_load_beyond_training_is_far(blobs, surrogate):
    cells = blobs(2, seed=9).long()
    near, far = (
        surrogate.predict(cells, [SOFT, HARD], LoadingPath.uniaxial(strain=e, steps=STEPS, dim=2))
        for e in (0.002, 0.2)
    )
    assert bool((far.distance > near.distance + 1).all())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": LoadingPath.uniaxial(strain=0.01, steps=3, dim=2)}, "expected 4 steps"),
        ({"path": LoadingPath.uniaxial(strain=0.01, steps=4, dim=3)}, "3 components"),
        (
            {"path": LoadingPath.proportional([[0.01, 0, 0], [0.01, 0.01, 0]], steps=2)},
            "one direction",
        ),
        (
            {"path": LoadingPath.proportional([[-0.005, 0, 0], [0.01, 0, 0]], steps=2)},
            "no reversal before",
        ),
        (
            {
                "path": LoadingPath.proportional(
                    [[0.01, 0.1, 0]], steps=4, strain_driven=[True, False, False]
                )
            },
            "zero for mean stresses",
        ),
        ({"path": LoadingPath.proportional([[0, 0, 0]], steps=4)}, "other than zero"),
        ({"materials": [SOFT, ElasticPlastic(elastic=HARD.elastic)]}, "LinearHardening"),
        ({"phases": torch.full((1, 16, 16), 2)}, "labels 0..1"),
        ({"phases": torch.zeros(1, 18, 18, dtype=torch.long)}, "multiples of 4"),
        ({"phases": torch.zeros(1, 16, 16, 16, dtype=torch.long)}, "2-D cells"),
        ({"phases": torch.full((1, 2, 16, 16), 0.5)}, "integer labels"),
    ],
)
def test_bad_input_is_refused(surrogate, change, said):
    given = {
        "phases": torch.zeros(1, 16, 16, dtype=torch.long),
        "materials": [SOFT, HARD],
        "path": TENSION,
    } | change
    with pytest.raises(DataError, match=said):
        surrogate.predict(given["phases"], given["materials"], given["path"])


def test_saved_and_loaded_it_says_the_same(tmp_path, blobs, surrogate):
    cells = blobs(1, seed=10).long()
    folder = surrogate.save_pretrained(tmp_path / "model", card="a card")
    again = PlasticSurrogate.from_pretrained(folder)
    one, two = (s.predict(cells, [SOFT, HARD], TENSION) for s in (surrogate, again))
    assert torch.allclose(one.stress, two.stress, atol=1e-6)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError):
        PlasticSurrogate.from_pretrained(folder)


def test_learning_lowers_the_error(labels):
    """The same cells again and again, which even a tiny net can learn by heart."""
    torch.manual_seed(1)
    net = PathNet(dim=2, steps=STEPS, widths=(8, 16), blocks=1, features=8)
    objective = PathObjective(net)
    tensors = PathDraw(labels)(torch.arange(len(labels)), torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss, _ = objective(*tensors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < 0.85 * losses[0]


def test_training_saves_a_model_and_keeps_its_labels(tmp_path, dataset):
    dataset = dataset.subset([0, 1, 2])
    training = {"steps": 2, "batch_size": 2, "warmup_steps": 1, "ema_steps": 1}
    settings = PlasticSettings.model_validate(
        {
            "random_fields": 0,
            "tolerance": 1e-2,
            "path_steps": 2,
            "widths": (4, 4),
            "features": 4,
            "training": training,
        }
    )
    train_plastic_surrogate(dataset, settings, tmp_path / "model")
    made = PlasticSurrogate.from_pretrained(tmp_path / "model")
    assert (made.steps, made.start, made.amplitude) == (2, settings.start, 10.0)
    labels = PlasticLabels(**load_file(tmp_path / "model.labels" / "labels.safetensors"))
    cells = labels.cells(torch.arange(len(labels)))
    mean = labels.strain[:, -1].flatten(2).mean(2)
    # What is driven is met by the labels, and by nothing but the labels of these tests.
    miss = torch.where(cells.driven, mean - cells.multipliers[:, -1:] * cells.target, 0.0)
    assert float(miss.abs().max()) < 1e-4
    written = (tmp_path / "model.labels" / "labels.safetensors").stat().st_mtime_ns
    changed = settings.model_copy(update={"modulus_contrast": 2.0})
    with pytest.raises(DataError, match="labels of these cells"):
        train_plastic_surrogate(dataset, changed, tmp_path / "model")
    assert (tmp_path / "model.labels" / "labels.safetensors").stat().st_mtime_ns == written


def test_the_offset_yield_stress_of_a_known_curve():
    strain = torch.linspace(0.001, 0.01, 10, dtype=torch.float64).expand(2, -1)
    stress = torch.minimum(100 * strain, 0.3 + 0 * strain)
    stress[1] = 100 * strain[1]  # never yields
    found = offset_yield_stress(strain, stress, torch.tensor([100.0, 100.0]).double())
    assert float(found[0]) == pytest.approx(0.3)
    assert bool(torch.isnan(found[1]))
