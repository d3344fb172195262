"""One system in its own process: answers each line from `run.py` with a line.

python benchmarks/worker.py ours             JSON requests from standard input
python benchmarks/worker.py ours cold        a first SAM step; prints the seconds that importing took
python benchmarks/worker.py ours memory      some steps; prints the peak memory in MB
"""

import importlib
import json
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

started = time.perf_counter()


def serve(system) -> None:
    """For each case: prepare it, then time it as often as asked."""
    from workload import Case

    run = None
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            prepared = system.prepare(Case(**request["case"]))
            run, answer = None, {"known": prepared is not None}
            if prepared:
                run, result = prepared
                import numpy as np

                np.savez(request["arrays"], *result())
        elif "seconds" in request:
            run()  # wakes sleeping threads, refills the cache
            times, began = [], time.perf_counter()
            while not times or time.perf_counter() - began < request["seconds"]:
                start = time.perf_counter()
                run()
                times.append(time.perf_counter() - start)
            answer = {"times": times}
        else:
            answer = system.versions()
        print(json.dumps(answer), flush=True)


def peak_memory() -> float:
    """The peak memory of this process in MB; NaN if the system does not report it."""
    with suppress(OSError):  # Linux; its getrusage would also count the parent's memory before exec
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    with suppress(ImportError):  # Windows has no resource module
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # macOS counts bytes
    return float("nan")


def main(name: str, mode: str = "serve") -> None:
    library = {"ours": "minisam", "pytorch": "torch"}.get(name)
    if library:
        importlib.import_module(library)
    imported = time.perf_counter() - started
    system = importlib.import_module(f"systems.{name}")
    if mode == "serve":
        serve(system)
        return
    from workload import Case

    run, _ = system.prepare(Case("step", "reference", n=32 if mode == "cold" else 128))
    for _ in range(1 if mode == "cold" else 5):
        run()
    if mode == "cold":
        print(imported)
    else:
        print(peak_memory())


if __name__ == "__main__":
    main(*sys.argv[1:])
