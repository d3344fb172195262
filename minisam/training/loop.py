"""The training loop: minibatches in, weights and a history out."""

import math
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from tqdm import tqdm

from minisam.analysis.diagnostics import Recorded, diagnose, mean_diagnosis
from minisam.checks import Array
from minisam.data import Batches, Dataset, Normalisation, redraw_labels
from minisam.kernels import compile_all
from minisam.nn import BatchLoss, BatchNorm, Env, Sequential, SoftmaxCrossEntropy, build
from minisam.objective import Mean, Objective, Penalised
from minisam.optim import value_at
from minisam.rng import Stream, keyed_rng
from minisam.training.checkpoint import Checkpoints, State
from minisam.training.config import FAMILY, Config, make_optimizer
from minisam.training.files import say
from minisam.training.model import Model

STRENGTHS = ("weight_decay", "l1", "l2", "alpha", "sigma", "eta")  # options that ruin a training if they are large


class Diverged(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True, eq=False)
class Prepared(Dataset):
    """A data set ready for networks: x_train and x_test are normalised float32. Many runs share one."""

    normalisation: Normalisation

    @classmethod
    def of(cls, dataset: Dataset) -> "Prepared":
        """Normalise by the training images' mean and deviation per channel."""
        normalise = Normalisation.of(dataset.x_train)
        images = {"x_train": normalise(dataset.x_train), "x_test": normalise(dataset.x_test)}
        raw = {field.name: getattr(dataset, field.name) for field in fields(Dataset)}
        return cls(**(raw | images), normalisation=normalise)


@dataclass(frozen=True)
class Run:
    """The outcome of one training run. Errors are fractions, 0 to 1."""

    config: Config
    theta: Array  # (P,) float32
    stats: Array  # BatchNorm's running statistics, (0,) without BatchNorm
    history: list[dict[str, Any]]  # one record per epoch
    test_predictions: Array  # (N_test,) int64
    train_error: float  # on the labels it was trained on, noise included
    test_error: float
    gradient_evaluations: int  # of a whole minibatch: SAM spends two a step
    seconds: float  # spent in training steps; evaluation and compilation not counted


def network(config: Config, data: Prepared) -> Sequential:
    """The network that a config names, sized to the data."""
    return build(config.model, data.x_train.shape[1:], len(data.classes), config.width)


@np.errstate(over="ignore", invalid="ignore")  # a loss that is not finite is reported below
def train(
    config: Config,
    data: Prepared,
    evaluate_every=0,
    progress: bool | str = False,
    diagnostics=False,
    path: list[Array] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Run:
    """Train one network.

    Every `evaluate_every` epochs the history records the error on the test images (0: never); nothing
    is chosen by it. `progress` shows a bar; a text becomes its label. With `diagnostics` the history
    also has, for each epoch, the mean of what `diagnose` finds in its steps. The initial weights and
    the weights after each epoch are appended to `path`.

    With `checkpoints` the run goes on from the newest one, to the last bit, and keeps writing them.

    Raises:
        OSError: a checkpoint can't be read. (One that can't be written is reported, and the training goes on.)
        TypeError: data that are not Prepared.
        ValueError: a batch larger than the data, a checkpoint of another run.
        Diverged: a loss that is NaN or infinite; the text says at which step and what to try.
    """
    if not isinstance(data, Prepared):
        raise TypeError(f"expected data as Prepared.of(dataset), got {type(data).__name__}")
    net = network(config, data)
    labels = redraw_labels(data.y_train, config.noise, len(data.classes), config.seed)
    batches = Batches(data.x_train, labels, config.batch_size, config.seed, config.augment)
    optimizer = make_optimizer(config, len(batches))
    loss, env = SoftmaxCrossEntropy(config.label_smoothing), Env()
    theta, stats = net.init(keyed_rng(config.seed, Stream.INIT)), net.init_stats()
    compile_all(theta.dtype)  # before the clock starts

    def objective(x: Array, y: Array) -> Objective:
        batch: Objective = BatchLoss(net, x, y, loss, env, key=(config.seed, Stream.DROPOUT, epoch, step))
        if config.micro_batch:
            batch = Mean(batch.split(config.micro_batch))
        if config.l1 or config.l2_in_loss:
            batch = Penalised(batch, config.l1, config.l2_in_loss)
        return Recorded(batch) if diagnostics else batch

    def predict(x: Array) -> Array:
        with suppress(FloatingPointError):
            if np.isfinite(theta).all():
                return net.predict(theta, x, stats=stats)
        # the last step led to weights that have no outputs
        raise Diverged(_advice(config, math.nan, step - 1, len(batches)))

    def error_rate(x: Array, y: Array) -> float:
        return float(np.mean(predict(x) != y))

    if path is not None:
        path.append(theta.copy())
    model = Model(config, net, theta, stats, data.classes, data.normalisation)
    history: list[dict[str, Any]] = []
    state = State(model, optimizer, history, path or [])
    if checkpoints:
        asked = {"diagnostics": diagnostics, "path": path is not None, "evaluate_every": evaluate_every}
        identity = asdict(config) | asked | {"data": data.checksum}
        checkpoints.restore(state, identity)
    step, evaluations, seconds = len(history) * len(batches), 0, 0.0
    if history:
        evaluations, seconds = history[-1]["gradient_evaluations"], history[-1]["seconds"]
    label = progress if isinstance(progress, str) else f"training with {config.label}"
    to_do, done = range(len(history), config.epochs), len(history)
    bar = tqdm(to_do, label, config.epochs, initial=done, leave=False, unit="epoch", disable=not progress)
    for epoch in bar:
        started = time.perf_counter()
        lr = value_at(_learning_rate(optimizer), step)
        total_loss = total_right = 0.0
        diagnoses: list[dict[str, Any]] = []
        for x, y in batches.epoch(epoch):
            env.examples = 0
            recorded = objective(x, y)
            at_theta = optimizer.step(theta, recorded)
            stats += BatchNorm.MOMENTUM * (at_theta.stats - stats)  # of the pass at θ, not at θ + ε̂
            if not math.isfinite(at_theta.loss):
                raise Diverged(_advice(config, at_theta.loss, step, len(batches)))
            total_loss += at_theta.loss * len(y)
            total_right += at_theta.accuracy * len(y)
            evaluations += round(env.examples / len(y))
            step += 1
            if isinstance(recorded, Recorded):
                diagnoses.append(diagnose(recorded.calls, net))
        seconds += time.perf_counter() - started
        record: dict[str, Any] = {"epoch": epoch + 1, "lr": lr, "seconds": seconds}
        record["loss"] = total_loss / len(labels)  # at θ, each batch before its step
        record["accuracy"] = total_right / len(labels)
        record["gradient_evaluations"] = evaluations
        if evaluate_every and (epoch + 1) % evaluate_every == 0 and epoch + 1 < config.epochs:
            record["test_error"] = error_rate(data.x_test, data.y_test)
        shown = {"loss": f"{record['loss']:.3f}", "accuracy": f"{record['accuracy']:.1%}"}
        if diagnostics:
            record["diagnostics"] = mean = mean_diagnosis(diagnoses)
            shown |= {name: f"{mean[name]:.2g}" for name in ("gradient norm", "cosine") if name in mean}
        bar.set_postfix(shown)
        history.append(record)
        if path is not None:
            path.append(theta.copy())
        due = checkpoints and ((epoch + 1) % checkpoints.every == 0 or epoch + 1 == config.epochs)
        if checkpoints and due and np.isfinite(theta).all():  # otherwise the next step diverges
            try:
                checkpoints.keep(state, identity)
            except OSError as error:  # such as a full disk, where the model may still find room
                say(f"no checkpoint after epoch {epoch + 1}: {error}; the training goes on")
    predictions = predict(data.x_test)
    history[-1]["test_error"] = test_error = float(np.mean(predictions != data.y_test))
    train_error = error_rate(data.x_train, labels)
    return Run(config, theta, stats, history, predictions, train_error, test_error, evaluations, seconds)


def _learning_rate(optimizer: Any) -> Any:
    """The number or schedule of the optimizer that moves the weights, inside SAM and other wrappers."""
    while not hasattr(optimizer, "lr"):
        optimizer = getattr(optimizer, "base", None) or optimizer.inner
    return optimizer.lr


def _advice(config: Config, loss: float, step: int, steps_per_epoch: int) -> str:
    """Where the loss became infinite or NaN, and what to try."""
    suspects = ["lr", *(["rho"] if config.optimizer in FAMILY else [])]
    suspects += [name for name in STRENGTHS if (getattr(config, name) or 0) > 1]
    cures = " or ".join(f"--{name.replace('_', '-')} (now {getattr(config, name):g})" for name in suspects)
    where = f"{config.label} on {config.model}, seed {config.seed}"
    when = f"epoch {step // steps_per_epoch + 1}, step {step + 1}"
    warmup = ", or add --warmup" if config.schedule == "cosine" and config.warmup + 1 < config.epochs else ""
    return f"{where}: the loss became {loss} at {when}; lower {cures}{warmup}"
