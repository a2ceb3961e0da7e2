"""Process pool that survives the death of its workers.

When a worker dies (out of memory, a crash in a native library), the standard pool gives up all
its work. Here the items that were running are tried once more, each alone in a fresh process;
one that kills its process again is abandoned by name, and everything else continues.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from client.extract.run.worker import ItemResult, WorkerSetup, WorkItem, extract_item, start_worker
from common.errors import ExtractionError


def extract_all(
    items: Iterable[WorkItem],
    setup: WorkerSetup,
    *,
    workers: int,
    was_running: Callable[[WorkItem], bool],
) -> Iterator[tuple[WorkItem, ItemResult | None]]:
    """Yield each item with its result as it ends; None = it killed its process twice.

    Args:
        items: What to extract.
        setup: For the workers.
        workers: Processes, at least 1.
        was_running: Whether an item had been started when its process died.

    Raises:
        ExtractionError: Worker processes cannot even start.
    """
    waiting = deque(items)
    while waiting:
        n_before = len(waiting)
        rest = yield from _until_broken(waiting, setup, workers)
        suspects = [item for item in rest if was_running(item)]
        waiting.extendleft(item for item in reversed(rest) if item not in suspects)
        for item in suspects:
            yield item, _alone(item, setup)
        if rest and not suspects and len(waiting) == n_before:
            raise ExtractionError(
                "worker processes die as soon as they start",
                why="none of them reached its first item",
                cure="run with --workers 1 and look for a message of the system about memory, or "
                "for a broken library (tumorboard doctor)",
            )


def _until_broken(
    waiting: deque[WorkItem], setup: WorkerSetup, workers: int
) -> Generator[tuple[WorkItem, ItemResult], None, list[WorkItem]]:
    """Yield results until all is done or a worker dies; return the items left in the pool."""
    running: dict[Future[ItemResult], WorkItem] = {}
    with _pool(setup, min(workers, len(waiting))) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < 2 * workers:
                    item = waiting.popleft()
                    try:
                        running[pool.submit(extract_item, item)] = item
                    except BrokenProcessPool:
                        waiting.appendleft(item)
                        raise
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            yield from _finished(running)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return list(running.values())


def _finished(
    running: dict[Future[ItemResult], WorkItem],
) -> Iterator[tuple[WorkItem, ItemResult]]:
    for future in list(running):
        if future.done() and not future.cancelled() and future.exception() is None:
            yield running.pop(future), future.result()


def _alone(item: WorkItem, setup: WorkerSetup) -> ItemResult | None:
    with _pool(setup, 1) as pool:
        try:
            return pool.submit(extract_item, item).result()
        except BrokenProcessPool:
            return None


def _pool(setup: WorkerSetup, workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(setup,),
    )
