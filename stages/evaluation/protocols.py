"""The protocols of the line: what all figures about test images, samples, training images share."""

import numpy as np

from stages.assembly.judge import Judge
from stages.core.intensities import ROUNDING_RULE
from stages.evaluation.line import Line
from stages.evaluation.observe import evenly_spaced
from stages.evaluation.options import EvaluateOptions
from stages.metrics.protocol import Protocol, SamplerRecord

__all__ = [
    "judged_by",
    "label_balance",
    "protocol_of_samples",
    "protocol_of_test",
    "protocol_of_train",
    "told_to_prior",
]


def protocol_of_test(line: Line, rows: np.ndarray, seed: int) -> Protocol:
    """Of figures over the test split.

    Args:
        line: What is judged.
        rows: Rows of the latents' test split that are looked at.
        seed: Of the posterior draws.
    """
    split, latents = line.prepared.split("test"), line.latents.split("test")
    labels = None if split.labels is None else split.labels[latents.index[rows]]
    return _protocol(line, "test split", len(rows), labels).also(seed=seed)


def told_to_prior(line: Line, protocol: Protocol) -> Protocol:
    """The same for figures that ask the prior: p(latents) is not p(latents given class)."""
    given = "class" if line.second_stage.prior.num_classes > 0 else "nothing"
    return protocol.also(prior_given=given)


def protocol_of_samples(line: Line, reference_n: int) -> Protocol:
    """Of figures about samples, held against so many test images."""
    samples = line.samples
    return _protocol(line, "samples", reference_n, samples.labels).also(
        sampler=SamplerRecord.of(samples.artifact.about["sampling"])
    )


def protocol_of_train(line: Line, reference_n: int, options: EvaluateOptions) -> Protocol:
    """Of figures about training images, held against so many test images."""
    split = line.prepared.split("train")
    rows = evenly_spaced(len(split.images), options.max_images)
    labels = None if split.labels is None else split.labels[rows]
    return _protocol(line, "training split", reference_n, labels)


def judged_by(judge: Judge, protocol: Protocol) -> Protocol:
    """The same in the features of the judge."""
    return protocol.also(
        extractor=f"convolutional classifier taught {judge.config.taught}, penultimate layer",
        extractor_sha256=judge.artifact.digest,
        found={**protocol.found, "extractor_test_accuracy": judge.test_accuracy},
    )


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
