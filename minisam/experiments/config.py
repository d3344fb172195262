"""Everything that determines one training run, in one frozen record."""

from dataclasses import dataclass, field, fields
from typing import Any

from minisam.checks import BelowOne, Checked, Count, Fraction, Natural, NonNegative, Positive
from minisam.nn.models import MODELS
from minisam.optim import GD, SAM, Adam, Cosine, Momentum, Optimizer, Schedule, StepDecay

BASES = ("gd", "momentum", "adam")
OPTIMIZERS = (*BASES, "sam")
SCHEDULES = ("cosine", "step", "constant")
DEFAULT_LR = {"gd": 0.1, "momentum": 0.01, "adam": 0.001}


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field with the words that `minisam train --help` shows for it."""
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Config(Checked):
    """One run: same config, same data, same machine, same bits.

    Raises:
        ValueError: an unknown name or a number out of its range; the text names the field.

    >>> Config(optimizer="sam", rho=0.1).label
    'SAM(Momentum)'
    """

    model: str = _option("mlp", "network", tuple(MODELS))
    optimizer: str = _option("momentum", "how to descend", OPTIMIZERS)
    base: str = _option("momentum", "what SAM steps with", BASES)
    lr: Positive | None = _option(None, "learning rate (0.1 for gd, 0.01 momentum, 0.001 adam)")
    rho: NonNegative = _option(0.05, "SAM's radius: L2 length in weight space")
    momentum: BelowOne = _option(0.9, "momentum's decay factor, 0 to 1")
    nesterov: bool = _option(False, "Nesterov's momentum")
    weight_decay: NonNegative = _option(5e-4, "at w: in the gradient (gd, momentum) or decoupled (adam)")
    epochs: Count = _option(20, "passes over the training images")
    batch_size: Count = _option(64, "images in a minibatch")
    micro_batch: Natural = _option(0, "accumulate the gradient over micro-batches of so many images")
    schedule: str = _option("cosine", "of the learning rate", SCHEDULES)
    warmup: Natural = _option(0, "epochs of linear warm-up (cosine)")
    label_smoothing: BelowOne = _option(0.0, "mass spread over all classes, 0 to 1")
    l1: NonNegative = _option(0.0, "coefficient of an L1 penalty inside the loss")
    l2: NonNegative = _option(0.0, "coefficient of ½‖w‖² inside the loss (both passes of SAM see it)")
    noise: Fraction = _option(0.0, "fraction of training labels redrawn uniformly, 0 to 1")
    augment: bool = _option(False, "random flips and padded crops")
    seed: Natural = _option(0, "of weights, batches, augmentation and label noise")

    def __post_init__(self) -> None:
        for option in fields(self):
            known, got = option.metadata["choices"], getattr(self, option.name)
            if known and got not in known:
                raise ValueError(f"unknown {option.name} {got!r}, expected one of {', '.join(known)}")
        if self.lr is None:
            object.__setattr__(self, "lr", DEFAULT_LR[self.stepper])
        super().__post_init__()
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup must be 0 to epochs - 1, got {self.warmup}")

    @property
    def stepper(self) -> str:
        """The optimizer that moves the weights: SAM's base, or the optimizer itself."""
        return self.base if self.optimizer == "sam" else self.optimizer

    @property
    def label(self) -> str:
        """The optimizer as tables and legends call it."""
        name = {"gd": "GD", "momentum": "Momentum", "adam": "Adam"}[self.stepper]
        return f"SAM({name})" if self.optimizer == "sam" else name


def make_optimizer(config: Config, steps_per_epoch: int) -> Optimizer:
    """A new optimizer, its schedule laid over config.epochs epochs."""
    assert config.lr is not None
    lr: float | Schedule = config.lr
    steps = config.epochs * steps_per_epoch
    if config.schedule == "cosine":
        lr = Cosine(config.lr, steps, warmup=config.warmup * steps_per_epoch)
    elif config.schedule == "step":  # divided by ten after one half and three quarters
        lr = StepDecay(config.lr, milestones=(steps // 2, steps * 3 // 4))
    base: Optimizer
    if config.stepper == "gd":
        base = GD(lr, config.weight_decay)
    elif config.stepper == "momentum":
        base = Momentum(lr, config.weight_decay, config.momentum, config.nesterov)
    else:
        base = Adam(lr, config.weight_decay)
    return SAM(base, config.rho) if config.optimizer == "sam" else base
