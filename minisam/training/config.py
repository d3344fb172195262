"""Everything that determines one training run, in one frozen record; and the optimizer it describes."""

import math
import reprlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from minisam import optim
from minisam.checks import AtLeastOne, BelowOne, Checked, Count, Fraction, Natural, NonNegative, Positive
from minisam.nn.models import MODELS
from minisam.optim import Ascent, Optimizer, Schedule

BASES = {"gd": "GD", "momentum": "Momentum", "adam": "Adam"}
# The members of SAM's family, and their names in tables and legends.
FAMILY = {"sam": "SAM", "asam": "ASAM", "gsam": "GSAM", "looksam": "LookSAM", "friendly-sam": "Friendly SAM"}
FAMILY |= {"exact-sam": "exact SAM", "random-sam": "random direction"}
MICRO = ("sam", "asam", "gsam", "exact-sam")  # they can climb from each micro-batch separately
SCHEDULES = ("cosine", "step", "constant")
DEFAULT_LR = {"gd": 0.1, "momentum": 0.01, "adam": 0.001}


def _option(default: Any, text: str, choices: Iterable[str] = (), only: Iterable[str] = ()) -> Any:
    """A field with its help text for `minisam train --help`, its choices, and the optimizers or schedules it is for."""
    suffix = f" [{', '.join(only)}]" if only else ""
    return field(default=default, metadata={"help": text + suffix, "choices": tuple(choices), "only": tuple(only)})


def current(record: Any) -> Any:
    """A record of a config as today's names have it: older files say "at-w".

    >>> current({"decay": "at-w", "seed": 1})
    {'decay': 'at-theta', 'seed': 1}
    """
    old = isinstance(record, dict) and record.get("decay") == "at-w"
    return record | {"decay": "at-theta"} if old else record


@dataclass(frozen=True)
class Config(Checked):
    """One run: same config, same data, same machine, same bits.

    Raises:
        ValueError: an unknown name or a number out of its range; the text names the field.

    >>> Config(optimizer="sam", rho=0.1).label
    'SAM(Momentum)'
    """

    model: str = _option("mlp", "network", tuple(MODELS))
    optimizer: str = _option("momentum", "how to descend", (*BASES, *FAMILY))
    base: str = _option("momentum", "what SAM and its family step with", BASES, FAMILY)
    lr: Positive | None = _option(None, "learning rate (0.1 for gd, 0.01 momentum, 0.001 adam)")
    rho: NonNegative = _option(0.05, "radius of SAM's ball in weight space", only=FAMILY)
    p: AtLeastOne = _option(2.0, "norm of the ball: a number from 1, or inf", only=("sam", "gsam", "looksam"))
    eta: Positive = _option(0.01, "added to |θ|, so that weights at 0 can move", only=("asam",))
    alpha: NonNegative | None = _option(
        None, "weight of the orthogonal part (0.4 for gsam, 0.7 for looksam)", only=("gsam", "looksam")
    )
    every: Count | None = _option(None, "climb on every k-th step only (default 1, looksam 5)", only=FAMILY)
    sigma: NonNegative = _option(1.0, "share of the full gradient to subtract", only=("friendly-sam",))
    lmbda: BelowOne = _option(0.6, "decay of the full gradient's estimate", only=("friendly-sam",))
    late: BelowOne = _option(0.0, "fraction of the training before SAM begins, 0 to 1", only=FAMILY)
    ascent_steps: Count = _option(1, "climb in K steps of rho / K", only=("sam", "asam", "gsam", "random-sam"))
    m: Natural = _option(0, "m-SAM: every m images climb separately (0: all together)", only=MICRO)
    clip: NonNegative = _option(0.0, "clip the gradient that is followed to this length (0: never)")
    momentum: BelowOne = _option(0.9, "momentum's decay factor, 0 to 1", only=("momentum",))
    nesterov: bool = _option(False, "Nesterov's momentum", only=("momentum",))
    weight_decay: NonNegative = _option(5e-4, "in the gradient (gd, momentum) or decoupled (adam)")
    decay: str = _option("at-theta", "weight decay at θ, or in the loss of both passes", ("at-theta", "in-loss"))
    epochs: Count = _option(20, "passes over the training images")
    batch_size: Count = _option(64, "images in a minibatch")
    micro_batch: Natural = _option(0, "accumulate the gradient over micro-batches of this many images")
    schedule: str = _option("cosine", "schedule of the learning rate", SCHEDULES)
    warmup: Natural = _option(0, "epochs of linear warm-up", only=("cosine",))
    label_smoothing: BelowOne = _option(0.0, "mass spread over all classes, 0 to 1")
    l1: NonNegative = _option(0.0, "coefficient of an L1 penalty inside the loss")
    l2: NonNegative = _option(0.0, "coefficient of ½‖θ‖² inside the loss (both passes of SAM see it)")
    noise: Fraction = _option(0.0, "fraction of training labels redrawn uniformly, 0 to 1")
    augment: bool = _option(False, "random flips and padded crops")
    width: Count = _option(1, "times as many hidden units or channels")
    seed: Natural = _option(0, "seed of weights, batches, augmentation and label noise")

    def __post_init__(self) -> None:
        for option in fields(self):
            known, got = option.metadata["choices"], getattr(self, option.name)
            if known and got not in known:
                raise ValueError(f"unknown {option.name} {reprlib.repr(got)}, expected one of {', '.join(known)}")
            if (only := option.metadata["only"]) and got != option.default:
                chosen = self.schedule if only[0] in SCHEDULES else self.stepper if only[0] in BASES else self.optimizer
                if chosen not in only:
                    what = "schedule" if chosen in SCHEDULES else "optimizer"
                    raise ValueError(f"{option.name} is for {', '.join(only)}, got {what} {chosen}")
        if self.lr is None:
            object.__setattr__(self, "lr", DEFAULT_LR[self.stepper])
        super().__post_init__()
        for name, value in vars(self).items():
            if type(value) is int and value >= 1 << 63:
                raise ValueError(f"{name} must be below 2**63, got {value}")  # so that others can read it
        whole = "micro_batch" if self.micro_batch else "batch_size"
        for name, most in (("micro_batch", "batch_size"), ("m", whole)):
            if getattr(self, name) > getattr(self, most):
                raise ValueError(f"{name} must be at most {most} {getattr(self, most)}, got {getattr(self, name)}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup must be 0 to epochs - 1, got {self.warmup}")

    @classmethod
    @cache  # finding them takes long, and a results.json has many configs
    def _types(cls) -> dict[str, Any]:
        return get_type_hints(cls)

    @classmethod
    def of(cls, record: Any) -> "Config":
        """A config from a record of its fields, as read from a file; missing fields get their defaults.

        Raises:
            ValueError: not a record, an unknown field, or a value that the field can't have.

        >>> Config.of({"epochs": "many"})
        Traceback (most recent call last):
        ValueError: epochs must be int, got 'many'
        """
        if not isinstance(record, dict):
            raise ValueError(f"expected a record of options, got {type(record).__name__}")
        types, given = cls._types(), {}
        for name, value in current(record).items():
            if name not in types:
                raise ValueError(f"unknown option {reprlib.repr(name)}")
            kinds = get_args(types[name]) or (types[name],)
            if value == "inf" and float in kinds:
                value = math.inf
            if float in kinds and type(value) is int and abs(value) < 1e300:
                value = float(value)
            if type(value) not in kinds:
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise ValueError(f"{name} must be {expected}, got {reprlib.repr(value)}")
            given[name] = value
        return cls(**given)

    def record(self) -> dict[str, Any]:
        """Its fields for JSON, which has no infinity.

        >>> Config(optimizer="sam", p=math.inf).record()["p"]
        'inf'
        """
        return {name: "inf" if value == math.inf else value for name, value in asdict(self).items()}

    @property
    def stepper(self) -> str:
        """The optimizer that moves the weights: SAM's base, or the optimizer itself."""
        return self.base if self.optimizer in FAMILY else self.optimizer

    @property
    def label(self) -> str:
        """The optimizer's name in tables and legends."""
        name = BASES[self.stepper]
        return f"{FAMILY[self.optimizer]}({name})" if self.optimizer in FAMILY else name

    @property
    def l2_in_loss(self) -> float:
        """The coefficient of ½‖θ‖² in the loss: l2, plus the weight decay if `decay` puts it there."""
        return self.l2 + (self.weight_decay if self.decay == "in-loss" else 0.0)


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def make_optimizer(config: Config, steps_per_epoch: int) -> Optimizer:
    """A new optimizer, its schedule laid over config.epochs epochs."""
    assert config.lr is not None
    lr: float | Schedule = config.lr
    steps = config.epochs * steps_per_epoch
    if config.schedule == "cosine":
        lr = optim.Cosine(config.lr, steps, warmup=config.warmup * steps_per_epoch)
    elif config.schedule == "step":  # divided by ten after one half and three quarters
        lr = optim.StepDecay(config.lr, milestones=(steps // 2, steps * 3 // 4))
    optimizer: Optimizer
    decay = config.weight_decay if config.decay == "at-theta" else 0.0
    if config.stepper == "gd":
        optimizer = optim.GD(lr, decay)
    elif config.stepper == "momentum":
        optimizer = optim.Momentum(lr, decay, config.momentum, config.nesterov)
    else:
        optimizer = optim.Adam(lr, decay)
    if config.clip:
        optimizer = optim.Clipped(optimizer, config.clip)
    if config.optimizer not in FAMILY:
        return optimizer
    rho: float | Schedule = config.rho
    if config.late:
        rho = optim.Late(round(config.late * steps), rho)
    if config.optimizer == "looksam":
        return optim.LookSAM(optimizer, rho, optim.Ball(config.p), k=config.every or 5, alpha=_given(config.alpha, 0.7))
    if config.every:
        rho = optim.Every(config.every, rho)
    ascents: dict[str, Ascent] = {"asam": optim.Adaptive(config.eta), "random-sam": optim.RandomDirection(config.seed)}
    ascents["friendly-sam"] = optim.Friendly(config.sigma, config.lmbda)
    ascent = ascents.get(config.optimizer, optim.Ball(config.p))
    if config.optimizer == "gsam":
        optimizer = optim.GSAM(optimizer, rho, ascent, config.ascent_steps, _given(config.alpha, 0.4))
    elif config.optimizer == "exact-sam":
        optimizer = optim.ExactSAM(optimizer, rho)
    else:
        optimizer = optim.SAM(optimizer, rho, ascent, config.ascent_steps)
    return optim.MicroBatched(optimizer, config.m) if config.m else optimizer
