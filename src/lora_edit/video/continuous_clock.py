"""Continuous time stamps for joined recordings: each part begins where the previous one ends."""

from __future__ import annotations

from fractions import Fraction

STEP_BACK = Fraction(3, 2)
"""Frame periods from which a step back starts a new part; smaller ones are jitter."""

STEP_FORWARD = Fraction(10)
"""Seconds from which a step forward in a transport stream starts a new part; FFmpeg's own threshold (`dts_delta_threshold`)."""


class ContinuousClock:
    """Clock that maps the time stamps of one stream, passed in their order, to continuous times.

    `period` is the usual distance in seconds between two time stamps. `may_step_forward` treats large steps forward as new parts too.
    `known_shifts` are the shifts of another stream of the same file, which are used as far as they go. The attribute `shifts` holds the
    seconds added to each part so far.
    """

    def __init__(self, period: Fraction, may_step_forward: bool, known_shifts: tuple[Fraction, ...] = ()) -> None:
        self.shifts: tuple[Fraction, ...] = (Fraction(0),)
        self._period = period
        self._may_step_forward = may_step_forward
        self._known_shifts = known_shifts
        self._last_time: Fraction | None = None
        self._last_end = Fraction(0)

    def map_time(self, time: Fraction, duration: Fraction | None = None) -> Fraction:
        """Map a time stamp to the continuous clock.

        `duration` is that of the packet or frame that begins at `time`, in seconds; one period by default.
        """
        if self._last_time is not None and self._is_new_part(time):
            shift = self._last_end + self.shifts[-1] - time
            part = len(self.shifts)
            self.shifts = (*self.shifts, self._known_shifts[part] if part < len(self._known_shifts) else shift)
        self._last_time, self._last_end = time, time + (duration or self._period)
        return time + self.shifts[-1]

    def _is_new_part(self, time: Fraction) -> bool:
        assert self._last_time is not None
        return time < self._last_time - STEP_BACK * self._period or (self._may_step_forward and time > self._last_time + STEP_FORWARD)
