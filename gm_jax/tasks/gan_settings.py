"""Which settings of a GAN do not go together."""

from ml_collections import ConfigDict

from gm_jax.errors import UserError
from gm_jax.figures.arithmetic import parse
from gm_jax.layers import diff_augment
from gm_jax.losses.adversarial import make_adversarial
from gm_jax.tasks.task import check_label


def check_settings(config: ConfigDict, classes: int) -> None:
    """Refuse what `config.gan` cannot mean.

    Raises:
        UserError: an unknown augmentation, labels where there are none, or settings that do not go together.
    """
    settings = config.gan
    diff_augment.check(settings.augment)
    if settings.conditional and classes < 2:
        raise UserError(
            f"gan.conditional needs labels of two or more classes, and data set '{config.dataset.name}' has {classes}: "
            "set gan.conditional=False, choose another dataset.name, or a folder with a subfolder for each class"
        )
    if settings.wrong_labels and not classes:
        raise UserError("gan.wrong_labels needs labels: set gan.conditional=True")
    check_label(config, classes)
    if settings.label_smoothing and not make_adversarial(settings.loss).targets:
        raise UserError(
            f"gan.label_smoothing means nothing for gan.loss={settings.loss}, which has no targets: set it 0"
        )
    if config.sampling.arithmetic is not None:
        check_arithmetic(config)


def check_arithmetic(config: ConfigDict) -> None:
    """Refuse arithmetic that could not be drawn once the networks are trained.

    Raises:
        UserError: an expression without sense, words without a judge, or classes that the samples do not share.
    """
    expression = config.sampling.arithmetic
    if any(term.words for term in parse(expression)) and not config.evaluation.judge:
        raise UserError(
            f"sampling.arithmetic={expression!r} has words, for which it needs a judge: give "
            "--config.evaluation.judge=WORKDIR of a trained classifier, or =shapes, or name samples by their numbers"
        )
    if config.gan.get("conditional") and config.sampling.label is None:
        raise UserError("sampling.arithmetic needs samples of one class here: give sampling.label, too")


def check_slope(config: ConfigDict, batch_norm: bool) -> None:
    """Refuse what bounds the slope of a critic wrongly, and a Wasserstein critic whose slope nothing bounds.

    Raises:
        UserError: saying which settings do not go together.
    """
    settings, clip = config.gan, config.optim.discriminator.clip_weights
    spectral = config.model.discriminator.get("spectral_norm", False)
    for name in ("gradient_penalty", "r1"):
        if settings[name] and batch_norm:
            raise UserError(
                f"gan.{name} is of each image by itself, and batch norm mixes images: set "
                "model.discriminator.batch_norm=False"
            )
    if clip is not None and settings.loss != "wasserstein":
        raise UserError(
            f"optim.discriminator.clip_weights={clip} is for gan.loss=wasserstein, not {settings.loss}: leave it out"
        )
    if settings.loss == "wasserstein" and clip is None and not settings.gradient_penalty and not spectral:
        raise UserError(
            "gan.loss=wasserstein needs a critic of bounded slope: set gan.gradient_penalty=10, "
            "optim.discriminator.clip_weights=0.01, or model.discriminator.spectral_norm=True"
        )
