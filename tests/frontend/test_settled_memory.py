"""After the start: what was made stays out of collections, and what was freed goes back to the system."""

import subprocess
import sys

SCRIPT = """
import gc, psutil
from frontend.settled_memory import settle_memory
rows = [bytes(1000) for _ in range(60_000)]  # small enough for the heap, which keeps them when they are freed
last = bytes(1000)  # and the heap cannot shrink below it
before = psutil.Process().memory_info().rss
del rows
held = psutil.Process().memory_info().rss
settle_memory()
after = psutil.Process().memory_info().rss
assert gc.get_freeze_count() > 0
assert before - after > 40_000_000, (before, held, after)
"""


def test_freed_pages_go_back_and_start_up_objects_are_frozen() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
