"""The protocols of the line: what all figures about test images, samples, training images share."""

import numpy as np

from stages.core.intensities import ROUNDING_RULE
from stages.core.shapes import ImageShape
from stages.evaluation.image_sets import ImageSet
from stages.evaluation.line import Line
from stages.evaluation.observe import evenly_spaced
from stages.extractors.base import Extractor
from stages.metrics.protocol import Protocol, SamplerRecord

__all__ = [
    "in_features",
    "label_balance",
    "protocol_of_test",
    "protocols_of_sets",
    "told_to_prior",
]


def protocols_of_sets(line: Line, sets: dict[str, ImageSet], seed: int) -> dict[str, Protocol]:
    """Of figures about each set, held against the test images, by name.

    `floor` is of training images, as many as there are samples where there are so many.

    Args:
        line: What is judged.
        sets: `test`, `train`, `samples` and `reconstructions`.
        seed: Of the posterior draws.
    """
    reference_n = len(sets["test"])
    of_test = _of_test(line, reference_n, sets["test"].labels, seed)
    train = sets["train"]
    floor = evenly_spaced(len(train), len(sets["samples"]))
    floor_labels = None if train.labels is None else train.labels[floor]
    return {
        "test": of_test,
        "reconstructions": of_test.also(images=sets["reconstructions"].shows),
        "samples": _of_samples(line, reference_n, sets["samples"].labels),
        "floor": _protocol(line, "training split", reference_n, floor_labels).also(
            chosen="evenly spaced, at most as many as there are samples"
        ),
    }


def protocol_of_test(line: Line, rows: np.ndarray, seed: int) -> Protocol:
    """Of figures about some test images.

    Args:
        line: What is judged.
        rows: Rows of the latents' test split.
        seed: Of the posterior draws.
    """
    split, latents = line.prepared.split("test"), line.latents.split("test")
    labels = None if split.labels is None else split.labels[latents.index[rows]]
    return _of_test(line, len(rows), labels, seed)


def told_to_prior(line: Line, protocol: Protocol) -> Protocol:
    """The same for figures that ask the prior: p(latents) is not p(latents given class)."""
    prior = line.second_stage.prior
    given = "class" if prior.num_classes > 0 else "nothing"
    return protocol.also(prior_given=given, log_prior=prior.log_prob_is.how)


def in_features(
    network: Extractor, image: ImageShape, protocols: dict[str, Protocol]
) -> dict[str, Protocol]:
    """The same in the features of a network that is shown images of this shape."""
    rule = network.rule(image)
    accuracy = network.test_accuracy
    about = {} if accuracy is None else {"extractor_test_accuracy": accuracy}
    return {
        name: protocol.also(
            extractor=network.title,
            extractor_sha256=network.checksum,
            resize=rule.resize,
            antialias=rule.antialias,
            values=rule.values,
            grey=rule.grey,
            found={**protocol.found, **about},
        )
        for name, protocol in protocols.items()
    }


def label_balance(labels: np.ndarray | None, names: list[str]) -> str | dict[str, int]:
    """Images of each class: a table, `equal` where it would say one number, or `no classes`.

    Args:
        labels: Class of each image; None without classes.
        names: Of the classes, indexed by label.
    """
    if labels is None:
        return "no classes"
    counts = np.bincount(labels, minlength=len(names)).tolist()
    if len(set(counts)) == 1:
        return "equal"
    return dict(zip(names, counts, strict=True))


def _of_test(line: Line, count: int, labels: np.ndarray | None, seed: int) -> Protocol:
    return _protocol(line, "test split", count, labels).also(seed=seed)


def _of_samples(line: Line, reference_n: int, labels: np.ndarray | None) -> Protocol:
    """Of figures about samples.

    Where the judge let the samples pass, what it then says of them is no independent opinion: the
    protocol says so, and names the judge among the parts.
    """
    about = line.samples.artifact.about
    protocol = _protocol(line, "samples", reference_n, labels).also(
        sampler=SamplerRecord.of(about["sampling"])
    )
    if about["judge"] is None:
        return protocol
    tries = about["sampling"]["rejection_tries"]
    return protocol.also(
        images=f"samples, each chosen by the judge among up to {tries} candidates",
        parts={**protocol.parts, "judge": about["judge"]},
        independence="none of this judge: it chose the samples",
    )


def _protocol(line: Line, images: str, reference_n: int, labels: np.ndarray | None) -> Protocol:
    prepared = line.prepared.artifact
    parts = {name: artifact.digest for name, artifact in line.artifacts.items()}
    # The judge stands as the extractor of the figures it has a say in.
    seen = {"training split": {"prepared"}, "test split": parts.keys() - {"judge", "samples"}}
    kept = seen.get(images, parts.keys() - {"judge"})
    classes = 0 if labels is None else max(line.prepared.num_classes, int(labels.max()) + 1)
    return Protocol(
        images=images,
        reference_split="test",
        reference_n=reference_n,
        reference_sha256=prepared.files["test/images.npy"]["sha256"],
        resize="none",
        antialias=None,
        rounding=ROUNDING_RULE,
        label_balance=label_balance(labels, [line.class_name(k) for k in range(classes)]),
        parts={name: digest for name, digest in parts.items() if name in kept},
    )
