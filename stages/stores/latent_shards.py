"""Rows of latents to few large Parquet files and back.

Files are named SPLIT-00003-of-00008.parquet, compressed with zstd, and cut into row groups that fit
in memory whatever a row weighs. Equal rows give equal bytes: where a row group ends depends on
the format alone, and Parquet as written here keeps no time and no host. A file appears whole or not
at all, and one that is there is not written again: so several processes can share the files of a
split, and those of one that was lost alone are made again.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.stores.latent_format import LatentHeader, Rows, arrow_schema, column_types

__all__ = ["read_shard", "write_split"]

# Small enough that several fit in memory, large enough that compression and reading pay off.
ROW_GROUP_BYTES = 2**25


def write_split(
    folder: Path,
    split: str,
    header: LatentHeader,
    num_rows: int,
    rows_per_shard: int,
    read: Callable[[int, int], Rows],
    *,
    share: tuple[int, int] = (0, 1),
) -> list[str]:
    """Write the rows of a split, as far as they are not there yet.

    Args:
        folder: Where the files go.
        split: Its name, the first word of the files' names.
        header: What the files say of themselves.
        num_rows: Rows in the split; none at all still gives one (empty) file.
        rows_per_shard: Rows in each file but the last.
        read: Gives rows [start, stop) in the types of `column_types`.
        share: (which, of how many): of so many processes, each writes its files alone.

    Returns:
        Names of all files, in row order.
    """
    num_shards = max(1, -(-num_rows // rows_per_shard))
    names = [f"{split}-{k:05d}-of-{num_shards:05d}.parquet" for k in range(num_shards)]
    which, of = share
    for shard, name in list(enumerate(names))[which::of]:
        if not (folder / name).exists():
            start = shard * rows_per_shard
            stop = min(start + rows_per_shard, num_rows)
            building = folder / f"{name}.building"
            _write_shard(building, header, start, stop, read)
            with building.open("rb") as file:
                os.fsync(file.fileno())
            building.replace(folder / name)
    return names


def _write_shard(
    path: Path, header: LatentHeader, start: int, stop: int, read: Callable[[int, int], Rows]
) -> None:
    schema = arrow_schema(header)
    step = _rows_per_group(header)
    dictionaries = ["view", "codes.list.element"]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionaries) as writer:
        for group in range(start, stop, step):
            rows = read(group, min(group + step, stop))
            writer.write_table(_table(rows, header, schema), row_group_size=step)


def _rows_per_group(header: LatentHeader) -> int:
    columns = column_types(header).values()
    row_bytes = sum(dtype.itemsize * max(numbers, 1) for dtype, numbers in columns)
    return max(1, ROW_GROUP_BYTES // row_bytes)


def _table(rows: Rows, header: LatentHeader, schema: pa.Schema) -> pa.Table:
    columns = []
    for name, (dtype, numbers) in column_types(header).items():
        values = rows[name]
        assert values.dtype == dtype, f"{name}: {values.dtype} is not {dtype}"
        array = pa.array(values.reshape(-1))
        if name == "view":
            array = pa.DictionaryArray.from_arrays(array, pa.array(header.views, pa.string()))
        if numbers:
            array = pa.FixedSizeListArray.from_arrays(array, type=schema.field(name).type)
        columns.append(array)
    return pa.Table.from_arrays(columns, schema=schema)


def read_shard(path: Path, header: LatentHeader) -> Iterator[Rows]:
    """Yield the rows of a file, one row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group).combine_chunks()
            yield {
                name: _column(table.column(name), name, numbers, header)
                for name, (_, numbers) in column_types(header).items()
            }


def _column(column: pa.ChunkedArray, name: str, numbers: int, header: LatentHeader) -> np.ndarray:
    array = column.combine_chunks()
    if name == "view":
        # A row group's own dictionary holds only the views that occur in it, in that order.
        order = [header.views.index(view) for view in array.dictionary.to_pylist()]
        return np.array(order, dtype=np.int8)[array.indices.to_numpy(zero_copy_only=False)]
    if numbers:
        return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, numbers)
    return array.to_numpy(zero_copy_only=False)
