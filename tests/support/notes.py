"""What an audit says to people, kept for a test."""

from poisonwatch.flows.reporter import Reporter


class Notes(Reporter):
    """Remembers each line, and prints none."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)
