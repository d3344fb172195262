"""What a row of a table, or a panel of a picture, is about: a network, its images, their labels, and what was tuned."""

from typing import Any, NamedTuple


class Setting(NamedTuple):
    """A problem as tables and panels distinguish it."""

    model: str
    noise: float
    n_train: int
    width: int = 1
    papers: bool = False  # tuned as in SAM's papers, not equally for all

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Setting":
        """The setting of a run, of a row of the summary or of a comparison."""
        return cls(**{name: row[name] for name in cls._fields if name in row or name not in cls._field_defaults})

    def record(self) -> dict[str, Any]:
        """Its fields for such a row, as far as they are not the usual ones.

        >>> Setting("mlp", 0.4, 4000).record()
        {'model': 'mlp', 'noise': 0.4, 'n_train': 4000}
        >>> Setting.of(Setting("mlp", 0.4, 4000, width=2, papers=True).record())
        Setting(model='mlp', noise=0.4, n_train=4000, width=2, papers=True)
        """
        usual = self._field_defaults
        return {name: value for name, value in self._asdict().items() if name not in usual or value != usual[name]}

    @property
    def title(self) -> str:
        """Its name in tables and panels.

        >>> Setting("mlp", 0.4, 4000).title
        'MLP, 40 % of labels redrawn'
        >>> Setting("cnn-bn", 0.0, 4000, width=2).title
        'CNN-BN 2× as wide, clean labels'
        """
        wider = f" {self.width}× as wide" if self.width > 1 else ""
        return f"{self.model.upper()}{wider}, {self.labels}"

    @property
    def labels(self) -> str:
        """The share of training labels that were redrawn."""
        return f"{100 * self.noise:.0f} % of labels redrawn" if self.noise else "clean labels"

    @property
    def protocol(self) -> str:
        """What was tuned: for SAM its rho alone, as in its papers, or as much for every method."""
        return "papers' protocol" if self.papers else "equal tuning"


def settings(results: dict[str, Any]) -> list[Setting]:
    """The settings of a results.json, in order."""
    return list(dict.fromkeys(map(Setting.of, results["summary"])))


def in_setting(results: dict[str, Any], table: str, setting: Setting) -> list[dict[str, Any]]:
    """The records of results["runs"], ["summary"] or ["comparisons"] in one setting."""
    return [row for row in results[table] if Setting.of(row) == setting]


def title_in(results: dict[str, Any], setting: Setting) -> str:
    """A setting's title among those of its results: with the number of images and the protocol, if these differ."""
    others, title = settings(results), setting.title
    if len({other.n_train for other in others}) > 1:
        title += f", {setting.n_train:,} images"
    if len({other.papers for other in others}) > 1:
        title += f", {setting.protocol}"
    return title
