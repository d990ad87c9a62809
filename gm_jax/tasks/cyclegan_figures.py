"""The figures of CycleGAN: images translated and brought back, and how training went."""

from pathlib import Path

import numpy as np

from gm_jax import images
from gm_jax.figures.curves import save_curves, save_table
from gm_jax.figures.grid import save_versions
from gm_jax.tasks.task import Task, Trained

COLUMNS = 8
TERMS = ("adversarial_ab", "adversarial_ba", "cycle_a", "cycle_b", "identity_a", "identity_b")
DISCRIMINATORS = ("discriminator_a", "discriminator_b")


class CycleGANFigures(Task):
    """A task that has `translate(variables, direction, x)` for each of its `directions`."""

    def figures(self):
        return {"translations": self.draw_translations, "losses": self.draw_losses}

    def there_and_back(self, variables, batch, keys):
        """Return, by direction, the test images translated and brought back, each uint8 [B, H, W, C]."""
        found = {}
        for direction, (source, target) in self.directions.items():
            there = self.translate(variables, direction, images.to_model(batch[source]["image"]))
            back = self.translate(variables, target + source, there)
            found[direction] = images.to_uint8(there), images.to_uint8(back)
        return found

    def save_translations(self, trained: Trained, path: Path) -> None:
        """Draw `sampling.n` test images of each kind: as they are, translated, and brought back."""
        batch = trained.examples(self.config.sampling.n)
        made = self.apply(self.there_and_back, trained.variables, batch)
        versions = [v for d, (source, _) in self.directions.items() for v in (batch[source]["image"], *made[d])]
        caption = trained.caption.plus("test images, translated, and brought back; from a to b, then from b to a")
        save_versions(path, [np.asarray(version) for version in versions], COLUMNS, caption)

    def draw_translations(self, trained: Trained) -> None:
        """Draw the test images of the figure that every evaluation draws, too."""
        self.save_translations(trained, trained.workdir.figures / "translations.png")

    def draw_progress(self, trained: Trained) -> None:
        self.save_translations(trained, trained.workdir.figures / f"translations_{trained.step:07d}.png")

    def draw_losses(self, trained: Trained) -> None:
        """Plot the six terms of the generators' loss and the discriminators' losses; write them as a table, too."""
        path, metrics = trained.workdir.figures / "losses.png", trained.workdir.metrics
        save_curves(path, metrics, [*TERMS, *DISCRIMINATORS], trained.caption)
        save_table(path.with_suffix(".md"), metrics, [*TERMS, *DISCRIMINATORS])
