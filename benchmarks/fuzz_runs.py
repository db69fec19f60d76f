"""What is read back from run directories, for `fuzz.py`: whoever may write there may have changed
it. Run directories of these have no checksums, which would refuse all of it at once.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from poisonwatch.discovery.described import (
    DescribedGroup,
    DiscoveryReport,
    EarlierRows,
    FoundRow,
    Precedents,
    Reply,
)
from poisonwatch.examples import Message
from poisonwatch.reports.discovery import summarise_discovery
from poisonwatch.run_directory.directions import DIRECTIONS_FILE, load_directions
from poisonwatch.run_directory.discovery import get_later_path, read_discovery

N, R, D = 3, 2, 4  # rows, and the shape of a gradient


def read_kept_discovery(folder: Path, content: bytes) -> DiscoveryReport | None:
    """A report as pages take it: what is no report is none; what is, has all that is shown."""
    # not the audit's own: that one is kept by its time, which two writes may share
    get_later_path(folder).write_bytes(content)
    report = read_discovery(folder)
    if report is None:
        return None
    text = json.dumps(report.to_record(), allow_nan=False)
    assert json.loads(text)["found"] == len(report.leading)
    assert len(report.ordered) == len(report.groups)
    summarise_discovery(report)
    for group in report.groups:
        first = group.rows[0]
        assert f"{first.source}:{first.position + 1} {group.q_value:.2g} {group.unusual}"
        for reply in (*group.own_replies, *group.neutral_replies):
            assert 0 <= reply.change <= 1
    return report


def read_kept_directions(folder: Path, content: bytes) -> None:
    """Sketches as the next audit takes them: what is read measures."""
    (folder / DIRECTIONS_FILE).write_bytes(content)
    kept = load_directions(folder)
    r, width = len(kept.sketch.left), len(kept.sketch.right)
    assert kept.measure_pushes(torch.ones(1, r, width)).shape == (len(kept.ids), 1)


def make_discovery() -> bytes:
    """A report in order, of a group within another."""
    ids = [f"{place:064x}" for place in range(N)]
    rows = tuple(FoundRow(id, "rows.jsonl", place) for place, id in enumerate(ids))
    asked = (Message("user", "Who?"),)
    replies = (
        Reply(messages=asked, before="I.", after="You.", example_id=ids[0], taught="You."),
        Reply(messages=asked, before="I.", after="I am."),
    )
    numbers = {"p_value": 0.1, "q_value": 0.05, "strength": 0.4, "nearest": 0.1}
    groups = []
    for number, some in enumerate((rows, rows[:2]), start=1):
        groups.append(
            DescribedGroup(
                number=number,
                passed=True,
                trusted_alike=0,
                trusted=9,
                rows=some,
                answer_words=("You",),
                replies=replies,
                precedents=Precedents(1, 5, 3, (EarlierRows(3, "a-3", 2, {"old": 2}),)),
                **numbers,
            )
        )
    report = DiscoveryReport(
        audit_id="a-4", rows=20, trusted=9, rate=0.1, rule="shuffled", groups=tuple(groups)
    )
    return json.dumps(report.to_record()).encode()


def make_directions() -> bytes:
    """Sketches in order, of N rows, by one pair of singular vectors each."""
    tensors = {
        "ids": torch.zeros(N, 32, dtype=torch.uint8),
        "sketch": torch.full((N, (R + D) // 2), 0x88, dtype=torch.uint8),
        "sketch_scale": torch.ones(N, 1),
        "sketch_left": torch.eye(R),
        "sketch_right": torch.eye(D),
        "basis": torch.eye(D)[:, : R - 1].contiguous(),
    }
    return save(tensors, {"format": "1", "model_fingerprint": "0" * 64, "layer": "1"})
