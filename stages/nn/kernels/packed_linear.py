"""y = W x in bfloat16, with W arranged once as the matrix units of a CPU read it.

Matrix units take a weight in blocks of pairs of rows. From a weight as PyTorch stores it oneDNN
makes these blocks anew at every product, which of few rows is a third of the time: the 25 products
of a step of 10 million weights took 2.2 ms on one row and 1.6 with blocks made before, 3.8 and 2.4
on 64. The numbers are the same, bit for bit.

PyTorch arranges weights so for compiled models whose weights are constants, by operators that it
keeps to itself; a build without them leaves layers as they are.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.kernels.operators import operator

__all__ = ["PackedLinear", "can_pack", "packed"]

_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")


def can_pack(linear: nn.Linear) -> bool:
    """Whether this layer can be packed: in bfloat16, without bias, on a CPU, by this build."""
    return (
        linear.weight.device.type == "cpu"
        and linear.weight.dtype == torch.bfloat16
        and linear.bias is None
        and torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class PackedLinear(nn.Module):
    """What a linear layer does, without gradients.

    Args:
        linear: One that `can_pack`.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features = linear.out_features
        weight = linear.weight.detach()
        # Neither parameter nor buffer: nothing can be done with it but this product.
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight)

    def forward(self, input: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        """Map every row; the result is in bfloat16, whatever the input."""
        return _packed_linear(input.bfloat16(), self.packed, self.out_features)


def packed(linear: nn.Linear) -> nn.Module:
    """The layer packed; the layer itself where that cannot be."""
    return PackedLinear(linear) if can_pack(linear) else linear


def _product(input: Tensor, packed: Tensor, out_features: int) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, packed, None, "none", [], "")


# PyTorch's compiler knows its own operator, but for constant weights only.
_packed_linear = operator(
    "packed_linear(Tensor input, Tensor packed, int out_features) -> Tensor",
    lambda input, packed, out_features: input.new_empty(*input.shape[:-1], out_features),
    CompositeExplicitAutograd=_product,
)
