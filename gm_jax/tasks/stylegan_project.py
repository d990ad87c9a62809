"""Mode project of StyleGAN: the styles w of which it draws given images, as files that figures can use."""

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import project, random
from gm_jax.data.folder import read_images
from gm_jax.errors import UserError
from gm_jax.figures.grid import enlarged, save_film, save_strips
from gm_jax.figures.latent_file import save_latent
from gm_jax.tasks.stylegan_figures import StyleGANFigures
from gm_jax.tasks.task import Trained


def project_images(task: StyleGANFigures, trained: Trained) -> int:
    """Find w of every image that `project.input` names; return the exit status.

    The folder `projected` gets for each NAME.npz with "latent", w [D] or [layers, D], and "error"; NAME.gif, the path
    there; and projected.png, in whose columns lie image, nearest sample, from which it starts, and result.

    Raises:
        UserError: there are no images.
    """
    config, settings = task.config, task.config.project
    if settings.input is None:
        raise UserError("which image? give --config.project.input=IMAGE or a folder of images")
    names, images = read_images(settings.input, trained.spec.image_shape[2], trained.spec.image_shape[0])
    w = task.draw_styles(trained, settings.candidates)
    start = w[project.nearest(images, task.paint(trained, w))]
    if settings.layers:
        start = np.repeat(start[:, None], 2 * task.blocks, axis=1)
    noise = random.example_keys(jax.random.key(config.sampling.seed), jnp.zeros(len(images), jnp.int32))

    def draw(w: jax.Array) -> jax.Array:
        return task.show(trained.variables, w if settings.layers else w[:, None], noise)

    found = project.project(draw, images, start, settings.steps, settings.learning_rate)
    if not trained.workdir.writes:
        return 0
    folder = trained.workdir.path / "projected"
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        save_latent(folder / f"{name}.npz", found.latent[i], error=found.error[i], step=trained.step)
        save_film(folder / f"{name}.gif", enlarged(found.path[:, i]), trained.caption.plus(name))
        print(f"{name}: error {found.error[i]:.5f}: {folder / name}.npz", flush=True)
    caption = trained.caption.plus("below each image the nearest sample, from which it starts, and its projection")
    save_strips(folder / "projected.png", np.stack([images, found.path[0], found.path[-1]]), caption)
    return 0
