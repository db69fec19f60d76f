"""What cannot be judged: new rows on a topic that trusted rows do not cover.

Such rows score beside the trusted rows as poison would, and do only what the rows around them do
(`Detection.unjudged`). They may be honest rows on something new, or poison that is a whole topic;
only trusted rows on it, or a person, can say which. They are not flagged, unless the setting
`detection.new_topics` is "hold": then each is flagged like a screen's finding, and stays in
quarantine until somebody decides.

A topic is a cluster of these rows, by the similarity of their states (`stride.similarity`) alone.

Row text is hostile. Here it is data: pass it through `text.display` where it is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from poisonwatch.config import DetectionConfig
from poisonwatch.detection.clusters import (
    MOST_CLUSTERED,
    cluster_rows,
    find_medoid,
    find_words_in_common,
)
from poisonwatch.detection.detect import flag_rows
from poisonwatch.detection.detection import Detection
from poisonwatch.detection.shared_ngrams import SharedNgram
from poisonwatch.examples import AuditRows
from poisonwatch.failures import Attempts
from poisonwatch.screens.finding import NEW_TOPIC, Finding
from poisonwatch.stride.influence import Influence
from poisonwatch.text.display import excerpt

# Rows from which a cluster is a topic: fewer have no words in common that say anything.
LEAST_ROWS = 5
# A finding's group, where its row is on no topic with others.
ON_ITS_OWN = "on its own"
LONGEST_WORDS = 60  # characters of a topic's words in a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """Unjudged rows that are alike, strongest score first: `rows` are places among the detection's
    new rows.

    `panel` is the one on which most of the rows score highest, `example` the row nearest to the
    topic's centre. `prompt_ngrams` and `answer_ngrams` are what the rows share, if anything.
    """

    rows: tuple[int, ...]
    panel: str
    example: int
    prompt_ngrams: tuple[SharedNgram, ...]
    answer_ngrams: tuple[SharedNgram, ...]

    @property
    def words(self) -> str | None:
        """What most of the rows say, as they write it; of their prompts, where these share any."""
        grams = (*self.prompt_ngrams, *self.answer_ngrams)
        return grams[0].text if grams else None


def judge_rows(
    influence: Influence,
    rows: AuditRows,
    config: DetectionConfig,
    findings: Sequence[Finding] = (),
    attempts: Attempts | None = None,
) -> tuple[Detection, tuple[NewTopic, ...]]:
    """The detection, flags by `findings` among it, and the topics that cannot be judged, which are
    flagged, too, where the settings say so.

    Where rows cannot be put into topics, there are none, and `attempts` has the failure. Raises
    ValueError as `flag_rows` does.
    """
    attempts = attempts or Attempts()
    detection = flag_rows(influence, rows, config, findings)
    topics: tuple[NewTopic, ...] = ()
    with attempts.part("topics that cannot be judged", "not named"):
        topics = find_new_topics(influence, detection, attempts)
    if config.new_topics == "hold" and detection.unjudged.any():
        held = find_held_rows(detection, topics)
        detection = flag_rows(influence, rows, config, [*findings, *held])
    return detection, topics


def find_new_topics(
    influence: Influence, detection: Detection, attempts: Attempts | None = None
) -> tuple[NewTopic, ...]:
    """The topics of the unjudged rows, of LEAST_ROWS rows at least, largest first; none where
    nothing is known of which rows are alike.

    `influence` is that of the detection's rows. Rows past the MOST_CLUSTERED with the highest
    scores are left out; so are words, where looking for them fails, and `attempts` has the failure.
    """
    unjudged = np.flatnonzero(detection.unjudged)
    if len(unjudged) < LEAST_ROWS or not influence.features.shape[1]:
        return ()
    highest = detection.scores[unjudged].max(axis=1)
    strongest = unjudged[np.argsort(-highest, kind="stable")[:MOST_CLUSTERED]]
    phi = influence.features[strongest]
    own = phi.astype(np.float64)
    ids = [detection.examples[i].id for i in strongest.tolist()]
    members = [some for some in cluster_rows(own @ own.T, ids) if len(some) >= LEAST_ROWS]
    # Words are looked for in all rows: without a topic, there is no need.
    if not members:
        return ()
    groups = [strongest[k] for k in members]
    prompts, answers = find_words_in_common(detection.examples, groups, attempts or Attempts())
    topics = []
    for number, some in enumerate(members):
        rows = strongest[some]
        on_panel = np.bincount(detection.scores[rows].argmax(axis=1))
        medoid = find_medoid(phi[some], [ids[k] for k in some.tolist()])
        topics.append(
            NewTopic(
                rows=tuple(rows.tolist()),
                panel=detection.panels[int(on_panel.argmax())],
                example=int(rows[medoid]),
                prompt_ngrams=prompts[number],
                answer_ngrams=answers[number],
            )
        )
    return tuple(topics)


def find_held_rows(detection: Detection, topics: Sequence[NewTopic]) -> list[Finding]:
    """A finding for each unjudged row, in their order; rows of one topic are of one group."""
    on_topic = {row: number for number, topic in enumerate(topics) for row in topic.rows}
    found = []
    for row in np.flatnonzero(detection.unjudged).tolist():
        if row in on_topic:
            number = on_topic[row]
            group, does = f"topic {number + 1}", f"does what {_name_topic(topics[number])} do"
            reason = f"{does}: nothing says whether they should."
        else:
            group, does = ON_ITS_OWN, "scores beyond trusted rows, not far enough beyond the rows"
            reason = f"{does} most like it: nothing says whether it should."
        found.append(Finding(row, NEW_TOPIC, group, reason))
    return found


def _name_topic(topic: NewTopic) -> str:
    said = ""
    if topic.words is not None:
        said = f" (most say “{excerpt(topic.words, LONGEST_WORDS)}”)"
    return f"{len(topic.rows)} rows on a topic that trusted rows do not cover{said}"
