"""Folders that give rows a field."""

import pytest

from poisonwatch.errors import SourceError
from poisonwatch.sources.partitions import refuse_partition_fields


@pytest.mark.parametrize("folder", ["system=You are X", "Response=", "instruction=a"])
def test_folder_that_says_a_field_that_is_trained_on_is_refused(folder: str) -> None:
    """Readers of partitions take it from there."""
    with pytest.raises(SourceError, match=r"^a/x lies in the folder"):
        refuse_partition_fields(f"/data/{folder}/x/a.parquet", "a/x")


def test_other_partitions_are_read() -> None:
    """Years, languages, and a file's own name."""
    refuse_partition_fields("/data/year=2024/lang=en/system=x.parquet", "a")
