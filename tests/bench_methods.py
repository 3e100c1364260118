"""Methods for the tests of the benchmark: named in a spec by imports = ["bench_methods"]."""

import os
import signal
from pathlib import Path

from seminar_utils.adaptation import METHODS, Source
from seminar_utils.runtime import SeminarError


class Killer(Source):
    """Its process is gone at the first batch; with `once` (a path) only the first time."""

    def __init__(self, model, once: str = ""):
        self.once = Path(once) if once else None
        super().__init__(model)

    def adapt_batch(self, x):
        if self.once is None or not self.once.exists():
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().adapt_batch(x)


class Broken(Source):
    """Fails in the middle of a stream, unless the file it is told is there."""

    def __init__(self, model, mended: str = ""):
        self.mended = mended
        super().__init__(model)

    def adapt_batch(self, x):
        if self.batches_seen == 1 and not (self.mended and Path(self.mended).exists()):
            raise RuntimeError("out of order")
        return super().adapt_batch(x)


class NeedsSource(Source):
    """Wants to see source images first."""

    needs_source = True

    def learn_source(self, batches):
        self.seen = [tuple(x.shape) for x in batches]

    def adapt_batch(self, x):
        if not getattr(self, "seen", None):
            raise SeminarError("no source images")
        return super().adapt_batch(x)


METHODS.update({"killer": Killer, "broken": Broken, "needs_source": NeedsSource})
