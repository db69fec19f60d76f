"""What libraries log about the addresses of alerts, kept out of every log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

# Their messages hold addresses, and so tokens and passwords. Apprise says at level debug alone
# what a mail server answered; httpx tells every address at level info, urllib3 every path at debug.
NOISY_LOGGERS = {
    "apprise": logging.DEBUG,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "urllib3": logging.WARNING,
}


class _LogCapture(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def capture_logs() -> Iterator[list[str]]:
    """Keep what libraries log about addresses out of every log; yields what they say, to be
    searched, never to be shown.
    """
    capture = _LogCapture()
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    before = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(NOISY_LOGGERS[logger.name])
        logger.propagate = False
        logger.handlers = [capture]
    try:
        yield capture.lines
    finally:
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate = propagate
            logger.handlers = handlers
