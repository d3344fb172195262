"""What is left out has a value on which users, stored files and the study rely: another one gives other results."""

import inspect
import pkgutil
import re
from dataclasses import is_dataclass
from importlib import import_module

import numpy as np
import pytest

import minisam
from minisam import analysis, data, nn, objective, optim
from minisam.analysis import curvature, landscape, toy
from minisam.analysis.sharpness import sharpness
from minisam.cli import _parser
from minisam.data.download import fetch
from minisam.rng import keyed_rng
from minisam.study import comparison, experiments, geometry, recipes, statistics, sweep, tasks
from minisam.study.claims import Claim
from minisam.training import Config, train
from minisam.training.files import brief

STEP = {"rho": 0.05, "ascent": optim.Ball(2), "ascent_steps": 1}
DEFAULTS = {
    optim.GD: {"weight_decay": 0.0},
    optim.Momentum: {"weight_decay": 0.0, "momentum": 0.9, "nesterov": False},
    optim.Adam: {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    optim.SAM: STEP,
    optim.ExactSAM: STEP,
    optim.GSAM: STEP | {"alpha": 0.4},
    optim.LookSAM: STEP | {"k": 5, "alpha": 0.7},
    optim.MicroBatched: {},
    optim.Clipped: {},
    optim.Ball: {"p": 2},
    optim.Adaptive: {"eta": 0.01},
    optim.RandomDirection: {"seed": 0},
    optim.Friendly: {"sigma": 1.0, "lmbda": 0.6},
    optim.Every: {},
    optim.Late: {},
    optim.StepDecay: {"factor": 0.1},
    optim.Cosine: {"warmup": 0},
    nn.Conv2d: {"stride": 1, "padding": "same", "rectified": False},
    nn.ReLU: {"applied": False},
    nn.Dropout: {"rate": 0.5},
    nn.BatchNorm: {"eps": 1e-5, "rectified": False},
    nn.MaxPool2d: {"stride": 0},
    nn.AvgPool2d: {"stride": 0},
    nn.Residual: {"shortcut": (), "rectified": False},
    nn.SoftmaxCrossEntropy: {"label_smoothing": 0.0},
    nn.BatchLoss: {"loss": nn.SoftmaxCrossEntropy(), "key": None, "stats": None},
    nn.Sequential.init: {"dtype": np.float32},
    nn.Sequential.predict: {"batch_size": 200, "stats": None},
    objective.Mean: {"recompute": False},
    objective.Penalised: {"l1": 0.0, "l2": 0.0},
    data.synthetic: {"n_train": 4000, "n_test": 10_000, "seed": 0},
    data.redraw_labels: {"seed": 0},
    data.augment: {"pad": 4},
    data.Batches: {"seed": 0, "augmented": False},
    data.load: {"name": None, "data_dir": None},
    fetch: {"progress": True},
    keyed_rng: {"epoch": 0, "step": 0},
    analysis.numerical_gradient: {"step": 1e-5},
    analysis.relative_error: {"floor": 0.0},
    curvature.power_iteration: {"steps": 100},
    curvature.eigenvalues: {"steps": 200, "tolerance": 1e-3},
    curvature.trace: {"samples": 30},
    curvature.density: {"steps": 60, "samples": 5},
    sharpness: {"eta": None, "steps": 20, "starts": 5, "directions": 100},
    landscape.plane: {"known": None, "keep": None},
    toy.Rosenbrock: {"b": 10.0},
    toy.TwoMinima: {"sharp": 400.0, "flat": 10.0},
    Config: {
        "model": "mlp", "optimizer": "momentum", "base": "momentum", "lr": None, "rho": 0.05, "p": 2.0, "eta": 0.01,
        "alpha": None, "every": None, "sigma": 1.0, "lmbda": 0.6, "late": 0.0, "ascent_steps": 1, "m": 0, "clip": 0.0,
        "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "decay": "at-theta", "epochs": 20, "batch_size": 64,
        "micro_batch": 0, "schedule": "cosine", "warmup": 0, "label_smoothing": 0.0, "l1": 0.0, "l2": 0.0,
        "noise": 0.0, "augment": False, "width": 1, "seed": 0,
    },
    train: {"evaluate_every": 0, "progress": False, "diagnostics": False, "path": None, "checkpoints": None},
    brief: {"most": 80},
    sweep.run_all: {"evaluate_every": 0, "images": 0, "jobs": 1, "executor": None, "folder": None},
    tasks.work: {"shipped": None, "folder": None, "progress": False},
    comparison.reproduce: {"name": "custom"},
    experiments.Experiment: {"dataset": None, "seeds": 5, "n_test": None, "evaluate_every": 0},
    experiments.smoke: {"n_train": 1000, "epochs": 4},
    geometry.measure: {"eta": None, "k": 5, "samples": 10, "slices": 2, "tolerance": 1e-3},
    geometry.landscape: {"path": None},
    recipes.Method: {"passes": 1},
    recipes.Problem: {
        "model": "mlp", "noise": 0.0, "n_train": 4000, "epochs": 15, "batch_size": 64, "dataset": "cifar10",
        "augment": False, "papers": False,
    },
    recipes.noisy: {"noise": 0.4},
    statistics.resampled: {"resamples": 1000},
    statistics.Interval.text: {"scale": 1.0},
    Claim: {"noise": (0.0, 0.4), "measure": "error_reduction", "expected": "better"},
}  # fmt: skip


@pytest.mark.parametrize("made", DEFAULTS, ids=lambda made: made.__qualname__)
def test_what_is_left_out_has_the_promised_value(made):
    """What an optimizer remembers is no argument, and so not among them."""
    given = {one.name: one.default for one in inspect.signature(made).parameters.values()}
    found = {name: value for name, value in given.items() if value is not inspect.Parameter.empty and name != "env"}
    assert found == DEFAULTS[made]


EXAMINATION = {"images": 1000, "threads": None, "dataset": None, "data_dir": None}
OPTIONS = {
    "sharpness m.npz": EXAMINATION | {"rho": 0.05, "eta": None, "k": 5, "out": "minisam-results/sharpness"},
    "landscape m.npz": EXAMINATION
    | {"line": False, "along": None, "path": None, "points": 51, "radius": None}
    | {"out": "minisam-results/landscape"},
    "toy": {"threads": None, "out": "minisam-results/toy", "lr": 0.004, "rho": 0.8, "html": False},
    "data": {"threads": None, "data_dir": None, "fetch": None},
    "reproduce": {"threads": None, "dataset": None, "data_dir": None, "preset": None, "before": None, "out": None}
    | {"seeds": None, "jobs": None, "dask": None},
    "train": {"threads": None, "dataset": None, "data_dir": None, "n_train": None, "save": None, "overwrite": False}
    | {"save_every": None, "resume": False, "path": None, "diagnostics": None}
    | DEFAULTS[Config],
}


@pytest.mark.parametrize("words", OPTIONS)
def test_an_option_that_is_left_out_has_the_value_that_its_help_gives(words, monkeypatch, capsys):
    args = vars(_parser().parse_args(words.split()))
    found = {name: value.as_posix() if name == "out" and value else value for name, value in args.items()}
    assert {name: found[name] for name in found if name not in ("command", "run", "models")} == OPTIONS[words]
    monkeypatch.setenv("COLUMNS", "500")
    with pytest.raises(SystemExit):
        _parser().parse_args([words.split()[0], "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, value in OPTIONS[words].items():
        if value is not None and not isinstance(value, bool):
            (about,) = re.findall(rf" --{name.replace('_', '-')} [A-Z{{].*?(?= --[a-z]|$)", text)
            shown = f"{value:g}" if isinstance(value, float) else value
            kind = {float: "FLOAT", int: "(INT|N)", str: r"(DIR|\{.*\})"}[type(value)]
            assert re.match(rf" --\S+ {kind} ", about)
            assert re.search(rf"\(({value}|{shown})[,;)]|default: {value}", about)


def test_only_what_learns_or_is_scratch_memory_changes():
    """All other records may be shared, or be keys; and those of arrays are not compared, which would give arrays."""
    names = [name for _, name, _ in pkgutil.walk_packages(minisam.__path__, "minisam.") if name != "minisam.__main__"]
    made = [one for name in names for one in vars(import_module(name)).values() if isinstance(one, type)]
    records = {one for one in made if is_dataclass(one) and one.__module__.startswith("minisam.")}
    optimizers = {one.__name__ for one in records if issubclass(one, optim.Optimizer)}
    changing = {one.__name__ for one in records if not one.__dataclass_params__.frozen}
    assert changing == optimizers | {"Env", "Friendly", "State"}
    assert {one.__name__ for one in records if not one.__dataclass_params__.eq} == {"BatchLoss", "Dataset", "Prepared"}
