"""What tells the settings of a measurement from those of a stage."""

from __future__ import annotations


class Unleased:
    """Mixin of settings: the command holds no lease of its day.

    Stages that it starts on that root take the lease themselves, and an empty root has to be empty.
    """

    @property
    def writes(self) -> bool:
        """Whether it holds the lease of its day."""
        return False
