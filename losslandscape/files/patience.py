"""Waiting for a disk, for minutes, and ready to end at once.

    with Patience(seconds=300) as patience:
        while not succeeded() and not patience.is_over:
            patience.pause()
"""

import os
import signal
import time

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # a job that is to end gets one
FIRST_PAUSE = 1.0  # seconds; each is twice as long as the one before
LONGEST_PAUSE = 30.0
SLICE = 0.2  # seconds in which a signal is noticed


class Patience:
    """Growing pauses of `seconds` in all. A signal ends the waiting, and takes effect after the block.

    Signals are left alone outside of the main thread (a notebook's worker, say).
    """

    def __init__(self, seconds):
        self.seconds = seconds
        self.signal = None  # one that has come
        self.has_paused = False
        self._end = time.monotonic() + seconds
        self._next = FIRST_PAUSE
        self._old_handlers = {}

    def __enter__(self):
        try:
            for number in ENDING_SIGNALS:
                self._old_handlers[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            pass
        return self

    def __exit__(self, *_):
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        if self.signal is not None:
            os.kill(os.getpid(), self.signal)

    def _note(self, number, _):
        self.signal = number

    @property
    def is_over(self):
        """Is the time over, or has a signal come?"""
        return self.signal is not None or time.monotonic() >= self._end

    @property
    def must_end(self):
        """Is there no time at all to go on beyond the end?"""
        return self.signal is not None or self.seconds <= 0

    def pause(self):
        """Wait a while."""
        self.has_paused = True
        end = time.monotonic() + self._next
        self._next = min(2 * self._next, LONGEST_PAUSE)
        while self.signal is None and time.monotonic() < end:
            time.sleep(SLICE)
