"""Messages of the package: logged by its functions, shown on the screen by the command line.

Every module logs to ``logging.getLogger(__name__)``. Python users see warnings only, unless they
configure logging or call :func:`show_messages`, as ``semi_nnunet VERB`` does.
"""

from __future__ import annotations

import logging
import sys

from semi_nnunet.util.errors import printable

PACKAGE = "semi_nnunet"


class ScreenHandler(logging.Handler):
    """Print messages as plain lines: warnings to stderr, others to stdout.

    Characters that control a terminal are escaped: messages name files of other people.
    """

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        if stream is not None:
            print(printable(record.getMessage()), file=stream, flush=True)


def show_messages() -> None:
    """Show the package's messages on the screen; calling it again has no effect.

    >>> show_messages()
    >>> logging.getLogger("semi_nnunet.example").info("2 cases preprocessed")
    2 cases preprocessed
    """
    logger = logging.getLogger(PACKAGE)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not shows_messages():
        logger.addHandler(ScreenHandler())


def shows_messages() -> bool:
    """Return whether this process shows messages on the screen."""
    handlers = logging.getLogger(PACKAGE).handlers
    return any(isinstance(handler, ScreenHandler) for handler in handlers)
