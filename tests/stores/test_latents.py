"""The latent data set: what is written is what anyone reads; damage and strangers are named."""

import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch

from stages.core.artifacts import new_artifact
from stages.core.errors import ArtifactError
from stages.core.randomness import torch_stream
from stages.nn.posteriors import family_of
from stages.stores.latent_format import LatentHeader, PosteriorFamily, code_type, column_types
from stages.stores.latent_pieces import LatentPieces
from stages.stores.latent_shards import write_split
from stages.stores.latent_statistics import code_figures, latent_scale
from stages.stores.latents import open_latents

ROWS, HEIGHT, WIDTH, CHANNELS, CLASSES = 11, 2, 3, 5, 4
CODES = {"kind": "codes", "num_codes": 300, "channels": 0, "scale": 1.0}
GAUSSIAN = {"kind": "continuous", "num_codes": 0, "channels": CHANNELS, "scale": 0.25}
POINTS = GAUSSIAN | {"deterministic": True}
HALF = GAUSSIAN | {"precision": "float16"}
NO_CLASSES = CODES | {"num_classes": 0, "class_names": None}
KINDS = {"codes": CODES, "gaussian": GAUSSIAN, "points": POINTS, "half": HALF, "bare": NO_CLASSES}


def header(**changes):
    return LatentHeader(
        **{
            "format": "latentline latents",
            "version": 1,
            "grid_height": HEIGHT,
            "grid_width": WIDTH,
            "deterministic": False,
            "precision": "float32",
            "views": ("identity", "horizontal_flip"),
            "num_classes": CLASSES,
            "class_names": ("ant", "bee", "cat", "dog"),
            "autoencoder": "a" * 64,
            "prepared": "b" * 64,
            "first_stage": {"bottleneck": {"kind": "vq"}},
        }
        | changes
    )


def some_rows(head, seed=0):
    numbers = np.random.default_rng(seed)
    rows = {"index": np.arange(ROWS) // 2, "view": (np.arange(ROWS) % 2).astype(np.int8)}
    rows["label"] = numbers.integers(0, CLASSES, ROWS)
    for name, (dtype, width) in column_types(head).items():
        if name == "codes":
            rows[name] = numbers.integers(0, head.num_codes, (ROWS, width)).astype(dtype)
        elif width:
            rows[name] = numbers.normal(size=(ROWS, width)).astype(dtype)
    return {name: rows[name] for name in column_types(head)}


def write(path, head, rows, rows_per_shard=4):
    about = {"header": head.model_dump(mode="json"), "splits": {}}
    with new_artifact(path, "latents", about) as folder:
        shards = write_split(
            folder,
            "train",
            head,
            ROWS,
            rows_per_shard,
            lambda start, stop: {name: values[start:stop] for name, values in rows.items()},
        )
        views = list(head.views)
        about["splits"]["train"] = {"images": 6, "rows": ROWS, "views": views, "shards": shards}
    return path


def written(tmp_path, **changes):
    head = header(**changes)
    rows = some_rows(head)
    return write(tmp_path / "latents", head, rows), head, rows


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.mark.parametrize("in_memory_bytes", [10**9, 0], ids=["memory", "mapped"])
def test_rows_come_back_in_any_order(tmp_path, kind, in_memory_bytes):
    path, head, rows = written(tmp_path, **kind)
    split = open_latents(path, in_memory_bytes, tmp_path / "scratch").split("train")
    assert (tmp_path / "scratch").exists() == (in_memory_bytes == 0)
    assert len(split) == ROWS
    assert np.array_equal(split.index, rows["index"])
    assert list(split.views) == ["identity", "horizontal_flip"] * (ROWS // 2) + ["identity"]
    order = np.array([10, 0, 7, 7])
    batch = split.batch(order)
    if head.kind == "codes":
        assert batch.mean is None and batch.log_variance is None
        assert batch.codes.dtype == torch.int64
        expected = rows["codes"][order].reshape(4, HEIGHT, WIDTH)
        assert np.array_equal(batch.codes, expected)
    else:
        assert batch.codes is None and batch.mean.dtype == torch.float32
        shape = (4, CHANNELS, HEIGHT, WIDTH)
        assert np.array_equal(batch.mean, rows["mean"][order].reshape(shape))
        if head.deterministic:
            assert batch.log_variance is None
        else:
            expected = rows["log_variance"][order].reshape(shape)
            assert np.array_equal(batch.log_variance, expected)
    if head.num_classes:
        assert np.array_equal(split.labels, rows["label"])
        assert np.array_equal(batch.labels, rows["label"][order])
    else:
        assert split.labels is None and batch.labels is None


def test_mapped_files_are_reused_and_may_be_deleted(tmp_path):
    path, _, rows = written(tmp_path, **CODES)
    open_latents(path, 0, tmp_path / "scratch").split("train")
    [mapped] = (tmp_path / "scratch").glob("*/train/codes")
    before = mapped.stat().st_mtime_ns
    split = open_latents(path, 0, tmp_path / "scratch").split("train")
    assert mapped.stat().st_mtime_ns == before
    mapped.unlink()
    mapped.with_name("index").unlink()
    assert np.array_equal(split.columns["codes"], rows["codes"]), "open maps outlive their names"


def test_pandas_reads_it_in_three_lines(tmp_path, kind):
    path, head, rows = written(tmp_path, **kind)
    frame = pandas.read_parquet(sorted(path.glob("train-*.parquet")))
    assert len(frame) == ROWS
    assert list(frame.columns) == list(column_types(head))
    assert list(frame["view"][:2]) == ["identity", "horizontal_flip"]
    for name, (dtype, width) in column_types(head).items():
        if width:
            values = np.stack(frame[name])
            assert values.dtype == dtype and np.array_equal(values, rows[name])
    assert ("label" in frame) == (head.num_classes > 0)


def test_every_file_says_what_it_is(tmp_path):
    path, head, _ = written(tmp_path, **GAUSSIAN)
    for file in path.glob("*.parquet"):
        metadata = json.loads(pq.read_schema(file).metadata[b"latentline"])
        assert metadata == head.model_dump(mode="json")


@pytest.mark.parametrize(
    ("num_codes", "expected"),
    [
        (1, "uint8"),
        (255, "uint8"),
        (256, "uint8"),
        (257, "uint16"),
        (2**16, "uint16"),
        (2**16 + 1, "uint32"),
        (2**32, "uint32"),
    ],
)
def test_codes_take_the_smallest_type(num_codes, expected):
    assert code_type(num_codes).name == expected
    assert np.iinfo(code_type(num_codes)).max >= num_codes - 1


def test_more_codes_than_a_type_holds():
    with pytest.raises(ArtifactError, match=r"more codes than a type holds.*4294967297"):
        code_type(2**32 + 1)


@pytest.mark.parametrize("num_codes", [256, 257, 2**16 + 1])
def test_the_largest_code_survives(tmp_path, num_codes):
    head = header(**CODES | {"num_codes": num_codes})
    rows = some_rows(head)
    rows["codes"][:] = num_codes - 1
    path = write(tmp_path / "latents", head, rows)
    codes = open_latents(path).split("train").batch(np.arange(ROWS)).codes
    assert (codes == num_codes - 1).all()


def test_equal_rows_give_equal_bytes(tmp_path, kind):
    head = header(**kind)
    first = write(tmp_path / "first", head, some_rows(head))
    second = write(tmp_path / "second", head, some_rows(head))
    files = sorted(file.name for file in first.iterdir())
    assert len(files) == 4
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_a_flipped_byte_is_named(tmp_path):
    path, *_ = written(tmp_path, **CODES)
    damaged = path / "train-00001-of-00003.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    dataset = open_latents(path)
    with pytest.raises(ArtifactError, match=r"train-00001-of-00003\.parquet: damaged.*dvc"):
        dataset.split("train")


def test_a_truncated_file_is_named(tmp_path):
    path, *_ = written(tmp_path, **CODES)
    damaged = path / "train-00002-of-00003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=r"train-00002-of-00003\.parquet: must have"):
        open_latents(path)


@pytest.mark.parametrize("in_memory_bytes", [0, 2**30])
@pytest.mark.parametrize("kind", ["garbage", "empty", "other columns"])
def test_a_file_that_cannot_be_read_is_told_though_the_manifest_vouches_for_it(
    tmp_path, kind, in_memory_bytes
):
    path, *_ = written(tmp_path, **CODES)
    about = open_latents(path).artifact.about
    name = "train-00001-of-00003.parquet"
    with new_artifact(tmp_path / "other", "latents", about) as folder:
        shutil.copytree(path, folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        (folder / name).write_bytes(b"garbage" * (kind == "garbage"))
        if kind == "other columns":
            pandas.DataFrame({"index": [0]}).to_parquet(folder / name)
    dataset = open_latents(tmp_path / "other", in_memory_bytes, tmp_path / "scratch")
    with pytest.raises(ArtifactError, match=rf"{name}: cannot be read \(.*dvc"):
        dataset.split("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, this program reads version 1"),
        ({"format": "squirrel"}, "'squirrel'"),
        ({"scale": -1.0}, "damaged at scale"),
        ({"surprise": 1}, "damaged at surprise"),
    ],
)
def test_other_formats_are_refused(tmp_path, change, message):
    about = {"header": header(**CODES).model_dump(mode="json") | change, "splits": {}}
    with new_artifact(tmp_path / "latents", "latents", about):
        pass
    with pytest.raises(ArtifactError, match=message):
        open_latents(tmp_path / "latents")


def test_a_foreign_autoencoder_is_refused_naming_both(tmp_path):
    path, *_ = written(tmp_path, **CODES)
    dataset = open_latents(path)
    dataset.require_autoencoder("a" * 64)
    with pytest.raises(ArtifactError, match=f"{'a' * 64}, not to {'c' * 64}"):
        dataset.require_autoencoder("c" * 64)


def test_an_unknown_split_is_refused(tmp_path):
    path, *_ = written(tmp_path, **CODES)
    with pytest.raises(ArtifactError, match="no split 'tset'; there is train"):
        open_latents(path).split("tset")


def test_a_draw_has_the_posteriors_moments(tmp_path):
    path, *_ = written(tmp_path, **GAUSSIAN)
    batch = open_latents(path).split("train").batch(np.zeros(20_000, dtype=np.int64))
    draws = batch.draw(torch_stream(0, "test"))
    variance = batch.log_variance[0].exp()
    # 5 standard errors of a mean and of a variance of 20,000 draws, for 30 numbers.
    error = 5 / 20_000**0.5
    assert ((draws.mean(0) - batch.mean[0]).abs() < error * variance.sqrt()).all()
    assert ((draws.var(0) / variance - 1).abs() < error * 2**0.5).all()
    assert not torch.equal(draws, batch.draw(torch_stream(1, "test")))


def test_the_header_knows_every_family():
    for name in get_args(PosteriorFamily):
        reference = {"gamma": (2.0, 1.0), "beta": (1.0, 3.0)}.get(name, ())
        spec = header(**GAUSSIAN | {"posterior": name, "reference": reference}).spec
        assert (spec.posterior, spec.reference) == (name, reference)
        family_of(spec.posterior, spec.reference)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("posterior", "reference", "scale", "mean", "log_variance"),
    [
        ("laplace", (), 0.25, -0.4, 0.7),
        ("gamma", (2.0, 1.0), 0.4, 1.5, 0.2),
        ("beta", (1.0, 1.0), 3.4, 0.3, -3.5),
    ],
)
def test_draws_are_of_the_family_and_scaled(
    tmp_path, precision, posterior, reference, scale, mean, log_variance
):
    """Undone, drawn, scaled again: for moments m and v in own units, F((draw / scale)) is q's."""
    head = header(
        **GAUSSIAN
        | {"posterior": posterior, "reference": reference, "scale": scale, "precision": precision}
    )
    rows = some_rows(head)
    rows["mean"][:] = scale * mean
    rows["log_variance"][:] = log_variance + 2 * np.log(scale)
    path = write(tmp_path / "latents", head, rows)
    batch = open_latents(path).split("train").batch(np.zeros(700, dtype=np.int64))
    draws = batch.draw(torch_stream(0, "test")).double().flatten().numpy() / scale
    variance = np.exp(log_variance)
    member = {
        "laplace": lambda: scipy.stats.laplace(mean, np.sqrt(variance / 2)),
        "gamma": lambda: scipy.stats.gamma(mean**2 / variance, scale=variance / mean),
        "beta": lambda: scipy.stats.beta(
            *np.array([mean, 1 - mean]) * (mean * (1 - mean) / variance - 1)
        ),
    }[posterior]()
    # Kolmogorov's statistic of 21,000 draws exceeds this once in a million seeds; float16 keeps
    # a log-variance to three decimals.
    limit = np.sqrt(-0.5 * np.log(1e-6 / 2) / draws.size)
    assert scipy.stats.kstest(draws, member.cdf).statistic < limit
    own = open_latents(path).split("train").batch(np.arange(3)).posterior
    assert own.mean.dtype == torch.float64
    assert own.mean.numpy() == pytest.approx(mean, rel=1e-3)
    assert own.log_variance.numpy() == pytest.approx(log_variance, abs=4e-3)


def test_points_and_codes_are_drawn_as_they_are(tmp_path):
    for name, kind in (("points", POINTS), ("codes", CODES)):
        path, *_ = written(tmp_path / name, **kind)
        batch = open_latents(path).split("train").batch(np.arange(ROWS))
        expected = batch.codes if name == "codes" else batch.mean
        assert torch.equal(batch.draw(torch_stream(0, "test")), expected)


def pieces_of(folder, rows, num_images, num_views, images_per_piece):
    pieces = LatentPieces(folder, num_images, images_per_piece, num_views)
    for piece in pieces.missing():
        images = pieces.images(piece)
        window = slice(images.start * num_views, images.stop * num_views)
        pieces.write(piece, {name: values[window] for name, values in rows.items()})
    return pieces


def test_pieces_give_any_window_of_rows(tmp_path):
    rows = {"codes": np.arange(14 * 6, dtype=np.uint16).reshape(14, 6)}
    pieces = pieces_of(tmp_path, rows, num_images=7, num_views=2, images_per_piece=3)
    assert len(pieces) == 3 and pieces.num_rows == 14 and not pieces.missing()
    for start in range(14):
        for stop in range(start + 1, 15):
            found = pieces.read(start, stop)["codes"]
            assert np.array_equal(found, rows["codes"][start:stop])


def test_the_scale_is_that_of_draws_in_closed_form(tmp_path):
    numbers = np.random.default_rng(0)
    mean = numbers.normal(3.0, 2.0, (14, 30)).astype(np.float32)
    log_variance = numbers.normal(-1.0, 0.5, (14, 30)).astype(np.float32)
    rows = {"mean": mean, "log_variance": log_variance}
    pieces = pieces_of(tmp_path / "q", rows, num_images=7, num_views=2, images_per_piece=3)
    # Law of total variance: variance of the means plus mean of the variances.
    expected = np.var(mean.astype(np.float64)) + np.exp(log_variance.astype(np.float64)).mean()
    assert latent_scale(pieces) == pytest.approx(expected**-0.5, rel=1e-12)
    points = pieces_of(tmp_path / "p", {"mean": mean}, 7, 2, 3)
    assert latent_scale(points) == pytest.approx(1 / np.std(mean.astype(np.float64)), rel=1e-12)


def test_latents_that_do_not_vary_are_refused(tmp_path):
    pieces = pieces_of(tmp_path, {"mean": np.full((4, 6), 2.0, np.float32)}, 4, 1, 3)
    with pytest.raises(ArtifactError, match="collapsed"):
        latent_scale(pieces)


def test_usage_and_perplexity_of_codes(tmp_path):
    even = np.tile(np.array([[3, 9, 5, 7]], dtype=np.uint8), (6, 1))
    figures = code_figures(pieces_of(tmp_path / "even", {"codes": even}, 6, 1, 4), 16)
    assert figures == pytest.approx({"code_usage": 4 / 16, "code_perplexity": 4.0})
    uneven = np.array([[0, 0, 0, 1]], dtype=np.uint8)
    figures = code_figures(pieces_of(tmp_path / "uneven", {"codes": uneven}, 1, 1, 4), 2)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert figures == pytest.approx({"code_usage": 1.0, "code_perplexity": np.exp(entropy)})


def test_usage_of_several_codebooks_is_that_of_each(tmp_path):
    rows = np.array([[0, 0, 1], [0, 2, 3]], dtype=np.uint8)
    pieces = pieces_of(tmp_path, {"codes": rows}, 2, 1, 4)
    figures = code_figures(pieces, 4, ((1, 1), (1, 2)))
    assert figures == pytest.approx({"code_usage": 5 / 8, "code_perplexity": 2.0})


def test_row_groups_do_not_change_what_is_read(tmp_path, monkeypatch):
    path, head, rows = written(tmp_path, **GAUSSIAN)
    monkeypatch.setattr("stages.stores.latent_shards.ROW_GROUP_BYTES", 600)
    other = write(tmp_path / "other", head, rows)
    assert pq.ParquetFile(next(Path(other).glob("*-00000-*"))).num_row_groups > 1
    order = np.arange(ROWS)
    first, second = (open_latents(p).split("train").batch(order) for p in (path, other))
    assert torch.equal(first.mean, second.mean) and torch.equal(first.labels, second.labels)
