"""Figures of a diffusion model: the way from noise to images, the way back, and the loss."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import images, random
from gm_jax.figures.curves import save_curves, save_figure
from gm_jax.figures.grid import enlarged, grid, save_film, save_strips
from gm_jax.figures.sprite import save_sprite
from gm_jax.samplers.diffusion import diffuse
from gm_jax.samplers.processes import Level
from gm_jax.tasks.task import Task, Trained

CHAIN_STATES = 10  # pictures in a strip of the chain
CHAIN_IMAGES = 8  # strips in its figure
BOUND_IMAGES, BOUND_STEPS = 64, 40  # of the figure of the bound
GIF_IMAGES, GIF_COLUMNS = 16, 4  # in its animation: noise does not compress
FILM_STATES, FILM_IMAGES, FILM_COLUMNS = 20, 64, 8  # and in its film, in which the report moves to and fro


def generate_chain(task: Task, variables, batch, keys) -> dict[str, jax.Array]:
    """Run the reverse process; return "images" and the "chain" [B, FILM_STATES + 1, H, W, C] that leads to them.

    States are scaled down by what noise adds to them, so that those of an exploding chain are not all white.
    """
    result = task.reverse(variables, batch, keys, task.plan, keep=FILM_STATES)
    signal, noise = (column[result.kept] for column in task.plan.level[:2])
    shrink = jnp.asarray(1 / np.hypot(signal, noise), jnp.float32).reshape(-1, 1, 1, 1, 1)
    chain = jnp.concatenate([shrink * result.states, result.x[None]])
    return {"images": images.to_uint8(result.x), "chain": images.to_uint8(jnp.moveaxis(chain, 0, 1))}


def draw_reverse_chain(task: Task, trained: Trained) -> None:
    """Draw a few samples on their way from noise (left) to image (right); write films of more: a GIF, and a sprite."""

    def generate(variables, batch, keys):
        return generate_chain(task, variables, batch, keys)

    chain = task.sample(trained.variables, FILM_IMAGES, task.config.sampling.seed, generate)["chain"]
    last = chain.shape[1] - 1
    shown = np.unique(np.round(np.linspace(0, last - 1, CHAIN_STATES)).astype(int))
    strips = chain[:CHAIN_IMAGES][:, [*shown, last]]
    caption = trained.caption.plus("reverse process, from noise (left) to image (right)")
    save_strips(trained.workdir.figures / "reverse_chain.png", strips, caption)
    film = np.stack([grid(images[:GIF_IMAGES], GIF_COLUMNS) for images in chain.swapaxes(0, 1)])
    save_film(trained.workdir.figures / "reverse_chain.gif", enlarged(film), caption)
    frames = np.stack([grid(images, FILM_COLUMNS) for images in chain.swapaxes(0, 1)])
    kept = np.round(np.linspace(0, len(task.plan.base) - 1, last)).astype(int)
    signal, noise = (column[kept] for column in task.plan.level[:2])
    share = [round(float(s), 3) for s in [*(noise / np.hypot(signal, noise)), 0.0]]  # of what is seen
    save_sprite(trained.workdir.figures / "reverse_film.png", frames, 1, trained.caption, {"noise": share})


def draw_forward_chain(task: Task, trained: Trained) -> None:
    """Draw a few test images sinking into noise."""
    x0 = images.to_model(jnp.asarray(trained.examples(CHAIN_IMAGES)["image"]))
    epsilon = random.normal(
        random.example_keys(jax.random.key(task.config.sampling.seed), jnp.arange(len(x0))), x0.shape[1:]
    )
    levels = task.process.evenly(min(CHAIN_STATES, task.process.most))
    count = len(levels.noise)
    shrink = 1 / np.hypot(levels.signal, levels.noise)
    chain = [shrink[i] * diffuse(Level(*(column[i] for column in levels)), x0, epsilon) for i in reversed(range(count))]
    caption = trained.caption.plus(
        f"forward process, noise {', '.join(f'{noise:.2g}' for noise in levels.noise[::-1])}"
    )
    strips = np.moveaxis(np.asarray(images.to_uint8(jnp.stack(chain))), 0, 1)
    save_strips(trained.workdir.figures / "forward_chain.png", strips, caption)


def draw_bound(task: Task, trained: Trained) -> None:
    """Plot the terms of the variational bound over the steps, of a few test images (Nichol & Dhariwal 2021, fig. 2)."""
    import matplotlib.figure

    T = task.process.schedule.T
    steps = np.unique(np.round(np.geomspace(1, T, min(BOUND_STEPS, T)))).astype(np.int32)
    batch = trained.examples(BOUND_IMAGES)

    def terms(variables, batch, keys):
        x0, label = images.to_model(batch["image"]), task.seen_label(batch)

        def term(t):
            return task.bound_at(variables.params, x0, jnp.full(len(x0), t), random.fold_in(keys, t), label)

        return jnp.moveaxis(jax.lax.map(term, jnp.asarray(steps)), 0, 1)

    bits = np.asarray(task.apply(terms, trained.variables, batch), np.float64).mean(0)
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(steps, np.maximum(bits, 1e-8), marker=".")
    axes.set(xlabel="step t", ylabel="term of the bound, bits per dimension")
    axes.grid(alpha=0.3)
    caption = trained.caption.plus(f"{len(batch['image'])} images, one draw a step")
    save_figure(trained.workdir.figures / "bound.png", figure, caption)


def draw_loss(trained: Trained) -> None:
    """Plot the training and validation loss over the steps."""
    save_curves(trained.workdir.figures / "loss.png", trained.workdir.metrics, ["loss"], trained.caption)
