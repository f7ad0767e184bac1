"""E-mail addresses and telephone numbers that sellers write into titles: found by patterns, and masked.

A title is full of part numbers, EANs and sizes, so a number alone is no telephone number here as it is in a query
(:mod:`etl.privacy`): it has a country code, stands behind a word like "call" or 电话, or is written as a country writes its
own and as products are not numbered. The patterns are read alike by Python and by Java: Spark needs no Python for them.
"""

from __future__ import annotations

import re

from pyspark.sql import Column
from pyspark.sql import functions as F

MASK = "***"
"""What stands in their place: no word, so it is not learnt."""

# ASCII classes alone: \w, \b and \s differ between Python and Java.
_EDGE, _END = "(?<![0-9A-Za-z./-])", "(?![0-9A-Za-z/]|[.-][0-9A-Za-z])"
_GAP = "[ \u00a0.()/-]{0,2}"

_EMAIL = (
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}(?:[@\uff20]|[ \u00a0]?[\[(](?i:at)[\])][ \u00a0]?)"
    r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,5}\.[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_CUES = (
    "telephone|telefon|tel|phone|fon|call|mobile|cell|dial|ring|text|sms|fax|hotline|helpline|contact|whatsapp|wechat|viber"
    "|telegram|电话|電話|手机|手機|热线|熱線|联系|聯繫|致电|致電|微信|客服"
)
_FILLERS = "(?:[ \u00a0.:\uff1a#-]|us|now|no|nr|number|at|on|me|号|號){0,5}"
_PHONES = (
    rf"(?<![0-9A-Za-z])\+[1-9](?:{_GAP}[0-9]){{7,14}}(?![0-9A-Za-z])",
    rf"(?i:(?<![a-z])(?:{_CUES}){_FILLERS})\(?\+?[0-9](?:{_GAP}[0-9]){{6,14}}(?![0-9A-Za-z])",
    # North America
    rf"{_EDGE}(?:1[ .-]?)?(?:\([2-9][0-9]{{2}}\) ?|[2-9][0-9]{{2}}[ .-])[2-9][0-9]{{2}}[ .-][0-9]{{4}}{_END}",
    # Chinese mobiles
    rf"{_EDGE}1[3-9][0-9](?:[0-9]{{8}}|[ -][0-9]{{4}}[ -][0-9]{{4}}){_END}",
    # With the 0 before an area: China, Germany, Great Britain; in pairs: France
    rf"{_EDGE}\(?0[1-9][0-9]{{1,3}}\)?[ /-][0-9]{{3,4}}[ -]?[0-9]{{3,5}}{_END}",
    rf"{_EDGE}0[1-9](?:[ .-][0-9]{{2}}){{4}}{_END}",
    # Brazil
    r"\([1-9][0-9]\) ?9?[0-9]{4}-[0-9]{4}(?![0-9A-Za-z])",
)
_PATTERN = "|".join((_EMAIL, *_PHONES))
# What each of them has: asked first, since most titles have neither, and it takes a fiftieth of the time.
_MAY_HOLD = r"[@\uff20]|[\[(](?i:at)[\])]|[0-9](?:[^0-9]{0,2}[0-9]){6}"
_FOUND, _MAY_BE_FOUND = re.compile(_PATTERN, re.ASCII), re.compile(_MAY_HOLD, re.ASCII)


def masked(title: str) -> str:
    """The title with MASK in the place of each e-mail address and telephone number; itself again if it is masked already."""
    return _FOUND.sub(MASK, title) if _MAY_BE_FOUND.search(title) else title


def masked_column(title: Column) -> Column:
    """The same of a column; null stays null."""
    return F.when(title.rlike(_MAY_HOLD), F.regexp_replace(title, F.lit(_PATTERN), F.lit(MASK))).otherwise(title)
