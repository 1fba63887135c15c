"""A file of coded images that says of itself whose it is.

    8 bytes    the word LATENTLN, for programs that ask what a file is
    4 bytes    length of the header, little-endian
    header     JSON: version, digests of autoencoder and prior, shape and number of the images,
               whether their classes are in it, sha256 of what follows and of the pixels, and what
               computed the probabilities
    blocks     per group of images: 4 bytes, the number of words; the words, 4 bytes each

A decoder that is not the encoder's sees noise. So another model is refused by digest before
anything is decoded, and a damaged file by checksum; and since probabilities that differ in the last
bit are enough, the pixels are compared with their checksum when they are there.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, ValidationError

from stages.assembly.first_stage import FirstStage
from stages.assembly.second_stage import SecondStage
from stages.coding.line_coder import GROUP, CodedGroup, LineCoder
from stages.core.errors import DataError
from stages.core.sections import Section
from stages.core.shapes import ImageShape

__all__ = ["CodedFile", "Header", "computed_by", "open_coded", "write_coded"]

MAGIC = b"LATENTLN"
VERSION = 1


class Header(Section):
    """What a file says of itself."""

    version: int
    autoencoder: str = Field(min_length=1)
    """Digest of the artifact."""
    prior: str = Field(min_length=1)
    """The same."""
    image: ImageShape
    count: int = Field(ge=0)
    """Images."""
    labels: bool
    """Whether the class of each is coded before it."""
    payload_sha256: str
    """Of all blocks."""
    pixels_sha256: str
    """Of the images, uint8, one after the other."""
    computed_by: str
    """What computed the probabilities; another may round otherwise."""
    threads: int = Field(ge=1)
    """Of its CPU, which change the order of sums: a decoder should use as many."""


@dataclass(frozen=True)
class CodedFile:
    """A file whose checksum is right."""

    path: Path
    header: Header
    header_bytes: int
    """All before the blocks."""
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.header_bytes + len(self.payload)

    def groups(self, coder: LineCoder) -> Iterator[CodedGroup]:
        """Decode, one group in memory at a time.

        Raises:
            DataError: If the line is not the one the file was written with, or computes other
                probabilities here; known for certain only after the last group.
        """
        self.require(coder.first, coder.second)
        pixels = hashlib.sha256()
        words = np.frombuffer(self.payload, dtype="<u4")
        start, left = 0, self.header.count
        while left:
            if start >= len(words):
                raise DataError(f"{self.path}: must hold {self.header.count} images, ends before")
            count, length = min(left, GROUP), int(words[start])
            block = words[start + 1 : start + 1 + length].astype(np.uint32)
            try:
                group = coder.read(block, count, self.header.labels)
            except ValueError as error:
                raise DataError(f"{self._other_probabilities(coder)} ({error})") from None
            pixels.update(group.pixels.numpy().tobytes())
            yield group
            start, left = start + 1 + length, left - count
        if pixels.hexdigest() != self.header.pixels_sha256:
            raise DataError(self._other_probabilities(coder))

    def require(self, first: FirstStage, second: SecondStage) -> None:
        """Refuse a line that the file was not written with.

        Raises:
            DataError: Naming both.
        """
        for name, artifact, wanted in (
            ("autoencoder", first.artifact, self.header.autoencoder),
            ("prior", second.artifact, self.header.prior),
        ):
            if artifact.digest != wanted:
                raise DataError(
                    f"{self.path}: was coded with {name} {wanted}, but {artifact.path} is "
                    f"{artifact.digest}; decode it with the {name} it was coded with"
                )

    def _other_probabilities(self, coder: LineCoder) -> str:
        return (
            f"{self.path}: decodes to other images than were coded, although the models are the "
            f"same: probabilities were computed by {self.header.computed_by}, now by "
            f"{computed_by(coder.device)}; decode it where it was coded"
        )


def computed_by(device: torch.device) -> str:
    """What computes here."""
    return f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} thread(s)"


def write_coded(path: Path, coder: LineCoder, groups: Iterable[CodedGroup]) -> Header:
    """Code images into a file; it appears whole or not at all.

    Args:
        path: Of the file; replaced if it is there.
        coder: The line.
        groups: All images, `GROUP` at a time, the last ones perhaps fewer; with labels all or none.
    """
    blocks: list[bytes] = []
    payload, pixels = hashlib.sha256(), hashlib.sha256()
    count, labels = 0, False
    for group in groups:
        words = coder.write(group)
        block = struct.pack("<I", len(words)) + words.astype("<u4").tobytes()
        payload.update(block)
        pixels.update(group.pixels.numpy().tobytes())
        blocks.append(block)
        count, labels = count + len(group.pixels), group.labels is not None
    header = Header(
        version=VERSION,
        autoencoder=coder.first.artifact.digest,
        prior=coder.second.artifact.digest,
        image=coder.first.image,
        count=count,
        labels=labels and coder.num_classes > 0,
        payload_sha256=payload.hexdigest(),
        pixels_sha256=pixels.hexdigest(),
        computed_by=computed_by(coder.device),
        threads=torch.get_num_threads(),
    )
    text = json.dumps(header.model_dump(mode="json"), separators=(",", ":")).encode()
    building = path.with_name(f".{path.name}.building")
    with building.open("wb") as file:
        file.write(MAGIC + struct.pack("<I", len(text)) + text)
        file.writelines(blocks)
    building.replace(path)
    return header


def open_coded(path: Path) -> CodedFile:
    """Read a file and compare its checksum.

    Raises:
        DataError: If it is not there, is none of these files, is of another version, or is damaged.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"{path}: must be a file of coded images, is none") from None
    if not content.startswith(MAGIC):
        raise DataError(f"{path}: must be a file of coded images; it does not begin like one")
    begin = len(MAGIC) + 4
    text = b""
    if len(content) >= begin:
        (length,) = struct.unpack_from("<I", content, len(MAGIC))
        text = content[begin : begin + length]
    try:
        header = Header.model_validate_json(text)
    except ValidationError:
        raise DataError(
            f"{path}: its header cannot be read: damaged, or of another version; code it again"
        ) from None
    payload = content[begin + len(text) :]
    whole_words = len(payload) % 4 == 0
    if (
        header.version != VERSION
        or not whole_words
        or hashlib.sha256(payload).hexdigest() != header.payload_sha256
    ):
        raise DataError(
            f"{path}: damaged: its {len(payload)} bytes after the header do not have the checksum "
            "they were written with; code the images again, or fetch the file once more"
        )
    return CodedFile(path, header, begin + len(text), payload)
