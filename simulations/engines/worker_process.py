"""Spread jobs over worker processes that compute in one thread and never outlive a kill."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")
_SHARED: list[Any] = []
"""What all jobs of this worker process read; it crosses once per process, not once per job."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def over_cores(
    function: Callable[..., T],
    jobs: Sequence[tuple[Any, ...]],
    *,
    shared: Sequence[Any] = (),
    workers: int | None = None,
) -> Iterator[tuple[int, T]]:
    """Yield (index of the job, `function(*shared, *job)`) in the order in which jobs end.

    Args:
        function: What to call; found by name, so a function of a module.
        jobs: Arguments of each call.
        shared: First arguments of every call.
        workers: Processes; 1 computes here, None uses every core.

    Example:
        >>> dict(over_cores(pow, [(2,), (3,)], shared=(10,), workers=1))
        {0: 100, 1: 1000}
    """
    workers = min(workers or cores(), len(jobs))
    if workers <= 1:
        for place, job in enumerate(jobs):
            yield place, function(*shared, *job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=start_worker, initargs=tuple(shared)
    ) as pool:
        places = {pool.submit(_call, function, job): place for place, job in enumerate(jobs)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def start_worker(*shared: Any) -> None:
    """Compute in one thread, and end when the process that started this one is killed.

    Without the latter the workers of a killed simulation would wait for work for ever.

    Args:
        shared: First arguments of every job of this process.
    """
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    _SHARED[:] = shared
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _call(function: Callable[..., T], job: tuple[Any, ...]) -> T:
    return function(*_SHARED, *job)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
