"""The garbage collector of a process that makes tens of thousands of short-lived objects a second."""

import gc


def collect_seldom() -> None:
    """Look for cycles less often, and never among what stands when this is called: the modules and their tables.

    Nearly everything here is freed by its reference count. With the defaults of Python a collection comes each 700
    objects, and each hundredth of them looks at every object that the process has: a fifth of the time of a busy queue.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
