"""Figures of a CycleGAN: images of both domains, what they become, and what becomes of that on the way back."""

import functools

import numpy as np

from gm_jax.figures.curves import save_curves
from gm_jax.figures.grid import save_grid
from gm_jax.tasks.task import Task, Trained, Translation

LOSSES = ("gan_ab", "gan_ba", "cycle_a", "cycle_b", "identity_a", "identity_b", "discriminator_a", "discriminator_b")


class TranslationFigures(Task):
    """A task that has `there_and_back(net, variables, batch, keys)`, and a domain for each letter of its generators."""

    def translated(self, trained: Trained, n: int | None) -> dict[str, dict[str, np.ndarray]]:
        """Return "input", "made" and "again" [n, H, W, C] of evaluated images, by generator."""
        examples = trained.examples(n)
        return {net: self.apply(self.ways[net], trained.variables, examples[net[0]]) for net in ("ab", "ba")}

    def translations(self, trained):
        made = self.translated(trained, self.config.evaluation.n)
        words = {name: self.config.domains[name].value or "" for name in "ab"}
        return {
            net: Translation(made[net]["input"], made[net]["made"], made[back]["input"], (words[net[0]], words[net[1]]))
            for net, back in (("ab", "ba"), ("ba", "ab"))
        }

    @functools.cached_property
    def ways(self):
        """The functions that `apply` keeps compiled."""
        return {net: functools.partial(self.there_and_back, net) for net in ("ab", "ba")}

    def figures(self):
        return {"translations": self.draw_translations, "losses": self.draw_losses}

    def preview(self, trained):
        n = self.config.sampling.n
        made = self.translated(trained, n).values()
        rows = [images[name] for images in made for name in ("input", "made", "again")]
        return np.concatenate(rows), len(rows[0])

    def draw_translations(self, trained: Trained) -> None:
        """Draw test images of a, translated, and back again, then those of b."""
        a, b = (self.describe_domain(name) for name in "ab")
        caption = trained.caption.plus(f"{a}, as {b}, back again; {b}, as {a}, back again")
        save_grid(trained.workdir.figures / "translations.png", *self.preview(trained), caption)

    def describe_domain(self, name: str) -> str:
        """Return what a domain is called."""
        domain = self.config.domains[name]
        return domain.split if domain.attribute is None else domain.value

    def draw_losses(self, trained: Trained) -> None:
        """Plot all terms of the losses over the steps."""
        save_curves(trained.workdir.figures / "losses.png", trained.workdir.metrics, LOSSES, trained.caption)
