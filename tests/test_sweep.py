"""Many runs: the same numbers whoever computes them, nothing done twice, nothing lost with a worker."""

import copy
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from minisam.data import synthetic
from minisam.kernels import get_threads, set_threads
from minisam.study import run_all, sweep, tasks
from minisam.study.executors import dask_executor, local_pool
from minisam.study.store import Store
from minisam.study.tasks import NUMBERS, Task, require_outcome, work
from minisam.training import Config
from minisam.training.files import read_arrays, write_arrays

TINY = Config(epochs=2, batch_size=32)
CONFIGS = [TINY, replace(TINY, optimizer="sam", seed=1), replace(TINY, optimizer="adam", noise=0.4)]


@pytest.fixture(scope="module")
def dataset():
    return synthetic(64, 40)


@pytest.fixture(scope="module")
def expected(dataset):
    return run_all(CONFIGS, dataset)


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    """Like a worker that has not seen any data."""
    monkeypatch.setattr(tasks, "_prepared", {})


def numbers(outcomes):
    """Everything except times and environments."""
    found = []
    for record, predictions in outcomes:
        history = [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in record.get("history", [])]
        rest = {k: v for k, v in record.items() if k not in ("seconds", "history", "environment")}
        found.append((rest, history, predictions.tobytes()))
    return found


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_jobs_threads_and_a_second_time_do_not_change_a_bit(dataset, expected, jobs):
    set_threads(jobs)
    shipped = replace(dataset, name="nowhere")  # workers are sent it sooner than they could draw it
    again = run_all(CONFIGS, shipped, jobs=jobs)
    assert numbers(again) == numbers(expected)
    assert len({outcome.record["weights"] for outcome in again}) == len(CONFIGS)
    assert {outcome.record["environment"]["threads"] for outcome in again} == {1}  # shared out among the jobs


@pytest.mark.parametrize(("threads", "each"), [(1, 1), (5, 2)])
def test_two_workers_have_half_the_threads_each_and_at_least_one(threads, each):
    set_threads(threads)
    with local_pool(2) as pool:
        assert pool.submit(get_threads).result() == each


def test_an_error_ends_what_workers_are_doing():
    workers = []

    def fail_meanwhile():
        with local_pool(1) as pool:
            pool.submit(time.sleep, 60)
            workers.extend(multiprocessing.active_children())
            raise KeyError("from here")

    with pytest.raises(KeyError, match="from here"):
        fail_meanwhile()
    assert [worker.is_alive() for worker in workers] == [False]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such mask")
def test_workers_are_deaf_to_ctrl_c_before_they_can_say_so():
    with local_pool(2) as pool:
        blocked = pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result(timeout=60)
        assert len(pool._processes) == 2
    assert signal.SIGINT in blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_any_executor_will_do(dataset):
    alone = run_all(CONFIGS[:2], dataset, images=8)
    with ThreadPoolExecutor(2) as pool:
        assert numbers(run_all(CONFIGS[:2], dataset, images=8, jobs=2, executor=pool)) == numbers(alone)


class Watched(ThreadPoolExecutor):
    """It knows how many calls were under way at most."""

    futures, most = (), 0

    def submit(self, function, /, *arguments):
        self.futures = (*self.futures, super().submit(function, *arguments))
        self.most = max(self.most, sum(not future.done() for future in self.futures))
        return self.futures[-1]


def test_no_more_runs_than_jobs_are_under_way(dataset):
    with Watched(6) as pool:
        run_all([replace(TINY, epochs=1, seed=seed) for seed in range(6)], dataset, jobs=2, executor=pool)
    assert (len(pool.futures), pool.most) == (6, 2)


@pytest.mark.parametrize(("jobs", "n", "workers"), [(1, 3, []), (2, 1, []), (2, 3, [2]), (5, 3, [3])])
def test_there_are_no_more_workers_than_runs_and_none_for_one_at_a_time(dataset, monkeypatch, jobs, n, workers):
    asked = []
    monkeypatch.setattr(sweep, "local_pool", lambda n: asked.append(n) or ThreadPoolExecutor(n))
    assert len(run_all(CONFIGS[:n], dataset, jobs=jobs)) == n
    assert asked == workers


class Elsewhere(Executor):
    """A worker on another machine: calls and results are pickled, and CIFAR is not found."""

    def __init__(self):
        self.sent = []

    def submit(self, function, /, *arguments):
        import pickle

        parcel = pickle.dumps((function, arguments))
        self.sent.append(len(parcel))
        function, arguments = pickle.loads(parcel)
        future = Future()
        future.set_result(pickle.loads(pickle.dumps(function(*arguments))))
        return future


def test_data_travel_once_to_a_worker_that_has_none_and_never_to_one_that_has(dataset, expected):
    there = Elsewhere()
    assert numbers(run_all(CONFIGS, replace(dataset, name="nowhere"), jobs=1, executor=there)) == numbers(expected)
    images = dataset.x_train.nbytes + dataset.x_test.nbytes
    assert [size > images for size in there.sent] == [False, True, False, False]  # asked in vain, sent, known
    assert max(size for size in there.sent if size < images) < 1000  # a run is a few hundred bytes
    tasks._prepared.clear()
    other = replace(dataset, x_train=255 - dataset.x_train, name="synthetic")  # a name is not enough
    assert numbers(run_all(CONFIGS, other, executor=Elsewhere())) == numbers(run_all(CONFIGS, other))
    tasks._prepared.clear()
    known = Elsewhere()
    found = synthetic().first(64, 40)  # a worker draws it on its own
    run_all(CONFIGS, found, jobs=1, executor=known)
    assert [size > images for size in known.sent] == [False] * 3


def test_a_run_that_diverges_is_reported_in_its_place_and_kept(tmp_path, dataset, expected):
    bad = [replace(TINY, optimizer="gd", lr=1e6, epochs=5), CONFIGS[1]]
    outcomes = run_all(bad, dataset, folder=tmp_path)
    assert "the loss became" in outcomes[0].diverged
    assert outcomes[0].predictions.shape == (0,)
    assert numbers(outcomes[1:]) == numbers(expected[1:2])
    assert numbers(run_all(bad, dataset, folder=tmp_path)) == numbers(outcomes)


# --- nothing twice, nothing lost ------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """Labels of the runs that were trained, rather than found."""
    done = []

    def counting(task, *arguments, **options):
        done.append(task.config)
        return work(task, *arguments, **options)

    monkeypatch.setattr(sweep, "work", counting)
    return done


def test_the_same_run_twice_is_done_once(dataset, expected, counted):
    """Two workers on one checkpoint would be in each other's way."""
    assert numbers(run_all([*CONFIGS, *CONFIGS], dataset)) == numbers([*expected, *expected])
    assert counted == CONFIGS


def test_finished_runs_are_found_not_done_again(tmp_path, dataset, expected, counted, capsys):
    run_all(CONFIGS[:2], dataset, folder=tmp_path)
    assert counted == CONFIGS[:2]
    assert "already" not in capsys.readouterr().err  # nothing was found
    outcomes = run_all(CONFIGS, dataset, folder=tmp_path)
    assert counted == CONFIGS
    assert numbers(outcomes) == numbers(expected)
    assert f"2 of 3 runs are in {tmp_path} already" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.npz"))) == 3  # no checkpoint is left
    run_all(CONFIGS, dataset, evaluate_every=1, folder=tmp_path)  # a different question needs new runs
    assert len(counted) == 6


def test_a_bar_counts_gradients_of_all_runs_and_a_lone_run_is_silent(tmp_path, dataset, capsys):
    run_all(CONFIGS[:1], dataset, folder=tmp_path)
    capsys.readouterr()
    run_all(CONFIGS, dataset, folder=tmp_path)
    out, err = capsys.readouterr()
    shown = re.findall(r"all runs: +(\d+)%\|.*?\| (\d+)/(\d+) \[.*?, (\d/\d) runs\]", err)
    assert ("75", "6", "8", "2/3") in shown  # SAM counts twice
    assert shown[-1] == ("100", "8", "8", "3/3")
    assert out == ""
    task = Task(TINY, 0, 0, dataset.name, 64, 40, dataset.checksum)
    work(task, dataset)
    assert capsys.readouterr() == ("", "")  # a worker has no terminal


@pytest.mark.parametrize("damage", [lambda raw: raw[:-50], lambda raw: b"", lambda raw: raw[:500] + b"?" + raw[501:]])
def test_a_damaged_run_is_done_again(tmp_path, dataset, expected, damage, counted, capsys):
    run_all(CONFIGS, dataset, folder=tmp_path)
    path = next(tmp_path.glob("mlp-sam-*.npz"))
    path.write_bytes(damage(path.read_bytes()))
    assert numbers(run_all(CONFIGS, dataset, folder=tmp_path)) == numbers(expected)
    assert len(counted) == 4
    assert re.search(rf"{path.name} .*: the run is done again", capsys.readouterr().err)


def test_a_folder_in_the_place_of_a_run_is_refused_before_any_training(tmp_path, dataset, counted):
    """No file could take its place afterwards."""
    task = Task(CONFIGS[2], 0, 0, dataset.name, 64, 40, dataset.checksum)
    (tmp_path / f"{task.name}.npz" / "x").mkdir(parents=True)
    with pytest.raises(OSError, match=rf"expected a kept run, or nothing, got the folder .*{task.name}.npz: remove it"):
        run_all(CONFIGS, dataset, folder=tmp_path)
    assert counted == []


@pytest.mark.parametrize("name", ["evaluate_every", "images"])
def test_numbers_of_a_sweep_are_checked_before_any_training(dataset, counted, name):
    for number in (-1, 1.5):
        with pytest.raises(ValueError, match=f"^{name} must be an integer ≥ 0, got {number}"):
            run_all(CONFIGS, dataset, **{name: number})
    assert counted == []


def test_a_history_is_counted_before_it_is_looked_at(dataset, expected):
    """A file may ask for any number of epochs."""
    config, outcome = replace(TINY, epochs=1 << 40), expected[0]
    task = Task(config, 0, 0, dataset.name, 64, 40, dataset.checksum)
    with pytest.raises(ValueError, match=r"^a history of 2 epochs$"):
        require_outcome(task, outcome._replace(record=outcome.record | {"config": config.record()}), dataset)


def test_an_exchanged_file_is_not_believed(tmp_path, dataset, expected, counted):
    run_all(CONFIGS, dataset, folder=tmp_path)
    one, two = tmp_path.glob("mlp-[sa]*.npz")
    one.write_bytes(two.read_bytes())
    assert numbers(run_all(CONFIGS, dataset, folder=tmp_path)) == numbers(expected)
    assert len(counted) == 4


@pytest.fixture(scope="module")
def measured(dataset):
    """A run with its geometry, found once for all the ways in which its file may be changed."""
    return run_all(CONFIGS[:1], dataset, images=8)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(model="<img src=x>"),
        lambda record: record.update(test_error=-5.0),
        lambda record: record.update(test_error="none"),
        lambda record: record.update(train_error=float("nan")),
        lambda record: record.pop("environment"),
        lambda record: record.update(environment=["\x1b[31m"]),
        lambda record: record.update(weights=3),
        lambda record: record.update(history=[]),
        lambda record: record.update(test_error=0.0),  # whatever was predicted
        lambda record: record.update(gradient_evaluations=-4),
        lambda record: record.update(seconds=-1.0),
        lambda record: record["history"][0].pop("loss"),
        lambda record: record["history"][0].update(loss="low"),
        lambda record: record["history"][-1].update(test_error=7.0),
        lambda record: record["history"][-1].pop("test_error"),
        lambda record: record["history"][0].update(test_error=0.5),  # nobody asked for it
        lambda record: record["config"].pop("rho"),
        lambda record: record["config"].update(lr=None),
        lambda record: record["geometry"].update(trace=1.7e308),
        lambda record: record["geometry"]["eigenvalues"].__setitem__(4, 0.0),
        lambda record: record["geometry"].update(eigenvalues=[1e308, 1.0, 1.0, 1.0, 5e-324]),
        lambda record: [record.pop(key) for key in (*NUMBERS, "weights", "geometry")] and record.update(diverged="no"),
        lambda record: record["config"].update(lr=0.5),
        lambda record: record.update(geometry={"eigenvalues": [1.0], "trace": 1.0, "worst": [1.0]}),
        lambda record: record["geometry"].update(trace="flat"),
        lambda record: record.update(diverged="x" * 2000),
    ],
)
def test_what_a_kept_run_says_is_checked(tmp_path, dataset, measured, change, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "work", lambda *_, **__: measured)
    run_all(CONFIGS[:1], dataset, images=8, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    arrays = read_arrays(path)
    about = json.loads(str(arrays["about"]))
    change(about["outcome"])
    write_arrays(path, arrays | {"about": np.array(json.dumps(about))})
    assert numbers(run_all(CONFIGS[:1], dataset, images=8, folder=tmp_path)) == numbers([measured])
    assert "is damaged" in (message := capsys.readouterr().err)
    assert "the run is done again" in message
    assert "\x1b[31m" not in message


@pytest.mark.parametrize("errors", [(0.0, 1.0), (1.0, 0.0)])
def test_a_run_may_have_all_errors_or_none(dataset, expected, errors):
    record = copy.deepcopy(expected[0].record) | dict(zip(("test_error", "train_error"), errors, strict=True))
    record["history"][-1]["test_error"] = errors[0]
    predictions = ((dataset.y_test + round(errors[0])) % 10).astype(np.uint8)
    outcome = expected[0]._replace(record=record, predictions=predictions)
    require_outcome(Task(TINY, 0, 0, dataset.name, 64, 40, dataset.checksum), outcome, dataset)


def test_geometry_that_nobody_asked_for_is_not_believed(dataset, measured):
    task = Task(TINY, 0, 0, dataset.name, 64, 40, dataset.checksum)
    require_outcome(task._replace(images=8), measured, dataset)
    with pytest.raises(ValueError, match="geometry that was not asked for"):
        require_outcome(task, measured, dataset)


def test_predictions_that_do_not_fit_are_not_believed(tmp_path, dataset, expected):
    run_all(CONFIGS[:1], dataset, folder=tmp_path)
    (path,) = tmp_path.glob("*.npz")
    right, found = dataset.y_test.astype(np.uint8), expected[0].predictions  # nobody predicted the right ones
    wrong = (np.zeros(3, np.uint8), np.zeros(40), np.full(40, "a"), np.full(40, 255, np.uint8), right)
    for predictions in (*wrong, found.astype(float), found[None]):
        write_arrays(path, read_arrays(path) | {"predictions": predictions})
        assert numbers(run_all(CONFIGS[:1], dataset, folder=tmp_path)) == numbers(expected[:1])


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, dataset, monkeypatch, capsys):
    config = replace(TINY, optimizer="sam", epochs=10)
    (expected,) = run_all([config], dataset)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep", lambda *_: pytest.fail("power cut"))
        with pytest.raises(pytest.fail.Exception, match="power cut"):
            run_all([config], dataset, folder=tmp_path)
    assert len(list(tmp_path.glob("*.checkpoints/epoch-*.npz"))) == 2
    next(tmp_path.glob("*.checkpoints/epoch-0010.npz")).unlink()
    assert numbers(run_all([config], dataset, folder=tmp_path)) == numbers([expected])
    assert "resumed after epoch 8" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.checkpoints"))


def test_a_folder_in_use_is_refused(tmp_path, dataset):
    code = (
        "import sys, pathlib; from minisam.training.files import locked\n"
        "with locked(pathlib.Path('.lock')): print('held', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(OSError, match=f"another minisam is at work in {re.escape(str(tmp_path))}: wait for it"):
            run_all(CONFIGS, dataset, folder=tmp_path)
    finally:
        owner.kill()  # the operating system then releases the lock
        owner.communicate()
    assert len(run_all(CONFIGS[:1], dataset, folder=tmp_path)) == 1


def test_jobs_below_one_are_refused(dataset):
    with pytest.raises(ValueError, match=r"^jobs must be an integer ≥ 1, got 0"):
        run_all([], dataset, jobs=0)


class Lost(Executor):
    """An executor whose workers are all gone."""

    def submit(self, function, /, *arguments):
        future = Future()
        future.set_exception(SystemError("connection\nlost\n"))
        return future


def test_lost_workers_are_an_error_that_says_whose_run_it_was(dataset):
    message = "a worker failed with SAM\\(Momentum\\), seed 1: SystemError connection lost; finished runs are kept, and"
    with pytest.raises(RuntimeError, match=message):
        run_all(CONFIGS[1:2], dataset, executor=Lost())


WITH_TWO_WORKERS = """
from dataclasses import replace
from pathlib import Path
from minisam.data import synthetic
from minisam.study import run_all
from minisam.training import Config
if __name__ == "__main__":
    runs = [Config(epochs=1, batch_size=8, seed=seed) for seed in range(1000)]
    run_all(runs, replace(synthetic(8, 8), name="nowhere"), jobs=2, folder=Path("runs"))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="looks for processes in /proc, which only Linux has")
def test_workers_die_with_a_killed_parent(tmp_path):
    (tmp_path / "sweep.py").write_text(WITH_TWO_WORKERS)
    parent = subprocess.Popen([sys.executable, "sweep.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    children = f"/proc/{parent.pid}/task/{parent.pid}/children"
    workers = []
    while len(workers) < 3:  # two, and multiprocessing's own
        assert parent.poll() is None
        with open(children, encoding="ascii") as file:
            workers = file.read().split()
        time.sleep(0.02)
    while not list((tmp_path / "runs").glob("*.npz")):  # at work
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline, "orphans are still at work"
        time.sleep(0.05)


# --- beyond one machine ---------------------------------------------------------------------------


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path, few_images):
    """A real `dask scheduler` on loopback and two real `dask worker` processes: (address, workers)."""
    pytest.importorskip("distributed", reason="pip install distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    dask = [sys.executable, "-m", "dask"]
    environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s", "MINISAM_DATA": few_images[-1]}

    def start(*words):
        return subprocess.Popen(
            [*dask, *words], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard")
    worker = ["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path)]
    workers = [start(*worker) for _ in range(2)]
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def test_a_dask_cluster_that_has_a_run_fail_and_loses_a_worker_gives_the_same_numbers(tmp_path, cluster):
    from distributed import Client

    address, workers = cluster
    with Client(address, timeout=30) as client:
        client.wait_for_workers(2, timeout=60)
    fails = pytest.raises(ValueError, match=r"^batch_size must be 1 to 8, got 9")  # which is no lost scheduler
    with fails, dask_executor(address) as (executor, _):
        run_all([replace(TINY, batch_size=9)], replace(synthetic(8, 8), name="nowhere"), executor=executor)
    runs = [replace(TINY, epochs=8, seed=seed, optimizer=name) for seed in range(4) for name in ("momentum", "sam")]
    dataset = replace(synthetic(200, 100), name="nowhere")  # the workers have to be sent their images
    local = run_all(runs, dataset)
    at_work = []

    def kill_one_at_work():
        with Client(address, timeout=30) as client:
            (name,) = (name for name, pid in client.run(os.getpid).items() if pid == workers[0].pid)
            deadline = time.monotonic() + 60
            while not list((tmp_path / "runs").glob("*.npz")) or not (now := client.processing()[name]):
                assert time.monotonic() < deadline, "the worker got no work"
                time.sleep(0.01)
            at_work.extend(now)
            workers[0].send_signal(signal.SIGKILL)

    with ThreadPoolExecutor(1) as killer, dask_executor(address) as (executor, threads):
        assert threads == 2
        killing = killer.submit(kill_one_at_work)
        spread = run_all(runs, dataset, jobs=threads, executor=executor, folder=tmp_path / "runs")
        killing.result(timeout=10)
    assert at_work
    assert workers[0].wait(10) == -signal.SIGKILL
    assert workers[1].poll() is None
    assert numbers(spread) == numbers(local)


def test_a_cluster_without_workers_is_an_error(tmp_path, cluster):
    address, workers = cluster
    for worker in workers:
        worker.kill()
        worker.wait()
    message = f"the Dask scheduler at {address} has no workers: start some with dask worker {address}"
    with pytest.raises(ValueError, match=message), dask_executor(address):
        pass


SMALL_RUNS = """
from minisam.cli import main, reproduce
from minisam.study.experiments import smoke
reproduce.PRESETS["smoke"] = lambda: smoke(n_train=64, epochs=2, seeds=9, n_test=40)
raise SystemExit(main())
"""


def test_a_lost_scheduler_is_one_line_and_finished_runs_are_kept(tmp_path, few_images, cluster):
    from distributed import Client

    address, _ = cluster
    with Client(address, timeout=30) as client:
        client.wait_for_workers(2, timeout=60)
        scheduler = client.run_on_scheduler(os.getpid)
    words = ["reproduce", "--preset", "smoke", *few_images, "--dask", address, "--out", "out"]
    command = [sys.executable, "-c", SMALL_RUNS, *words]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out" / "runs").glob("*.npz")):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(scheduler, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    (line,) = (line for line in err.splitlines() if line.strip() and not line.startswith("all runs: "))
    message = f"minisam: error: the Dask scheduler at {address} was lost: finished runs are kept, and the same command"
    assert line.startswith(message)


def test_without_dask_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"--dask needs the package distributed .*: pip install distributed$"):
        dask_executor("tcp://127.0.0.1:1").__enter__()


def test_no_scheduler_is_an_error():
    dask = pytest.importorskip("dask", reason="pip install distributed")
    address = f"tcp://127.0.0.1:{free_port()}"
    impatient = dask.config.set({"distributed.comm.timeouts.connect": "1s"})  # its own default is 30 s
    with impatient, pytest.raises(OSError, match=address), dask_executor(address):
        pass


def test_what_is_kept_is_named_by_all_it_depends_on(dataset, monkeypatch):
    about = (dataset.name, 64, 40, dataset.checksum)
    task = Task(TINY, 0, 0, *about)
    others = [Task(replace(TINY, lr=0.02), 0, 0, *about), Task(TINY, 1, 0, *about), Task(TINY, 0, 8, *about)]
    others.append(Task(TINY, 0, 0, *about[:-1], "0" * 64))
    names = {each.name for each in (task, *others)}
    monkeypatch.setattr("minisam.__version__", "99.0")
    assert len(names | {task.name}) == 6
    assert np.all([re.fullmatch(r"mlp-momentum-seed0-[0-9a-f]{16}", each.name) for each in (task, *others)])
