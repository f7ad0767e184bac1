"""Passwords and keys stay out of what is logged and printed, however they came in."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType

HIDDEN = "(not shown)"

SECRET = re.compile(r"(?i)secret|passw|token(?!i[sz]er|s)|access[._-]?key|api[._-]?key|private[._-]?key|credential")
"""Names of settings and variables whose values are nobody's business."""

_SHORTEST = 8
"""Characters of a value that is looked for in texts: shorter ones are words such as `false`, and none worth a guess."""

_USERINFO = re.compile(r"(?<=://)[^/\s]*@")
_PARAMETER = re.compile(rf"([?&;][\w.-]*(?:{SECRET.pattern.removeprefix('(?i)')})[\w.-]*=)[^&;\s'\"]+", re.IGNORECASE)

_learnt: set[str] = set()


def learn(settings: Mapping[str, str]) -> None:
    """Remember the values of settings or variables that their names call secret, to leave them out from now on."""
    _learnt.update(value for name, value in settings.items() if SECRET.search(name) and len(value) >= _SHORTEST)


def redacted(text: str) -> str:
    """A text without what was learnt, and without the user, password and secret parameters of addresses in it."""
    for value in sorted(_learnt, key=len, reverse=True):  # one may hold another
        text = text.replace(value, HIDDEN)
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USERINFO.sub(f"{HIDDEN}@", text))


class RedactingFormatter(logging.Formatter):
    """Lines and tracebacks, redacted as they are written."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def print_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For ``sys.excepthook``: a traceback holds what the error says, which may be an address with its password."""
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
