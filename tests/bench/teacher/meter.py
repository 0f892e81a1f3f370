"""What one client process reports about itself. Only the standard library, because curator's environment has nothing of ours."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def messages_for(spec: dict[str, Any], number: int) -> list[dict[str, str]]:
    """The messages of question `number`, the same for every client."""
    return [{**message, "content": message["content"].replace("{number}", str(number))} for message in spec["messages"]]


def measure(ask: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run `ask(spec)`, which returns at least `lost`, and write what it took to the file that the spec names.

    CPU and wall time are those of asking; imports are not in them. The peak memory is that of the whole process.
    """
    spec = json.loads(Path(sys.argv[-1]).read_text())
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        found = ask(spec)
    except Exception as error:
        found = {"lost": None, "error": f"{type(error).__name__}: {error}"[:300]}
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(spec["result"]).write_text(json.dumps(found))
