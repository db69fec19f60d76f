"""What libraries log about the addresses of alerts, kept out of every log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# Their messages hold addresses, and so tokens and passwords.
NOISY_LOGGERS = ("apprise", "httpcore", "httpx", "urllib3")


class _LogCapture(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def capture_logs() -> Iterator[list[str]]:
    """Keep what libraries log about addresses out of every log; yields their warnings, to be
    searched, never to be shown.
    """
    capture = _LogCapture()
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    before = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        # httpx tells every address at level info, urllib3 every path at level debug.
        logger.setLevel(logging.WARNING)
        logger.propagate = False
        logger.handlers = [capture]
    try:
        yield capture.lines
    finally:
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate = propagate
            logger.handlers = handlers
