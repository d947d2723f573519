"""Exact volume fractions, to one voxel, at the least cost."""

import pytest
import torch
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from generators.fractions import (
    attainable,
    balance,
    check_fractions,
    cut_exactly,
    given_share,
)
from microstructures import DataError


@hypothesis_given(st.integers(2, 5), st.integers(0, 10_000))
def test_counts_are_met_to_one_voxel(phases, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, phases, 6, 7, generator=generator)
    fractions = torch.rand(2, phases, generator=generator, dtype=torch.float64) ** 3 + 1e-9
    fractions = fractions / fractions.sum(1, keepdim=True)
    labels = cut_exactly(logits, fractions)
    counts = torch.stack([torch.bincount(x.flatten(), minlength=phases) for x in labels])
    assert counts.sum() == 2 * 42
    assert (counts - fractions * 42).abs().max() < 1 + 1e-9


def test_two_phases_are_cut_by_their_logit_difference():
    logits = torch.randn(1, 2, 8, 8)
    labels = cut_exactly(logits, torch.tensor([[0.75, 0.25]], dtype=torch.float64))
    difference = (logits[:, 1] - logits[:, 0]).flatten()
    assert set(difference.topk(16).indices.tolist()) == set(
        labels.flatten().nonzero()[:, 0].tolist()
    )


def test_labels_that_fit_are_left_alone():
    logits = torch.randn(1, 3, 8, 8)
    natural = logits.argmax(1)
    share = torch.bincount(natural.flatten(), minlength=3)[None].double() / 64
    assert torch.equal(cut_exactly(logits, share), natural)


def test_balance_moves_the_mean_probability():
    logits = 4 * torch.randn(3, 3, 16, 16)
    wanted = torch.tensor(
        [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64
    )
    offsets = balance(logits, wanted, iterations=30)
    share = (logits + offsets[..., None, None]).softmax(1).flatten(2).mean(2)
    assert (share - wanted).abs().max() < 5e-3


@pytest.mark.parametrize("bad", [1.2, [0.5, 0.6], [0.2, 0.3, 0.5], -0.1, float("nan")])
def test_impossible_fractions_are_refused(bad):
    with pytest.raises(DataError, match="volume fractions"):
        check_fractions(bad, 2)


@hypothesis_given(st.integers(2, 4), st.integers(0, 10_000))
def test_given_voxels_count_and_keep_their_phase(phases, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, phases, 6, 7, generator=generator)
    labels = torch.randint(-1, phases, (6, 7), generator=generator)
    wanted = torch.rand(2, phases, generator=generator, dtype=torch.float64) + 1e-9
    wanted = attainable(wanted / wanted.sum(1, keepdim=True), labels)
    assert torch.allclose(wanted.sum(1), torch.ones(2, dtype=torch.float64))
    assert (wanted >= given_share(labels, phases) - 1e-12).all()
    cut = cut_exactly(logits, wanted, labels)
    known = labels >= 0
    assert (cut[:, known] == labels[known]).all()
    counts = torch.stack([torch.bincount(x.flatten(), minlength=phases) for x in cut])
    assert (counts - wanted * 42).abs().max() < 1 + 1e-6


def test_fractions_with_room_are_left_as_wanted():
    labels = torch.full((4, 4), -1)
    labels[0] = 1
    wanted = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    assert torch.allclose(attainable(wanted, labels), wanted)
