"""Which rank has been silent for too long: stopped, hung in a GPU or on a dead disk, or only slow?

A rank gives a sign of life every few seconds, and reports its results. It stands still

- without any sign for SILENT_SECONDS: it is stopped, or waits within a library; or
- without a result for SILENT_POINTS of its usual points (and SILENT_SECONDS): it is alive, but waits
  for data that do not come.

To take it for standing still when it is not costs nothing but a few points computed twice.
"""

SILENT_SECONDS = 60.0
SILENT_POINTS = 5


class Silence:
    """When the ranks were heard of. All times are those of one monotonic clock, in seconds."""

    def __init__(self, size, now):
        self._sign = [now] * size  # the last sign of life of each rank
        self._result = [now] * size  # the last result, or when it got work after it had none
        self._usual = [None] * size  # seconds per point, rather too high than too low

    def heard(self, rank, now):
        """A message of any kind has come from `rank`."""
        self._sign[rank] = now

    def began(self, rank, now):
        """`rank` has work again."""
        self._result[rank] = now

    def reported(self, rank, seconds, now):
        """`rank` has reported a point that took so many seconds."""
        self._sign[rank] = self._result[rank] = now
        self._usual[rank] = max(seconds, 0.9 * (self._usual[rank] or 0.0))

    def pause(self, seconds):
        """The listener itself was away for so long: nobody else's fault."""
        self._sign = [time + seconds for time in self._sign]
        self._result = [time + seconds for time in self._result]

    def usual(self, rank):
        """Seconds per point of `rank`, or else of the slowest other; None where nobody is known."""
        if self._usual[rank] is not None:
            return self._usual[rank]
        return max((seconds for seconds in self._usual if seconds is not None), default=None)

    def seconds(self, rank, now, at_least=SILENT_SECONDS):
        """How long `rank` has been standing still; 0.0 where it is not, or not for `at_least`."""
        since_sign = now - self._sign[rank]
        if since_sign > at_least:
            return since_sign

        usual = self.usual(rank)
        since_result = now - self._result[rank]
        if usual is not None and since_result > max(at_least, SILENT_POINTS * usual):
            return since_result
        return 0.0
