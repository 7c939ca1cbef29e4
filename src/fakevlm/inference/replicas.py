"""Which replica of a model's server gets the next request: the least busy one that is not resting.

A replica that told us to wait (Retry-After) rests as long as it said. One that fails again and again, or that
cannot be reached at all, rests longer each time; after that a single request probes it, and only an answer
brings the rest back. While no replica can be reached all requests wait: what a server that is started anew
does not answer is no request's fault. Replicas that only fail, however they do it, end the run after a while.
"""

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from fakevlm.progress import say

_FAILURES = 3  # in a row, before a replica that does answer the door must rest
_FIRST_REST, _LONGEST_REST = 1.0, 60.0
_LONGEST_WAIT = 600.0  # a server that asks for more is asked again after this
_BACKOFF, _LONGEST_BACKOFF = 0.5, 30.0
# Seconds that servers are waited for: where none was ever reached (a wrong address, most likely), and where
# one was (it is started anew, which takes minutes for a large model).
_NONE_YET, _NONE_ANY_MORE = 60.0, 900.0


def backoff(attempt: int) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 0): random up to a bound that doubles each time.

    All of the interval is drawn from ("full jitter"), so that requests which failed together do not come back
    together.
    """
    return random.uniform(0, min(_LONGEST_BACKOFF, _BACKOFF * 2**attempt))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, given in seconds, milliseconds or as a date; 0 if it asks for nothing."""
    wait = 0.0
    with contextlib.suppress(ValueError, TypeError):
        if "retry-after-ms" in headers:
            wait = float(headers["retry-after-ms"]) / 1000
        elif (value := headers.get("retry-after")) is not None:
            try:
                wait = float(value)
            except ValueError:
                wait = parsedate_to_datetime(value).timestamp() - time.time()
    return min(wait, _LONGEST_WAIT) if wait > 0 else 0.0  # also what is no number


@dataclass(eq=False)
class Replica:
    """One server of several that serve the same model.

    Attributes:
        url: its address.
        client: whatever asks it.
        busy: requests under way there.
        taken: requests it was given so far.
        failures: failed requests in a row.
        suspect: it failed so often that only one request at a time may try it.
        until: the clock's time before which it is left alone.
        gone: the clock's time since which it could not be reached; None: it could, or was not tried.
        ill: the clock's time since which it only failed, be it reached or not; None: it answered, or was not
            tried often. Only an answer ends it: a server that dies of each request is reached again and
            again.
    """

    url: str
    client: Any
    busy: int = 0
    taken: int = 0
    failures: int = 0
    suspect: bool = False
    until: float = 0.0
    gone: float | None = None
    ill: float | None = None
    _rest: float = field(default=_FIRST_REST, repr=False)

    def ready(self, now: float) -> bool:
        return now >= self.until and not (self.suspect and self.busy)

    def succeeded(self) -> None:
        """It answered, be it with a refusal: it works."""
        self.failures, self.suspect, self._rest = 0, False, _FIRST_REST
        self.gone = self.ill = None

    def failed(self, now: float, wait: float = 0.0, unreachable: bool = False) -> None:
        """It did not answer as it should.

        Args:
            now: the clock's time.
            wait: seconds it asked for.
            unreachable: there is nobody at that address.
        """
        self.until = max(self.until, now + wait)
        self.failures += 1
        if not unreachable:
            if self.gone is not None:  # it is there again: another story begins, but for `ill`
                self.failures = 1
            self.gone = None
        elif self.gone is None:
            self.gone = now
        if self.ill is None and (unreachable or self.failures >= _FAILURES):
            self.ill = now
        if not wait and (unreachable or self.failures >= _FAILURES):
            # Requests that were under way together fail together: one rest for all of them.
            if now >= self.until:
                self.until = now + self._rest * random.uniform(0.8, 1.2)
                self._rest = min(2 * self._rest, _LONGEST_REST)
            self.suspect = True


class Pool:
    """The replicas of one model.

    Args:
        clients: what asks each server, by its address.
        met: whether one of them was reached before.
        who: whose they are, for what is said about them.
    """

    def __init__(self, clients: Mapping[str, Any], met: bool = False, who: str = "") -> None:
        self.replicas = [Replica(url, client) for url, client in clients.items()]
        self.met, self._who = met, f"{who}: " if who else ""
        self._changed = asyncio.Event()
        self._now: Callable[[], float] = asyncio.get_running_loop().time

    @contextlib.asynccontextmanager
    async def lend(self):
        """Waits until a replica is ready, and holds a place at the least busy one."""
        replica = await self._take()
        try:
            yield replica
        finally:
            replica.busy -= 1
            self._changed.set()  # wakes all that wait now
            self._changed.clear()

    def succeeded(self, replica: Replica) -> None:
        """Notes an answer; see `Replica.succeeded`."""
        with self._noting(replica):
            replica.succeeded()

    def failed(
        self, replica: Replica, wait: float = 0.0, unreachable: bool = False, what: str = "errors"
    ) -> None:
        """Notes a failure at the present time, and `what` happened; see `Replica.failed`."""
        with self._noting(replica, what):
            replica.failed(self._now(), wait, unreachable)

    def hopeless(self) -> bool:
        """Whether every replica only failed for so long that going on makes no sense."""
        return self._patience() <= 0

    def _patience(self) -> float:
        """Seconds that are left of the time that replicas which only fail are given; infinite while one may work."""
        ill = [replica.ill for replica in self.replicas if replica.ill is not None]
        if len(ill) < len(self.replicas):
            return math.inf
        return max(ill) + (_NONE_ANY_MORE if self.met else _NONE_YET) - self._now()

    @contextlib.contextmanager
    def _noting(self, replica: Replica, what: str = ""):
        """Says once that a replica went and that it came back: a run that only waits must not look like one that hangs."""
        gone, ill = replica.gone, replica.ill
        yield
        self.met = self.met or replica.gone is None
        if gone is not None and replica.gone is None:
            say(f"{self._who}{replica.url} can be reached again")
        elif ill is not None and replica.ill is None:
            say(f"{self._who}{replica.url} answers again")
        elif ill is None and replica.ill is not None and replica.gone is None and replica.suspect:
            say(
                f"{self._who}{replica.url} fails again and again ({what}); it gets one request at a time until it answers"
            )
        elif gone is None and replica.gone is not None:
            others = sum(other.gone is None for other in self.replicas)
            left = f"{others} of {len(self.replicas)} replicas left"
            rest = left if others else f"all requests wait, {max(math.ceil(self._patience()), 0)} s at most"
            say(f"{self._who}{replica.url} cannot be reached; {rest}")

    async def _take(self) -> Replica:
        while True:
            now = self._now()
            ready = [replica for replica in self.replicas if replica.ready(now)]
            if ready:
                chosen = min(ready, key=lambda replica: (replica.busy, replica.taken))
                chosen.busy += 1
                chosen.taken += 1
                return chosen
            # Until the first rest is over; with a probe under way, until that comes back.
            ends = [replica.until - now for replica in self.replicas if replica.until > now]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(ends) + 0.001 if ends else None)
