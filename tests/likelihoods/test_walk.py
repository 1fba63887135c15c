"""Number by number, a likelihood says what it says of the whole image."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.intensities import from_pixels
from tests.likelihoods.examples import EXAMPLES, IMAGE, autoregressive, build

DISCRETIZED = [
    {"kind": "discretized_logistic", "num_mixtures": 3, "channels": "independent"},
    {"kind": "discretized_logistic", "num_mixtures": 2, "channels": "linear"},
    autoregressive(levels=256, layers=3, context=2),
    autoregressive(levels=256, layers=0, context=0),
]


def made(values):
    torch.manual_seed(1)
    likelihood = build(values).eval()
    parameters = 0.4 * torch.randn(5, likelihood.num_parameters, *IMAGE[1:])
    return likelihood, parameters


@pytest.mark.parametrize("values", DISCRETIZED, ids=str)
def test_the_price_of_an_image_is_its_log_prob(values):
    likelihood, parameters = made(values)
    pixels = torch.randint(0, 256, (5, *IMAGE))
    pixels[0, :, 0], pixels[0, :, 1] = 0, 255
    log_prob, asked = torch.zeros(5, dtype=torch.float64), torch.zeros(IMAGE)

    def choose(probabilities, places):
        assert probabilities.shape[-1] == 256 and (probabilities >= 0).all()
        sums = probabilities.sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        chosen = pixels[(slice(None), *places)]
        taken = probabilities.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        log_prob.add_(taken.log().sum(dim=(1, 2, 3)))
        asked[places] += 1
        return chosen

    with torch.no_grad():
        assert torch.equal(likelihood.walk(parameters, choose), pixels)
        expected = likelihood.log_prob(from_pixels(pixels.to(torch.uint8)), parameters)
    assert (asked == 1).all()
    torch.testing.assert_close(log_prob.float(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("values", DISCRETIZED, ids=str)
def test_what_is_told_hangs_on_earlier_answers_alone(values):
    likelihood, parameters = made(values)
    pixels, told = torch.randint(0, 256, (5, *IMAGE)), []

    def choose(probabilities, places):
        told.append(probabilities)
        return pixels[(slice(None), *places)]

    def again(probabilities, places):
        assert torch.equal(probabilities, told.pop(0))
        return pixels[(slice(None), *places)]

    likelihood.walk(parameters, choose)
    likelihood.walk(parameters, again)
    assert not told


@pytest.mark.parametrize("values", EXAMPLES[:9], ids=str)
def test_other_likelihoods_have_no_bits(values):
    likelihood, parameters = made(values)
    with pytest.raises(ParamsError, match="8-bit"):
        likelihood.walk(parameters, lambda probabilities, places: None)
