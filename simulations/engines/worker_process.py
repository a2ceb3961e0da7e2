"""What every worker process of a simulation does first."""

from __future__ import annotations

import multiprocessing
import os
import threading


def start_worker() -> None:
    """Compute in one thread, and end when the process that started this one is killed.

    Without the latter the workers of a killed simulation would wait for work for ever.
    """
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
