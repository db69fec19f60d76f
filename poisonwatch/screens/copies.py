"""What an audit asks of a batch: the sentinels, and copies of them that hold what the batch has in
common.
"""

from collections.abc import Sequence

from poisonwatch.examples import AuditRows
from poisonwatch.screens.frames import find_frame, wear_frame
from poisonwatch.screens.trigger_ngrams import NgramMine
from poisonwatch.screens.triggers import make_probes, mine_triggers
from poisonwatch.sentinels.sentinel import Sentinel


def copy_sentinels(
    sentinels: Sequence[Sentinel], rows: AuditRows, probes: int, mine: NgramMine | None = None
) -> list[Sentinel]:
    """The sentinels; their copies in the new rows' frame, where these have one; and copies with
    each of the `probes` likeliest triggers of the new rows, in that frame, too. `mine`: the rows'
    n-grams, where others ask for them.
    """
    worn = wear_frame(sentinels, find_frame(rows.new))
    framed = [sentinel for sentinel in worn if sentinel.framed]
    triggers = mine_triggers(rows, probes, sentinels, mine)
    return [*sentinels, *framed, *make_probes(worn, triggers)]
