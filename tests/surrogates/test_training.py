"""Training: labels once, symmetries exact, resume equal to an uninterrupted run."""

from dataclasses import replace

import pytest
import torch

from microstructures import DataError, Microstructure, MicrostructureDataset
from microstructures.publishing import open_verified
from networks import TrainingSettings
from physics.mechanics import effective_stiffness
from physics.mechanics.discretisation import staggered_problem
from surrogates import FieldSurrogate
from surrogates.evaluation import evaluate_fields, overlapping_discs, report_table
from surrogates.iterated import iterated
from surrogates.labels import coarsened, material_draws, unsolved_labels
from surrogates.quantities import MaterialRange, Stiffness
from surrogates.reference import ReferencedCells
from surrogates.symmetries import augmented
from surrogates.training import SurrogateSettings, train_field_surrogate


def settings(**changes) -> SurrogateSettings:
    training = {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 3e-3}
    tiny = {"modes": 4, "width": 4, "layers": 2, "random_fields": 4, "half": False}
    values = {**tiny, **changes}
    return SurrogateSettings(training=TrainingSettings(**training), **values)


def weights(surrogate: FieldSurrogate) -> dict[str, torch.Tensor]:
    return surrogate.net.state_dict()


def test_an_interrupted_run_resumes_to_the_same_weights(dataset, tmp_path, monkeypatch):
    whole = train_field_surrogate(dataset, settings(), tmp_path / "whole")

    def stop(step, steps, numbers):
        assert numbers["loss"] > 0
        if step == 4:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train_field_surrogate(dataset, settings(), tmp_path / "cut", progress=stop)
    assert not (tmp_path / "cut").exists()
    open_verified(tmp_path / "cut.labels-16x16", kind="labels")

    def never(*_, **__):
        raise AssertionError("the labels were solved again")

    monkeypatch.setattr("surrogates.labels.effective_property", never)
    resumed = train_field_surrogate(dataset, settings(), tmp_path / "cut")
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key])
    first, second = whole.familiarity.state_dict(), resumed.familiarity.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_labels_of_other_materials_are_refused(dataset, tmp_path):
    train_field_surrogate(dataset, settings(), tmp_path / "model")
    with pytest.raises(DataError, match="labels"):
        train_field_surrogate(dataset, settings(highest_contrast=20.0), tmp_path / "model")


def test_training_lowers_the_bracket(dataset, blobs, materials, untrained, tmp_path):
    longer = settings().model_copy(
        update={
            "width": 8,
            "training": TrainingSettings(
                steps=40, batch_size=8, learning_rate=1e-2, warmup_steps=5, ema_steps=10
            ),
        }
    )
    trained = train_field_surrogate(dataset, longer, tmp_path / "model")
    before, after = (
        evaluate_fields(model, blobs(4, seed=30))
        for model in (untrained(2, blobs(24, seed=1)), trained)
    )
    assert after.c11_bracket_width < 0.9 * before.c11_bracket_width
    assert after.strain_error < before.strain_error
    assert before.brackets_broken == after.brackets_broken == 0
    assert after.iterations_from_prediction <= after.iterations_cold
    table = report_table({"blobs": after})
    assert f"| strain error | {after.strain_error:.3g} |" in table


def test_iterations_in_the_loss_are_the_solvers(dataset, blobs, materials, tmp_path):
    phases = blobs(3, seed=34)
    problem = staggered_problem(phases, materials)
    cells, unit = ReferencedCells.of_moduli(problem.lame, problem.shear[:, 0])
    start = 0.3 * cells.born()
    energy = {
        k: (
            unit.view(-1, 1, 1) * cells.energy(cells.descended(start, k)).double(),
            unit.view(-1, 1, 1) * cells.energy(iterated(problem, start, k)).double(),
        )
        for k in (0, 2, 25)
    }
    exact = effective_stiffness(phases, materials, tolerance=1e-7).value
    # Another ratio of the reference is another Krylov space: nearly the same, not quite.
    assert torch.allclose(*energy[0])
    own, solvers = ((found - exact)[:, 0, 0] for found in energy[2])
    assert (own / solvers - 1).abs().max() < 0.3
    assert torch.allclose(energy[25][0], exact, rtol=1e-4)

    numbers = {}
    train_field_surrogate(
        dataset,
        settings(iterations=2),
        tmp_path / "model",
        progress=lambda step, steps, found: numbers.update(found),
    )
    assert 0 < numbers["iterated_error"] < numbers["energy_error"]
    assert numbers["loss"] == pytest.approx(
        (numbers["iterated_error"] + numbers["energy_error"]) / 2, rel=1e-3
    )


def test_energy_alone_teaches_without_a_solver(dataset, blobs, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the solver was asked")

    monkeypatch.setattr("surrogates.labels.effective_property", never)
    losses = []
    longer = TrainingSettings(steps=30, batch_size=8, learning_rate=1e-2, warmup_steps=5)
    train_field_surrogate(
        dataset,
        settings(labels=False, width=8).model_copy(update={"training": longer}),
        tmp_path / "model",
        progress=lambda step, steps, numbers: losses.append(numbers["loss"]),
    )
    assert sum(losses[-5:]) < sum(losses[:5])


def test_coarser_cells_train_beside_fine_ones(dataset, blobs, tmp_path):
    fine = MicrostructureDataset.from_structures(
        [Microstructure(phases=cell.numpy()) for cell in blobs(6, seed=33, side=32)], dataset.space
    )
    trained = train_field_surrogate(fine, settings(coarser=(2,)), tmp_path / "model")
    assert (tmp_path / "model.labels-16x16").exists()
    assert (tmp_path / "model.labels-32x32").exists()
    assert trained.familiarity.shape.tolist() == [32, 32]


def test_coarsening_keeps_what_most_voxels_are():
    phases = torch.zeros(1, 4, 4, dtype=torch.uint8)
    phases[0, :2, :2] = torch.tensor([[2, 1], [1, 1]])
    phases[0, 2:, :2] = torch.tensor([[2, 0], [0, 2]])
    phases[0, 2:, 2:] = torch.tensor([[0, 1], [1, 0]])
    assert coarsened(phases, 2)[0].tolist() == [[1, 0], [2, 0]]
    with pytest.raises(DataError, match="multiples of 3"):
        coarsened(phases, 3)


def test_augmented_stiffness_is_the_augmented_cells_stiffness(blobs, materials):
    phases = blobs(8, seed=31)
    stiffness = effective_stiffness(phases, materials, tolerance=1e-7).value
    moved, turned = augmented(
        phases, stiffness, quantity=Stiffness(), generator=torch.Generator().manual_seed(3)
    )
    assert not torch.equal(moved, phases)
    again = effective_stiffness(moved, materials, tolerance=1e-7).value
    assert (again - turned).abs().max() < 1e-6


def test_augmented_in_three_dimensions(materials):
    phases = torch.zeros(4, 8, 8, 8, dtype=torch.uint8)
    phases[:, :3, 2:7] = 1
    phases[:, 4:6, :, :5] = 1
    stiffness = effective_stiffness(phases, materials, tolerance=1e-7).value
    moved, turned = augmented(
        phases, stiffness, quantity=Stiffness(), generator=torch.Generator().manual_seed(4)
    )
    again = effective_stiffness(moved, materials, tolerance=1e-7).value
    assert (again - turned).abs().max() < 1e-6


def test_materials_are_drawn_by_cell_and_in_range():
    materials = MaterialRange((3.0, 30.0), (0.2, 0.4))
    u = material_draws(200, 2, seed=5)
    assert torch.equal(material_draws(50, 2, seed=5), u[:50])
    bulk, shear = Stiffness().drawn(u, materials, 3).unbind(1)
    lame = bulk - 2 / 3 * shear
    nu = lame / (2 * (lame + shear))
    assert nu.min() >= 0.2 - 1e-5
    assert nu.max() <= 0.4 + 1e-5
    youngs = 2 * shear * (1 + nu)
    ratio = (youngs[:, 1] / youngs[:, 0]).log().abs().exp()
    assert ratio.min() >= 3 - 1e-4
    assert ratio.max() <= 30 + 1e-3
    assert 60 < int((youngs[:, 1] > youngs[:, 0]).sum()) < 140


def test_data_that_do_not_fit_are_refused(dataset, blobs, tmp_path):
    def of(*cells: Microstructure) -> MicrostructureDataset:
        return MicrostructureDataset.from_structures(list(cells), dataset.space)

    cell = blobs(1, seed=32)[0].numpy()
    with pytest.raises(DataError, match="periodic"):
        train_field_surrogate(of(Microstructure(cell, periodic=(False,))), settings(), tmp_path)
    with pytest.raises(DataError, match="single-phase"):
        train_field_surrogate(of(Microstructure(0 * cell)), settings(), tmp_path / "m")
    with pytest.raises(DataError, match="multiples of 4"):
        train_field_surrogate(of(Microstructure(cell[:15, :15])), settings(), tmp_path / "m")
    with pytest.raises(DataError, match="at least 16 voxels"):
        train_field_surrogate(of(Microstructure(cell[:12, :12])), settings(), tmp_path / "m")
    third = cell.copy()
    third[0] = 2
    with pytest.raises(DataError, match="random_fields = 0"):
        train_field_surrogate(of(Microstructure(third)), settings(), tmp_path / "m")
    with pytest.raises(ValueError, match="above highest_contrast"):
        settings(lowest_contrast=40.0)


def test_a_training_cell_without_a_finite_answer_is_named(blobs):
    drawn = MaterialRange(contrast=(3, 30), poisson_ratio=(0.2, 0.4))
    labels = unsolved_labels(blobs(6, seed=33), Stiffness(), drawn, n_phases=2, seed=0)
    broken = labels.effective.clone()
    broken[[3, 5], 0, 0] = float("nan")
    with pytest.raises(DataError, match="infinity for cell 3 and 1 more"):
        replace(labels, effective=broken)


def test_discs_are_periodic_and_of_the_asked_fraction():
    discs = overlapping_discs(40, shape=(64, 64), seed=0)
    fractions = discs.double().mean((1, 2))
    assert 0.33 < float(fractions.mean()) < 0.47
    assert torch.equal(discs[:3], overlapping_discs(3, shape=(64, 64), seed=0))
