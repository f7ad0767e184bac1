"""Whether what went wrong may pass by itself: a store or a mount that does not answer now, and not one that refuses us."""

from __future__ import annotations

import errno
import re

_ERRNOS = frozenset(
    (
        errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETUNREACH,
        errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENOTCONN, errno.EREMOTEIO,
    )
)  # fmt: skip

_WORDS = re.compile(
    r"error sending request|timed ?out|timeout expired|connection (refused|reset|closed|error)|broken pipe|unreachable"
    r"|SlowDown|ServiceUnavailable|InternalError|RequestTimeout|TooManyRequests|status(?: code)?:? (429|50[0234])\b"
    r"|input/output error|stale file handle|unknownhost|failed to lookup address",
    re.IGNORECASE,
)
"""What S3, Azure and HDFS say by way of Hadoop's clients and delta-rs's, and the kernel of a mount.

A name that does not resolve is among them: a name server that restarts is more frequent than a misspelt endpoint, which
costs two tries.
"""


def may_pass(error: OSError) -> bool:
    """Whether the same call may do a few minutes later; a file that is damaged, missing or forbidden stays so."""
    return error.errno in _ERRNOS or says_so(str(error))


def says_so(text: str) -> bool:
    """The same by what an error says, where it comes from another language."""
    return bool(_WORDS.search(text))
