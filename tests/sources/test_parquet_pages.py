"""Dictionary pages of Parquet files tell how long their longest text is."""

import io
import tempfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poisonwatch.sources.parquet_pages import measure_longest_entry, measure_pages


def measure(file: io.BytesIO) -> int:
    return measure_longest_entry(file, pq.read_metadata(file).row_group(0).column(0))


def write(texts: list[str], **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": texts}), file, **options)
    return file


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("checksum", [False, True])
def test_longest_text_is_found(compression: str, version: str, checksum: bool) -> None:
    """In bytes of UTF-8, whatever the page is packed with."""
    texts = ["x", "红" * 700, "", "y" * 2000]
    options = {"data_page_version": version, "write_page_checksum": checksum}
    assert measure(write(texts * 3, compression=compression, **options)) == 2100


def test_page_that_cannot_be_read_counts_as_all_that_is_stored() -> None:
    """Nothing is shorter than it is."""
    file = write(["x" * 500] * 3, compression="zstd")
    chunk = pq.read_metadata(file).row_group(0).column(0)
    broken = bytearray(file.getvalue())
    start = chunk.dictionary_page_offset
    broken[start : start + 40] = b"\xff" * 40
    assert measure_longest_entry(io.BytesIO(bytes(broken)), chunk) == chunk.total_uncompressed_size


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("statistics", [True, False])
def test_pages_are_counted_by_their_headers(
    compression: str, version: str, dictionary: bool, statistics: bool
) -> None:
    """Over many pages, of a buffer and of a file: values, and bytes as the footer has them."""
    texts = [f"{i % 40} " + "x" * 2000 for i in range(2000)]
    file = write(
        texts,
        compression=compression,
        data_page_version=version,
        use_dictionary=dictionary,
        write_statistics=statistics,
        data_page_size=50_000,
    )
    chunk = pq.read_metadata(file).row_group(0).column(0)
    found = measure_pages(file, chunk)
    assert found.values == 2000
    assert found.by_dictionary == (2000 if dictionary else 0)
    assert found.largest <= found.unpacked <= chunk.total_uncompressed_size
    # The footer counts headers, too.
    assert found.unpacked > chunk.total_uncompressed_size * 0.9
    with tempfile.TemporaryFile() as real:
        real.write(file.getvalue())
        real.flush()
        assert measure_pages(real, chunk) == found


def test_header_that_is_none_is_an_error() -> None:
    """Where pages are measured."""
    file = write(["x"] * 3)
    chunk = pq.read_metadata(file).row_group(0).column(0)
    broken = bytearray(file.getvalue())
    start = chunk.dictionary_page_offset
    broken[start : start + 40] = b"\xff" * 40
    with pytest.raises(ValueError, match="header of a page"):
        measure_pages(io.BytesIO(bytes(broken)), chunk)
