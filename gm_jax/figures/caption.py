"""What stands under a figure, and inside its file: which run drew it, from which data, at which step."""

from typing import NamedTuple


class Caption(NamedTuple):
    """Where a figure comes from.

    Attributes:
        config: the name of the experiment.
        data: the name of the data set really used.
        step: of the checkpoint.
        stand_in: the sentence that announces other data than the config asked for; None: there are none.
        more: sentences on what the figure shows.
    """

    config: str
    data: str
    step: int
    stand_in: str | None = None
    more: tuple[str, ...] = ()

    def plus(self, *sentences: str) -> "Caption":
        """Return the caption with more sentences."""
        return self._replace(more=(*self.more, *sentences))

    def __str__(self) -> str:
        note = () if self.stand_in is None else (f"NOTE: {self.stand_in}",)
        return " · ".join((f"{self.config} on {self.data}", f"step {self.step}", *note, *self.more))

    def fields(self) -> dict[str, str]:
        """Return the text fields of a PNG."""
        fields = {"config": self.config, "data": self.data, "step": str(self.step), "stand_in": self.stand_in or ""}
        return {**fields, "Description": str(self), "Software": "gm_jax"}
