"""The kinds of experiment, and what the report of each needs: what is missing is found before the first run."""

import reprlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from minisam.study.recipes import MAIN, SAM
from minisam.study.settings import Setting
from minisam.training.config import Config
from minisam.training.files import brief

Comparison = tuple[str, str]  # the labels of baseline and candidate
Methods = dict[str, Config]  # those of one setting, by label, with their first seed
LONGEST = 100  # letters in a name


class Arm(NamedTuple):
    """One method on one problem, to be run with several seeds, counted from its config's."""

    label: str
    n_train: int
    config: Config
    papers: bool = False  # tuned as in SAM's papers

    @property
    def setting(self) -> Setting:
        """What the run is about, besides its method."""
        return Setting(self.config.model, self.config.noise, self.n_train, self.config.width, self.papers)


def require_name(what: str, name: Any) -> None:
    """Raise ValueError unless tables, pictures and terminals can show this name.

    >>> require_name("label", "Adam\\n")
    Traceback (most recent call last):
    ValueError: label must be 1 to 100 printable letters, got 'Adam\\n'
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST or not name.isprintable():
        raise ValueError(f"{what} must be 1 to {LONGEST} printable letters, got {reprlib.repr(name)}")


def _main(methods: Methods, pairs: Sequence[Comparison]) -> bool:
    return methods.keys() <= MAIN.keys()


def _along_rho(methods: Methods, pairs: Sequence[Comparison]) -> bool:
    candidates = {candidate for _, candidate in pairs}
    chosen = [config for label, config in methods.items() if label in candidates]
    rest = [config.record() | {"rho": 0.0} for config in chosen]
    return 1 < len({config.rho for config in chosen}) == len(chosen) == rest.count(rest[0])


def _one_with_two(methods: Methods, pairs: Sequence[Comparison]) -> bool:
    baselines, candidates = ({pair[side] for pair in pairs} for side in (0, 1))
    return (len(pairs), len(baselines), len(candidates)) == (2, 2, 1)


def _by_epochs(methods: Methods, pairs: Sequence[Comparison]) -> bool:
    return all(any(label.startswith(f"{name}, ") for label in methods) for name in ("Momentum", SAM))


NEEDS: dict[str, tuple[Callable[[Methods, Sequence[Comparison]], bool], str]] = {
    "methods": (_main, f"no methods but {', '.join(MAIN)}"),
    "rho": (_along_rho, "candidates that differ in rho and in nothing else"),
    "ingredients": (lambda *_: True, "nothing more"),
    "size": (_one_with_two, "one candidate, compared with two baselines"),
    "budget": (_by_epochs, f"methods called “Momentum, … epochs” and “{SAM}, … epochs”"),
}


def require_kind(kind: str, runs: Sequence[Arm], pairs: Sequence[Comparison]) -> None:
    """Raise ValueError unless a report of this kind can be made of these runs, whatever their numbers will be.

    >>> require_kind("size", [Arm("Adam", 100, Config()), Arm("GD", 100, Config())], [("Adam", "GD")])
    Traceback (most recent call last):
    ValueError: a report of kind size needs one candidate, compared with two baselines; got Adam, GD
    """
    if kind not in tuple(NEEDS):  # whatever a file has
        raise ValueError(f"unknown kind {reprlib.repr(kind)}, expected one of {', '.join(NEEDS)}")
    settings: dict[Setting, dict[str, list[Config]]] = {}
    for run in runs:
        require_name("label", run.label)
        if run.config.batch_size > run.n_train:
            raise ValueError(f"batch_size must be 1 to {run.n_train}, got {run.config.batch_size}")
        settings.setdefault(run.setting, {}).setdefault(run.label, []).append(run.config)
    ran = {label for methods in settings.values() for label in methods}
    if not pairs:
        raise ValueError("expected pairs of methods to compare, got none")
    if missing := [label for pair in pairs for label in pair if label not in ran]:
        raise ValueError(f"pairs compare {reprlib.repr(missing[0])}, of which there are no runs")
    if len(set(pairs)) < len(pairs):
        raise ValueError(f"expected each pair of methods once, got {len(set(pairs))} different ones in {len(pairs)}")
    fits, needed = NEEDS[kind]
    for methods in settings.values():
        _require_paired(methods)
        if not fits({label: configs[0] for label, configs in methods.items()}, pairs):
            raise ValueError(f"a report of kind {kind} needs {needed}; got {brief(', '.join(methods))}")


def _require_paired(methods: dict[str, list[Config]]) -> None:
    """The methods of a setting are compared seed by seed."""
    seeds = [config.seed for config in next(iter(methods.values()))]
    for label, configs in methods.items():
        found = [config.seed for config in configs]
        if found != seeds or len(set(seeds)) < len(seeds):
            expected = "each seed once, the same ones for every method of a setting"
            raise ValueError(f"expected {expected}, got {reprlib.repr(found)} for {label}")
        if any(config.record() | {"seed": 0} != configs[0].record() | {"seed": 0} for config in configs):
            raise ValueError(f"expected runs of {label} that differ in nothing but their seeds")
