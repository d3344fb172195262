"""One system in a process of its own: reads a request a line, answers a line (`run.py` asks).

python benchmarks/worker.py ours             requests in JSON, from standard input
python benchmarks/worker.py ours cold        a first SAM step, the seconds that importing took
python benchmarks/worker.py ours memory      some steps, and the most memory in use, in MB
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
            run()  # what sleeps wakes up, what was pushed out of the cache comes back
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
    """The most memory this process ever had in use, in MB; NaN where the system does not tell."""
    with suppress(OSError):  # Linux; its getrusage would count what the parent had before exec, too
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024
    with suppress(ImportError):  # Windows has none
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

    run, _ = system.prepare(Case("step", "cnn", n=32 if mode == "cold" else 128))
    for _ in range(1 if mode == "cold" else 5):
        run()
    if mode == "cold":
        print(imported)
    else:
        print(peak_memory())


if __name__ == "__main__":
    main(*sys.argv[1:])
