"""The chapter on further quantities: its conversions against physics, its tables from facts."""

import pytest
import torch

from studies.cells_as_specimens import conducting, expanding, levin_error
from studies.surrogate_heat_treatment import heat_treatment_tables
from studies.surrogate_specimens import specimen_figures, specimen_tables
from surrogates.labels import LabelledCells
from surrogates.quantities import Conductivity, Stiffness


@pytest.fixture
def layers():
    """One cell of layers normal to axis 0, a quarter of it the second phase."""
    phases = torch.zeros(1, 16, 16, dtype=torch.uint8)
    phases[:, :4] = 1
    return phases


def test_layers_conduct_by_reuss_and_expand_by_levin(layers):
    moduli = torch.tensor([[[0.5, 1.5]]])
    found = conducting(
        LabelledCells(layers, moduli, torch.diag(torch.tensor([0.6, 0.75]))[None], Conductivity())
    )
    assert float(found.lower) == pytest.approx(0.6), "1 / (0.75 / 0.5 + 0.25 / 1.5)"
    assert float(found.upper) == pytest.approx(0.75)
    assert float(found.measured) == pytest.approx(0.6)
    assert float(found.inputs) == pytest.approx(1.0986, rel=1e-4)
    elastic = torch.tensor([[[1.0, 2.0], [0.5, 1.5]]])
    cells = LabelledCells(layers, elastic, torch.diag(torch.tensor([2.0, 2, 2]))[None], Stiffness())
    assert levin_error(cells) < 1e-4, "the solver's own expansion"
    assert expanding(cells).inputs.shape == (1, 3)


def test_tables_say_infinite_where_no_interval_follows():
    row = {"error": 0.1, "scatter": 0.2, "solved_error": 0.3, "solved_scatter": 0.0}
    facts = {
        "learnt": 6, "tested": 5, "side": 32, "bulk": 1, "floor": 0.07, "leaky_side": 16,
        "sweep": {"16": row, "32": row},
        "fewer": {"6": {"error": 0.1, "covered": 1.0, "half": None}},
        "leaky": {"by specimen": {"covered": 0.9, "half": 0.1}},
        "columns": {"no column": 0.2},
    }  # fmt: skip
    tables = specimen_tables(facts)
    texts = [cell.text for table in tables.values() for r in table.rows for cell in r.cells]
    assert "infinite" in texts
    assert [r.name for r in next(iter(tables.values())).rows] == [
        "crops of 16",
        "the whole picture",
    ]
    assert next(iter(specimen_figures(facts).values())).startswith("data:image/png")
    assert heat_treatment_tables({}) == {}
