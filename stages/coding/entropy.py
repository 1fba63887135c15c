"""Symbols to bits and back: a range coder, told what to expect of each symbol.

A symbol of probability p costs -log2 p bits, and a whole stream at most a few dozen more (range
coding: Martin 1979; the coder is `constriction`, Bamler 2022, arXiv:2201.01741). Symbols come out
in the order in which they went in, and what is expected of one may hang on all before it.

Writer and reader stand in for each other: whoever walks through a model asks `symbols` for what
comes next and is told what was given (writing) or what is read. A walk that computes probabilities
from nothing but earlier answers therefore is both the encoder and the decoder, and the two cannot
drift apart.

Differs: probabilities are rounded to 24 bits and none below 2^-24 by the coder, so a symbol that a
model holds to be impossible still has a price.
"""

from abc import ABC, abstractmethod
from typing import final

import numpy as np
from constriction import stream
from jaxtyping import Float, Int64

__all__ = ["Coder", "Reader", "Writer"]

Probabilities = Float[np.ndarray, "symbols alphabet"]
Symbols = Int64[np.ndarray, " symbols"]

# The faster of the library's roundings; either side has to use the same.
_MODELS = stream.model.Categorical(perfect=False)


class Coder(ABC):
    """One end of a stream of symbols."""

    @abstractmethod
    def symbols(self, probabilities: Probabilities, given: Symbols | None) -> Symbols:
        """The next symbols.

        Args:
            probabilities: Of every symbol of the alphabet, a row for each that comes; rows need not
                sum to one, but to something finite and positive.
            given: What they are, for a writer; a reader does not look at it.
        """


@final
class Writer(Coder):
    """Takes in symbols."""

    def __init__(self) -> None:
        self._encoder = stream.queue.RangeEncoder()

    def symbols(self, probabilities: Probabilities, given: Symbols | None) -> Symbols:
        """Write what is given, and give it back."""
        assert given is not None, "a writer has to be told what to write"
        if probabilities.shape[1] > 1:
            self._encoder.encode(given.astype(np.int32), _MODELS, probabilities.astype(np.float32))
        return given

    def words(self) -> np.ndarray:
        """What was written, uint32."""
        return self._encoder.get_compressed()


@final
class Reader(Coder):
    """Hands out the symbols of what a writer wrote."""

    def __init__(self, words: np.ndarray) -> None:
        """Begin at the first symbol.

        Args:
            words: uint32, as the writer gave them.
        """
        self._decoder = stream.queue.RangeDecoder(words)

    def symbols(self, probabilities: Probabilities, given: Symbols | None = None) -> Symbols:
        """Read what comes next.

        Raises:
            ValueError: If these words do not continue under such probabilities.
        """
        if probabilities.shape[1] == 1:
            return np.zeros(len(probabilities), dtype=np.int64)
        try:
            found = self._decoder.decode(_MODELS, probabilities.astype(np.float32))
        except AssertionError as error:  # the library's word for bits that fit nothing
            raise ValueError(f"no symbol fits the bits ({error})") from None
        return found.astype(np.int64)
