"""The figures of GANs: what latents draw, and how training went."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import random
from gm_jax.figures.arithmetic import check_terms, parse, save_arithmetic
from gm_jax.figures.curves import save_curves, save_relation, save_table
from gm_jax.figures.grid import save_grid
from gm_jax.figures.interpolation import lerp, save_interpolation, slerp
from gm_jax.tasks.task import Task, Trained

PATHS, PATH_STEPS = 4, 10  # interpolations of each kind in their figure
PER_CLASS = 10  # samples of each class in their figure
CANDIDATES = 20_000  # samples among which the judge of latent arithmetic chooses


class GANFigures(Task):
    """A task that has `latents(keys)` and `render(variables, batch of "z" and "label", keys)`."""

    def render_all(self, trained: Trained, z: np.ndarray, label: np.ndarray | int | None = None) -> np.ndarray:
        """Return the images uint8 [n, H, W, C] of latents [n, D] under labels [n]; by default `sampling.label` or 0."""
        label = (self.config.sampling.label or 0) if label is None else label
        batch = {"z": np.asarray(z, np.float32), "label": np.broadcast_to(np.int32(label), len(z))}
        return self.apply(self.render, trained.variables, {**batch, "position": np.arange(len(z), dtype=np.int32)})

    def draw_latents(self, n: int, seed: int) -> np.ndarray:
        """Return the latents [n, D] of the samples 0 ... n - 1 of a seed."""
        return np.asarray(self.latents(random.example_keys(jax.random.key(seed), jnp.arange(n))))

    def figures(self):
        classes = {"classes": self.draw_classes} if self.classes else {}
        arithmetic = {"arithmetic": self.draw_arithmetic} if self.config.sampling.arithmetic else {}
        return {
            "samples": self.draw_samples,
            "interpolation": self.draw_interpolation,
            "losses": self.draw_losses,
            "quality": self.draw_quality,
            **classes,
            **arithmetic,
        }

    def draw_classes(self, trained: Trained) -> None:
        """Draw every class on demand: a row for each, a column for each latent."""
        z = self.draw_latents(PER_CLASS, self.config.sampling.seed)
        label = np.repeat(np.arange(self.classes), PER_CLASS)
        grid = self.render_all(trained, np.tile(z, (self.classes, 1)), label)
        names = ", ".join(self.spec.label_names)
        caption = trained.caption.plus(f"a row for each of {names}; a column for each latent")
        save_grid(trained.workdir.figures / "classes.png", grid, PER_CLASS, caption)

    def draw_interpolation(self, trained: Trained) -> None:
        """Draw paths between pairs of latents, straight and on great circles."""
        start, end = np.split(self.draw_latents(2 * PATHS, self.config.sampling.seed), 2)
        paths = np.stack([walk(start, end, PATH_STEPS) for walk in (lerp, slerp)], axis=1)
        caption = trained.caption.plus("between two latents: a straight path, below it that on a great circle")
        save_interpolation(
            trained.workdir.figures / "interpolation.png",
            paths.reshape(2 * PATHS, PATH_STEPS, -1),
            functools.partial(self.render_all, trained),
            caption,
        )

    def draw_losses(self, trained: Trained) -> None:
        """Plot both losses and the discriminator's opinion over the steps; write the losses as a table, too."""
        names = ["discriminator_loss", "generator_loss"]
        path, metrics = trained.workdir.figures / "losses.png", trained.workdir.metrics
        save_curves(path, metrics, [*names, "d_real", "d_fake"], trained.caption)
        save_table(path.with_suffix(".md"), metrics, names)

    def draw_quality(self, trained: Trained) -> None:
        """Plot the samples' energy score over the discriminator's training loss: does that tell how good they are?"""
        names = ("discriminator_loss", "energy_score")
        save_relation(trained.workdir.figures / "quality.png", trained.workdir.metrics, names, trained.caption)

    def check_judge(self, judge):
        expression = self.config.sampling.arithmetic
        if expression is not None:
            terms = parse(expression)
            check_terms(terms, CANDIDATES, judge().words if any(term.words for term in terms) else ())

    def draw_arithmetic(self, trained: Trained) -> None:
        """Draw what `sampling.arithmetic` asks for, such as "red circle - circle + square"."""
        self.save_arithmetic(trained, self.draw_latents(CANDIDATES, self.config.sampling.seed), self.render_all)

    def save_arithmetic(self, trained: Trained, latents: np.ndarray, decode: Callable, shell: bool = True) -> None:
        """Draw what `sampling.arithmetic` asks for with latents [n, ...] of samples; see `arithmetic.save_arithmetic`.

        `decode` is (trained, latents) -> images.
        """
        expression, seed = self.config.sampling.arithmetic, self.config.sampling.seed
        judge = trained.judge() if any(term.words for term in parse(expression)) else None
        save_arithmetic(
            trained.workdir.figures / "arithmetic.png",
            expression,
            latents,
            functools.partial(decode, trained),
            judge,
            trained.caption.plus(f"samples of seed {seed}"),
            shell,
        )
