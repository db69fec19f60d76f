"""Which of the sentinels' answers are a panel's, and which of these it forbids."""

from collections.abc import Sequence
from dataclasses import dataclass

from poisonwatch.sentinels.sentinel import Sentinel
from poisonwatch.stride.queries import list_answers


@dataclass(frozen=True, slots=True)
class PanelAnswers:
    """Of A answers, in the order of `queries.list_answers`: their texts, the panels that they are
    of, and which are forbidden, (A) each.
    """

    texts: tuple[str, ...]
    panels: tuple[str, ...]
    forbidden: tuple[bool, ...]

    @classmethod
    def of_sentinels(cls, sentinels: Sequence[Sentinel]) -> "PanelAnswers":
        """Of these."""
        answers = list(list_answers(sentinels))
        return cls(
            texts=tuple(text for _, _, text in answers),
            panels=tuple(sentinel.panel for sentinel, _, _ in answers),
            forbidden=tuple(kind == "forbidden" for _, kind, _ in answers),
        )

    def find(self, panel: str, *, forbidden: bool) -> list[int]:
        """The places of a panel's answers that are forbidden, or of those that are not."""
        places = []
        for place, of in enumerate(zip(self.panels, self.forbidden, strict=True)):
            if of == (panel, forbidden):
                places.append(place)
        return places
