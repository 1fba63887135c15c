"""A protocol to begin with."""

from stages.metrics.protocol import Protocol

PROTOCOL = Protocol(
    images="test split",
    reference_split="test",
    reference_n=17,
    reference_sha256="ab" * 32,
    resize="none",
    antialias=None,
    rounding="to 8 bits",
    label_balance="equal",
)
