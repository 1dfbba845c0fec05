"""Progress bars: what is being done and the time left."""

from typing import Any

from tqdm import tqdm

# Without the counts, which may be fractions of steps.
BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


class Bars:
    """A `Progress` that shows one bar after the other, a new one whenever `what` changes."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: float, total: float) -> None:
        if what == self._what and self._bar is None and done >= total:
            return  # finished already
        if self._bar is None or what != self._what:
            self.close()
            self._what, self._bar = what, tqdm(total=total, desc=what, dynamic_ncols=True, bar_format=BAR_FORMAT)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Ends the bar that is shown, if any."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
