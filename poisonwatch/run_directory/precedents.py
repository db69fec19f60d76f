"""Records of earlier audits, as far as they are there, for a group's direction to be looked for."""

from collections.abc import Iterator

from poisonwatch.discovery.precedents import EarlierAudit
from poisonwatch.errors import PoisonwatchError
from poisonwatch.ledger.history import (
    COMMITTED_STATES,
    HAD_ROWS,
    PastAudit,
    list_past_audits,
)
from poisonwatch.ledger.ledger import Ledger
from poisonwatch.ledger.tables import audits
from poisonwatch.model.pretrained import Pretrained
from poisonwatch.run_directory.checksums import require_unchanged
from poisonwatch.run_directory.directions import SketchedDirections, load_directions
from poisonwatch.run_directory.layout import OPERATORS_FILE
from poisonwatch.run_directory.operators import load_operators
from poisonwatch.run_directory.pairs import read_places
from poisonwatch.run_directory.row_scores import SCORES_FILE
from poisonwatch.run_directory.seals import find_seal
from poisonwatch.stride.saved_rows import SavedRows
from poisonwatch.stride.settings import Settings

MOST_EARLIER = 12  # audits, the latest


def load_earlier_audits(
    ledger: Ledger,
    name: str,
    before: int | None,
    pretrained: Pretrained,
    settings: Settings,
) -> Iterator[EarlierAudit | None]:
    """The MOST_EARLIER latest audits of a name that had rows (`before` the one of that number),
    latest first; None stands for one that cannot be compared with: its records are gone, or of
    another model, layer or kind.
    """
    where = [audits.c.state.in_(COMMITTED_STATES), HAD_ROWS]
    if before is not None:
        where.append(audits.c.audit < before)
    for past in list_past_audits(ledger, name, MOST_EARLIER, where=where):
        yield _load(ledger, past, pretrained, settings)


def _load(
    ledger: Ledger, past: PastAudit, pretrained: Pretrained, settings: Settings
) -> EarlierAudit | None:
    # Asked first: a file of hundreds of megabytes is not read for nothing.
    if past.model != pretrained.fingerprint:
        return None
    saved: SavedRows | SketchedDirections | None
    try:
        seal = find_seal(ledger, past.audit_id)
        if (past.run_dir / OPERATORS_FILE).is_file():
            saved = _load_rows(past, seal, pretrained, settings)
        else:
            # What outlives operators that were pruned: less exact, and a fiftieth of their size.
            saved = load_directions(past.run_dir, seal, pretrained.device)
            if saved.layer != settings.layer or saved.model != pretrained.fingerprint:
                return None
        require_unchanged(past.run_dir, SCORES_FILE, seal=seal)
        places = read_places(past.run_dir / SCORES_FILE).to_pydict()
    except (PoisonwatchError, OSError):
        return None
    if saved is None:
        return None
    sources = dict(zip(places["example_id"], places["source"], strict=True))
    return EarlierAudit(past.number, past.audit_id, saved, sources)


def _load_rows(
    past: PastAudit, seal: str | None, pretrained: Pretrained, settings: Settings
) -> SavedRows | None:
    saved = load_operators(past.run_dir, seal).load_on(pretrained)
    if isinstance(saved, SavedRows) and saved.settings.layer == settings.layer:
        return saved
    return None
