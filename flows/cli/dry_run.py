"""What an audit would take, before it is begun: `poisonwatch audit --dry-run`.

Rows are read as `check` reads them, some are tokenised, and one batch of them goes through the real
model, with a clock beside it. No ledger is made or changed, and no row is pulled into one; one that
no audit could write into is told of first.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import numpy as np

from poisonwatch.config import AuditConfig
from poisonwatch.errors import SourceError
from poisonwatch.examples import Example
from poisonwatch.flows.forecast import MOST_TOKENISED, Forecast, RowCounts, forecast_passes
from poisonwatch.ledger.writable import require_writable
from poisonwatch.model.batching import adapt_token_budget
from poisonwatch.model.pretrained import load_pretrained
from poisonwatch.progress import Progress
from poisonwatch.screens.frames import find_frame
from poisonwatch.sentinels.sentinel import load_sentinels
from poisonwatch.sources.survey import (
    TEMPLATE_TOKENS,
    Survey,
    estimate_row_tokens,
    survey_source,
)
from poisonwatch.stride.audit_sizes import Tokens, count_tokens


class Waiting(Protocol):
    """What a person sees meanwhile."""

    @property
    def progress(self) -> Progress: ...
    def waiting(self, text: str) -> AbstractContextManager[object]: ...


def forecast_audit(config: AuditConfig, page: Waiting) -> Forecast:
    """What an audit of all rows of the source would take on this machine, as it is now. Raises what
    it would stop with.
    """
    require_writable(config.state)
    max_tokens = config.stride.max_tokens
    survey = survey_source(config.source, max_tokens, samples=0, progress=page.progress)
    new, examples = _count_rows(survey, config.source.address), _list_examples(survey)
    trusted = 0
    if config.reference is not None and config.reference_rows:
        most = config.reference_rows
        reference = survey_source(config.reference, max_tokens, samples=0, most_rows=most)
        trusted = _count_rows(reference, config.reference.address)
    sentinels = load_sentinels(config.sentinels)
    with page.waiting("loading the model ..."):
        started = time.perf_counter()
        pretrained = load_pretrained(config.model)
        loading = time.perf_counter() - started
    stride = adapt_token_budget(pretrained.model, config.stride)
    config = config.model_copy(update={"stride": stride})
    encoder = pretrained.make_encoder(max_tokens)
    with page.waiting("tokenising some rows ..."):
        encoded = [encoder.encode_example(row) for row in examples]
        tokens = count_tokens(encoded)
        if survey.complete > len(examples):
            tokens = _extrapolate(tokens, survey, examples, max_tokens)
    counts = RowCounts(new=new, trusted=trusted)
    with page.waiting("timing one batch ..."):
        return forecast_passes(
            config,
            pretrained,
            sentinels,
            counts,
            encoded,
            tokens,
            frame=find_frame(examples),
            loading=loading,
        )


def _count_rows(survey: Survey, address: str) -> int:
    """Different rows that became conversations. Raises SourceError where a file cannot be read, or
    there are none.
    """
    if survey.problems:
        raise SourceError(survey.problems[0])
    if not survey.complete:
        raise SourceError(
            f"{address} holds no row that is a whole conversation: `poisonwatch check` says why"
        )
    return max(survey.complete - survey.copies - survey.variants, 1)


def _list_examples(survey: Survey) -> list[Example]:
    """At most MOST_TOKENISED of the rows that were kept, evenly spread."""
    kept = []
    for row, draft in survey.kept:
        example = draft.to_example(row)
        if example is not None:
            kept.append(example)
    if len(kept) <= MOST_TOKENISED:
        return kept
    return [kept[i] for i in np.linspace(0, len(kept) - 1, MOST_TOKENISED).astype(int).tolist()]


def _extrapolate(
    tokens: Tokens, survey: Survey, examples: Sequence[Example], max_tokens: int
) -> Tokens:
    """The tokens of all rows, from the characters of all and what those of some came to: rows that
    come later may be longer.
    """
    judged = 0
    for example in examples:
        for messages in (example.messages, example.rejected):
            if messages:
                judged += min(estimate_row_tokens(messages) + TEMPLATE_TOKENS, max_tokens)
    found = tokens.mean * len(examples) / max(judged, 1)
    return replace(tokens, mean=found * survey.tokens.audited / survey.complete)
