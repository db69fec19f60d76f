"""Data cards whose YAML says which files are loaded."""

import pytest

from poisonwatch.sources.data_cards import find_card_problem


def problem(configs: str, name: str = "readme.md") -> str | None:
    text = f"configs:\n{configs}\n"
    if name == "readme.md":
        text = f"---\n{text}---\n# Text\n"
    return find_card_problem(name, text.encode())


@pytest.mark.parametrize(
    "configs",
    [
        "- data_files: ../evil.jsonl",
        "- data_files: /tmp/evil.jsonl",
        "- data_files: https://example.com/evil.jsonl",
        "- data_files: [{split: train, path: x/../../evil.jsonl}]",
        "- data_dir: ..",
        "- data_files: .hidden/a.jsonl",
        "- data_files: [a.jsonl, ./a.jsonl]",
        "- data_files: ['*.jsonl', a.jsonl]",
        "- data_files: {train: ['a/*.jsonl', 'a/b*']}",
        "- data_files: a.jsonl\n  field: other",
        "- data_files: [1]",
        "- a",
        "  a: b",
    ],
)
def test_card_that_leads_elsewhere_or_reads_otherwise_is_a_problem(configs: str) -> None:
    """Out of its folder, to hidden files, to a file twice, or by settings of a reader."""
    assert problem(configs) is not None
    assert problem(configs, ".huggingface.yaml") is not None


@pytest.mark.parametrize(
    "configs",
    [
        "- config_name: default\n  data_files: a.jsonl\n  default: true",
        "- data_files: [{split: train, path: 'train/*'}, {split: test, path: 'train/*'}]",
        "- data_files: {train: [a.jsonl, b.jsonl]}",
        "- data_files: ['a/*.parquet', 'b/*.parquet', '*.csv']\n- data_files: a/x.parquet",
        "- data_dir: x",
        "  []",
    ],
)
def test_card_that_names_files_of_its_folder_is_none(configs: str) -> None:
    """They are found there, each once in a split."""
    assert problem(configs) is None


def test_card_without_files_is_prose() -> None:
    """No YAML, or other YAML; one that cannot be read may say anything."""
    assert find_card_problem("readme.md", b"# Text\n---\nconfigs: 1\n---\n") is None
    assert find_card_problem("readme.md", b"---\nlicense: mit\n---\n") is None
    assert find_card_problem("readme.md", b"") is None
    assert find_card_problem("readme.md", b"---\na: [\n---\n") is not None
