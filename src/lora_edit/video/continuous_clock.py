"""Time stamps of joined recordings, made to run on: each part begins where the one before it ends."""

from __future__ import annotations

from fractions import Fraction

STEP_BACK = Fraction(3, 2)
"""Frame periods from which a step back is a new part and no jitter."""

STEP_FORWARD = Fraction(10)
"""Seconds from which a step forward in a transport stream is a new part; FFmpeg's own measure (`dts_delta_threshold`)."""


class ContinuousClock:
    """Maps the time stamps of one stream, in its order, to a clock that runs on.

    `period` is the usual distance in seconds between two of them. `shifts` are the seconds added to each part so far; `given` are those
    of another stream of the same file, which this one follows as far as they go.
    """

    def __init__(self, period: Fraction, may_step_forward: bool, known_shifts: tuple[Fraction, ...] = ()) -> None:
        self.shifts: tuple[Fraction, ...] = (Fraction(0),)
        self._period = period
        self._leaps = may_step_forward
        self._given = known_shifts
        self._last: Fraction | None = None
        self._end = Fraction(0)

    def map_time(self, time: Fraction, duration: Fraction | None = None) -> Fraction:
        """The time on the running clock; `duration` is how long what begins then lasts, else one period."""
        if self._last is not None and self._is_new_part(time):
            follows = self._end + self.shifts[-1] - time
            number = len(self.shifts)
            self.shifts = (*self.shifts, self._given[number] if number < len(self._given) else follows)
        self._last, self._end = time, time + (duration or self._period)
        return time + self.shifts[-1]

    def _is_new_part(self, time: Fraction) -> bool:
        assert self._last is not None
        return time < self._last - STEP_BACK * self._period or (self._leaps and time > self._last + STEP_FORWARD)
