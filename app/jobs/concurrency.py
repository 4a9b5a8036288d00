"""How many jobs a worker runs at once: more while due jobs wait, fewer while none wait."""

from __future__ import annotations

from app.observability import metrics


class Concurrency:
    """A number between two bounds that follows the age of the queue.

    It grows by half (at least by one) while jobs wait longer than the target and all slots are
    taken. It shrinks by one while no job waits. In between it stays, so that it does not oscillate.
    """

    def __init__(self, lowest: int, highest: int, target_seconds: float) -> None:
        self._lowest = lowest
        self._highest = highest
        self._target = target_seconds
        self.limit = lowest
        self._publish()

    def adapt(self, waited: float, running: int) -> bool:
        """Record a measurement and return whether the number changed.

        `waited`: seconds that the oldest due job has waited; `running`: jobs that run here.
        """
        before = self.limit
        if waited > self._target and running >= self.limit:
            self.limit = min(self._highest, self.limit + max(1, self.limit // 2))
        elif waited == 0 and running < self.limit:
            self.limit = max(self._lowest, self.limit - 1)
        if self.limit != before:
            self._publish()
        return self.limit != before

    def _publish(self) -> None:
        metrics.WORKER_CONCURRENCY.set(self.limit)
