"""P1: a DCGAN on cat faces, 64x64.

    python -m gm_jax.main --config=configs/dcgan_cats.py --config.dataset.folder=DIR    # for a GPU: ten hours on two
      ... --mode=evaluate                                                               # CPU cores

Networks, losses, Adam, batches of 128, learning rate 2e-4, 50 epochs and 29,843 images are the report's (004): the
DCGAN of PyTorch's tutorial, whose 100 latents, N(0, 0.02) kernels, missing biases and beta1 of 0.5 fill in what the
report leaves out. Its binary cross-entropy after a sigmoid is computed from the logits: the same numbers. All images of
the folder train, as in the report, so that scores are of images seen; a folder with `train` and `test` wants
`--config.dataset.split=train --config.evaluation.split=test`.

The report's numbers: FID 164.5 after 10 epochs and 132.7 at the end (1,000 samples); losses of D and G 0.3554 and
1.7254 in the first epoch, 0.1063 and 8.1885 in the last (`figures/losses.md` here); 2,412 of 999,000 ordered pairs of
1,000 samples with a cosine similarity above 0.9 (`similar_pairs` here, beside that of real cats).
"""

from gm_jax.defaults import gan_config, set_epochs


def get_config():
    config = gan_config()
    config.rows = ("P1",)
    config.minutes = 600
    config.dataset.name = "cats"
    config.dataset.image_size = 64
    config.dataset.split = config.evaluation.split = "all"  # of a folder without train and test
    config.dataset.validation = 0
    config.model.generator.width = 64  # multipliers, strides and kernels are the networks' defaults
    config.model.discriminator = {"width": 64, "bias": False}
    config.batch_size = 128
    set_epochs(config, epochs=50, checkpoint_epochs=5)
    return config
