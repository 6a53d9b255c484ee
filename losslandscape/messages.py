"""What a run says while it works: lines on standard error, and how far it is."""

import sys
import time

SHOWN_CHARACTERS = 120  # of a text that comes from a file


def say(text):
    """Print a line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def printable(text, length=SHOWN_CHARACTERS):
    """A text from a file on one line, cut to `length`, with '?' for what commands a terminal."""
    if len(text) > length:
        text = text[: length - 4] + " ..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Progress:
    """Points per second and the time left: a bar on a terminal, else a line every 30 s."""

    SECONDS_BETWEEN_LINES = 30

    def __init__(self, total):
        from tqdm import tqdm

        self._total = total
        self._done = 0
        self._start = self._last_line = time.monotonic()
        self._format_interval = tqdm.format_interval
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, unit="point", file=sys.stderr, dynamic_ncols=True)

    def step(self):
        """One more point is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            return

        now = time.monotonic()
        if now - self._last_line > self.SECONDS_BETWEEN_LINES or self._done == self._total:
            self._last_line = now
            rate = self._done / (now - self._start)
            left = self._format_interval((self._total - self._done) / rate)
            say(f"{self._done} of {self._total} points, {rate:.3g} points/s, {left} left")

    def close(self):
        if self._bar is not None:
            self._bar.close()
