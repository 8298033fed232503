"""A set of positive numbers that is nearly without gaps, in as many ranges as it has gaps and one. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""First and last, both included."""


class Numbers:
    """Which numbers were seen, and up to which there should be any."""

    def __init__(self, ranges: Iterable[Range] = (), named: int = 0) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.named = named
        """The highest number that a heartbeat has named."""
        for first, last in sorted(ranges):
            if self._lasts and self._lasts[-1] + 1 == first:
                self._lasts[-1] = last
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    @property
    def last(self) -> int:
        """The highest number that was seen, 0 where none was."""
        return self._lasts[-1] if self._lasts else 0

    @property
    def count(self) -> int:
        """How many were seen."""
        return sum(last - first + 1 for first, last in self.ranges())

    def ranges(self) -> Iterator[Range]:
        """What was seen, in order."""
        return zip(self._firsts, self._lasts, strict=True)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, number: int) -> bool:
        """Note a number; False where it was seen already."""
        firsts, lasts = self._firsts, self._lasts
        at = bisect_right(firsts, number) - 1
        if at >= 0 and number <= lasts[at]:
            return False
        joins_left = at >= 0 and lasts[at] + 1 == number
        joins_right = at + 1 < len(firsts) and firsts[at + 1] == number + 1
        if joins_left and joins_right:
            lasts[at] = lasts[at + 1]
            del firsts[at + 1], lasts[at + 1]
        elif joins_left:
            lasts[at] = number
        elif joins_right:
            firsts[at + 1] = number
        else:
            firsts.insert(at + 1, number)
            lasts.insert(at + 1, number)
        return True

    def name(self, number: int) -> None:
        """A heartbeat says that numbers up to this one were used."""
        self.named = max(self.named, number)

    def gaps(self) -> Iterator[Range]:
        """The numbers from 1 up to the highest that was seen or named that are missing, as ranges, in order."""
        expected = 1
        for first, last in self.ranges():
            if first > expected:
                yield expected, first - 1
            expected = last + 1
        if self.named >= expected:
            yield expected, self.named
