"""Files as a bad disk or a copy that was cut off leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def each_damage(file: Path, flips: int = 100) -> Iterator[str]:
    """What was done to a file: cut to nothing, to its half and by two bytes; a bit flipped, in some ``flips`` places.

    One after the other, and whole again in the end. The last byte alone may be a newline, which no JSON needs.
    """
    whole = file.read_bytes()
    for size in sorted({0, len(whole) // 2, len(whole) - 2}):
        file.write_bytes(whole[:size])
        yield f"{file.name} of {len(whole)} bytes cut to {size}"
    file.write_bytes(whole)
    with file.open("r+b", buffering=0) as opened:
        for place in range(0, len(whole), max(1, len(whole) // flips)):
            bit = place % 8
            for byte in (whole[place] ^ 1 << bit, whole[place]):
                opened.seek(place)
                opened.write(bytes([byte]))
                if byte != whole[place]:
                    yield f"{file.name} with bit {bit} of byte {place} flipped"
