"""Networks are built from the keywords of a config; those that cannot be are told in one line."""

import jax
import jax.numpy as jnp
import pytest

from gm_jax.errors import UserError
from gm_jax.models.autoencoder import make_autoencoder
from gm_jax.models.classifiers import make_classifier
from gm_jax.models.gans import make_gan
from gm_jax.models.keywords import check_keywords
from gm_jax.models.vae import make_vae

CIFAR, DIGIT = (32, 32, 3), (28, 28, 1)


@pytest.mark.parametrize(
    ("name", "side", "keywords"),
    [
        ("mlp", 1, {}),
        ("cnn", 18, {}),
        ("cnn", 8, {"features": (4, 4)}),
        ("lenet", 4, {}),
        ("speednet", 9, {}),
        ("alexnet", 15, {}),
        ("alexnet", 8, {"stem_stride": 1}),
        ("resnet", 1, {}),
        ("resnet9", 8, {}),
    ],
)
def test_images_that_leave_no_pixel_are_refused(name, side, keywords):
    make_classifier(name, (side, side + 1, 1), 10, **keywords)
    if side > 1:
        for shape in ((side - 1, 40, 1), (40, side - 1, 1)):
            with pytest.raises(UserError, match=f"takes images of {side}x{side} pixels or more, not {shape[0]}x"):
                make_classifier(name, shape, 10, **keywords)


@pytest.mark.parametrize(
    ("build", "arguments", "keywords", "message"),
    [
        (make_classifier, ("restnet", CIFAR, 10), {}, r"'restnet' is not one of mlp, .* \(did you mean 'resnet'\?\)"),
        (make_classifier, ("mlp", CIFAR, 10), {"hiden": (3,)}, r"no key model.hiden \(did you mean 'hidden'\?\)"),
        (make_classifier, ("mlp", CIFAR, 10), {"dropout": 1.0}, r"model.dropout=1.0 is not in \[0, 1\)"),
        (make_classifier, ("mlp", CIFAR, 10), {"dropout": -0.1}, r"model.dropout=-0.1 is not in \[0, 1\)"),
        (make_classifier, ("mlp", CIFAR, 10), {"dtype": "int32"}, "'int32' is not a floating type"),
        (make_classifier, ("mlp", CIFAR, 10), {"dtype": "float33"}, "'float33' is not a floating type"),
        (make_autoencoder, ("cov", DIGIT, 2), {}, r"'cov' is not one of conv, mlp, residual \(did you mean 'conv'\?\)"),
        (make_autoencoder, ("mlp", DIGIT, 2, "rellu"), {}, r"'rellu' is not one of linear, relu, .* 'relu'\?\)"),
        (make_vae, ("mlp", DIGIT, 0), {}, "model.latent_dim=0 must be at least 1"),
        (make_vae, ("mlp", DIGIT, 2), {"outputs": 3}, "model mlp has no key model.outputs"),
        (make_vae, ("conv", DIGIT, 2), {"features": ()}, "features of one convolution at least"),
        (make_vae, ("conv", (28, 26, 1), 2), {}, "divide by 4, and 28x26 pixels do not"),
        (make_vae, ("conv", (28, 28, 1), 2), {"features": (4, 4, 4)}, "divide by 8, and 28x28 pixels do not"),
        (make_gan, ("dcgn", DIGIT, 2, {}, {}), {}, r"'dcgn' is not one of dcgan, dense \(did you mean 'dcgan'\?\)"),
        (make_gan, ("dcgan", DIGIT, 0, {}, {}), {}, "model.latent_dim=0 must be at least 1"),
        (make_gan, ("dcgan", DIGIT, 2, {"bias": True}, {}), {}, "no key model.generator.bias"),
        (make_gan, ("dcgan", DIGIT, 2, {}, {"axis_name": "x"}), {}, "no key model.discriminator.axis_name"),
        (make_gan, ("dcgan", DIGIT, 2, {}, {"classes": 3}), {}, "no key model.discriminator.classes"),
    ],
)
def test_networks_that_cannot_be_are_told(build, arguments, keywords, message):
    with pytest.raises(UserError, match=message):
        build(*arguments, **keywords)


def test_the_least_that_networks_take():
    assert make_classifier("mlp", CIFAR, 10, dropout=0.0, dtype="bfloat16").dtype == "bfloat16"
    assert make_vae("conv", (4, 4, 1), 1).encoder.outputs == 2
    assert make_vae("mlp", (5, 7, 1), 1).decoder.image_shape == (5, 7, 1)
    generator, discriminator = make_gan("dcgan", DIGIT, 1, {}, {})
    assert generator.image_shape == DIGIT and generator.classes == discriminator.classes == 0


@pytest.mark.parametrize(
    ("default", "fitting", "others"),
    [
        (0, (0, 3), (-1, True, 1.5, "3", (3,))),
        (64, (1, 3), (0, -1, False, 1.0)),
        (0.2, (0.5, 1, -3.0), (True, "1", (0.5,))),
        (False, (True, False), (0, 1.0, "False")),
        ((64, 32), ((1,), [2, 3, 4], ()), (3, (0, 3), (True,), ("3",))),
        ((), ((), (3,)), (3, (0,))),
        ("linear", ("relu",), (1, True)),
        (None, (None, True, 3, "bfloat16"), ()),
    ],
)
def test_keywords_are_like_their_defaults(default, fitting, others):
    """Sizes and counts, which is what integers are, are at least 1, or 0 where that is the default."""
    for value in fitting:
        check_keywords("net", {"key": value}, {"key": default}, group="generator.")
    for value in others:
        with pytest.raises(UserError, match=r"model.generator.key=.* must be like its default"):
            check_keywords("net", {"key": value}, {"key": default}, group="generator.")


@pytest.mark.parametrize(
    ("keywords", "shape", "message"),
    [
        ({"multipliers": (1, 2)}, (16, 16, 3), "has 2 multipliers, 4 strides and 4 kernels"),
        ({"kernels": (4, 4)}, (16, 16, 3), "has 4 multipliers, 4 strides and 2 kernels"),
        ({"multipliers": (), "strides": (), "kernels": ()}, (16, 16, 3), "has 0 multipliers"),
        ({}, (16, 24, 3), "strides of 16 in all, and 16x24 pixels"),
        ({}, (24, 16, 3), "strides of 16 in all, and 24x16 pixels"),
    ],
)
def test_grids_that_cannot_be_are_told(keywords, shape, message):
    networks = make_gan("dcgan", shape, 2, keywords, keywords)
    for network, x in zip(networks, (jnp.zeros((1, 2)), jnp.zeros((1, *shape))), strict=True):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(network.init, jax.random.key(0), x)
