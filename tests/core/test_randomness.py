"""Streams depend on their names only."""

import numpy as np
import torch

from stages.core.randomness import derive_seed, numpy_stream, permutation, torch_stream


def test_same_name_same_numbers_other_name_others():
    first = numpy_stream(1, "image", 7).random(100)
    assert np.array_equal(first, numpy_stream(1, "image", 7).random(100))
    others = [(2, "image", 7), (1, "image", 8), (1, "imag", 7), (1, "image/7")]
    for name in others[:3]:
        assert not np.array_equal(first, numpy_stream(*name).random(100))
    assert torch.equal(
        torch.rand(5, generator=torch_stream(3, "x")), torch.rand(5, generator=torch_stream(3, "x"))
    )


def test_streams_are_uncorrelated():
    rows = np.stack([numpy_stream(0, "image", i).normal(size=2000) for i in range(40)])
    correlation = np.corrcoef(rows)[np.triu_indices(40, 1)]
    # Under independence each is N(0, 1/2000); 780 of them stay within 4.5 standard deviations.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(2000)


def test_seeds_fit_torch_and_permutations_are_permutations():
    assert 0 <= derive_seed(0, "x") < 2**63
    assert sorted(permutation(17, 0, "epoch", 1)) == list(range(17))
    assert not np.array_equal(permutation(17, 0, "epoch", 1), permutation(17, 0, "epoch", 2))
