"""Classification: one network from images to the logits of their class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from gm_jax import images, parallel, random
from gm_jax.data import augment
from gm_jax.errors import UserError
from gm_jax.figures.confusion import save_confusion
from gm_jax.figures.curves import save_curves
from gm_jax.figures.grid import save_grid, save_labelled_grid
from gm_jax.losses.classification import cross_entropy
from gm_jax.metrics import classification as metrics
from gm_jax.models.classifiers import make_classifier
from gm_jax.program import Program, image_input, legend
from gm_jax.stages import Phase, Result
from gm_jax.step import AXIS
from gm_jax.tasks.task import DataSpec, Task, Trained, check_labels

NET = "classifier"
CALIBRATION_BINS = 15
MISTAKES = 48  # in their figure at most
FILTERS = 64


class Classifier(Task):
    """One phase on the network "classifier", which sees standardised images."""

    monitor = ("accuracy", "max")

    def __init__(self, config: ConfigDict, spec: DataSpec):
        super().__init__(config, spec)
        self.settings = config.classifier
        self.classes = len(spec.label_names)
        if self.classes < 2:
            raise UserError(
                f"a classifier needs labels of two or more classes, and data set '{config.dataset.name}' has "
                f"{self.classes}: choose another dataset.name, or a folder with a subfolder for each class"
            )
        if self.settings.classes not in (None, self.classes):
            raise UserError(
                f"classifier.classes={self.settings.classes}, but data set '{config.dataset.name}' has {self.classes} "
                f"classes: leave classifier.classes out, or choose another dataset.name"
            )
        channels = spec.image_shape[2]
        for name in ("mean", "std"):
            values = tuple(self.settings[name])
            if len(values) not in (1, channels):
                raise UserError(
                    f"classifier.{name}={values} has {len(values)} values for images of {channels} channels: "
                    "give one, or one for each"
                )
        augment.check(config.augment, spec.image_shape)
        self.network = make_classifier(
            image_shape=spec.image_shape, classes=self.classes, axis_name=AXIS, **config.model
        )
        self.last_predictions = (None, {})  # of which `Trained`, and what

    def check_data(self, split, data):
        check_labels(split, data, self.classes)

    def init(self, key):
        return {NET: self.network.init(key, jnp.zeros((1, *self.spec.image_shape)))}

    def networks(self, variables):
        return {NET: (self.network, variables.of(NET))}

    def programs(self):
        def classify(variables, batch, keys):
            logits = self.logits(variables, batch["image"])
            return {"label": jnp.argmax(logits, -1), "probabilities": jax.nn.softmax(logits)}

        outputs = {
            "label": f"the most likely class: {legend(self.spec.label_names)}",
            "probabilities": "of every class",
        }
        return {"classifier": Program(classify, {"image": image_input(self.spec.image_shape)}, outputs)}

    def phases(self, stage=0):
        return [Phase(NET, (NET,), self.loss)]

    def loss(self, variables, batch, context):
        """Mean cross-entropy of augmented images, with smoothed labels; "loss" is logged without the smoothing."""
        augment_key, dropout_key = jax.random.split(context.key)
        own = variables.model_state[NET]
        x = augment.augment(batch["image"], random.example_keys(augment_key, batch["position"]), self.config.augment)
        logits, state = self.network.apply(
            {"params": variables.params[NET], **own},
            self.standardise(x),
            train=True,
            keys=random.example_keys(dropout_key, batch["position"]),
            mutable=list(own),
        )
        labels = batch["label"]
        objective = jnp.mean(cross_entropy(logits, labels, self.settings.label_smoothing))
        values = {
            "loss": jnp.mean(cross_entropy(logits, labels)),
            "accuracy": jnp.mean(jnp.argmax(logits, -1) == labels),
        }
        return objective, Result(values, {NET: state})

    def standardise(self, image):
        """Map uint8 to float32 of about mean 0 and variance 1, by the constants in the config."""
        mean, std = jnp.asarray(self.settings.mean), jnp.asarray(self.settings.std)
        return (image.astype(jnp.float32) / 255.0 - mean) / std

    def logits(self, variables, image):
        """Map images uint8 [B, H, W, C] to logits [B, classes], as the trained network sees them.

        With `classifier.flip_at_test`, the mean of the logits of the image and of its mirror image.
        """
        tree = {"params": variables.params[NET], **variables.model_state[NET]}
        x = self.standardise(image)
        logits = self.network.apply(tree, x)
        if self.settings.flip_at_test:
            logits = (logits + self.network.apply(tree, x[:, :, ::-1])) / 2
        return logits

    def validate(self, variables, batch, keys):
        logits, labels = self.logits(variables, batch["image"]), batch["label"]
        return {"loss": cross_entropy(logits, labels), "accuracy": jnp.argmax(logits, -1) == labels}

    def evaluate(self, variables, batch, keys):
        """Return loss and accuracy, and the products whose sums are the confusion matrix and the calibration."""
        logits, labels = self.logits(variables, batch["image"]), batch["label"]
        predicted = jnp.argmax(logits, -1)
        correct = predicted == labels
        confidence = jnp.max(jax.nn.softmax(logits), -1)
        return {
            "loss": cross_entropy(logits, labels),
            "accuracy": correct,
            "confidence": confidence,
            "confusion": metrics.confusion(labels, predicted, self.classes),
            "calibration": metrics.calibration(confidence, correct, CALIBRATION_BINS),
        }

    def derive(self, moments):
        """Return the calibration error, and the accuracy of every class that occurs."""
        confusion = moments["confusion"].mean  # shares of all examples
        share = confusion.sum(1)
        names = self.spec.label_names
        by_class = {f"accuracy/{names[c]}": confusion[c, c] / share[c] for c in np.flatnonzero(share)}
        error = metrics.expected_calibration_error(moments["calibration"].mean)
        return {"expected_calibration_error": error, **by_class}

    def figures(self):
        return {
            "curves": self.draw_curves,
            "confusion": self.draw_confusion,
            "mistakes": self.draw_mistakes,
            "filters": self.draw_filters,
        }

    def predictions(self, trained: Trained) -> dict[str, np.ndarray]:
        """Return "image", "label" and "predicted" of the evaluated examples, [n, ...]."""
        if self.last_predictions[0] is not trained:  # two figures show them
            data = trained.examples(self.config.evaluation.n)
            self.last_predictions = (trained, {**data, "predicted": self.predict(trained, data["image"])})
        return self.last_predictions[1]

    def look(self, trained: Trained, function, image: np.ndarray) -> np.ndarray:
        """Return what `function(variables, batch, keys)` says of images uint8 [n, H, W, C]."""
        batch = {"image": image, "position": np.arange(len(image), dtype=np.int32)}
        size = self.config.evaluation.batch_size
        return parallel.concatenate(self.iterate(function, trained.variables, batch, 0, size))

    def predict(self, trained: Trained, image: np.ndarray) -> np.ndarray:
        """Return the most likely class of each of the images uint8 [n, H, W, C], int32 [n]."""
        return self.look(trained, self.most_likely, image)

    def most_likely(self, variables, batch, keys):
        """Return the most likely class [B]."""
        return jnp.argmax(self.logits(variables, batch["image"]), -1)

    def features(self, trained: Trained, image: np.ndarray) -> np.ndarray:
        """Return what the last layer reads of the images uint8 [n, H, W, C]: float32 [n, D].

        With `classifier.flip_at_test`, of the image and of its mirror image, one after the other.
        """
        return self.look(trained, self.last_features, image)

    def last_features(self, variables, batch, keys):
        """Return what the last layer reads [B, D]."""
        return self.features_and_logits(variables, batch, keys)[:, : -self.classes]

    def features_and_logits(self, variables, batch, keys):
        """Return what the last layer reads, and the logits behind it: [B, D + classes]."""
        seen = []

        def read(call, args, kwargs, context):
            if context.module.name == "head":
                seen.append(args[0].astype(jnp.float32))
            return call(*args, **kwargs)

        with nn.intercept_methods(read):
            logits = self.logits(variables, batch["image"])
        return jnp.concatenate([*seen, logits.astype(jnp.float32)], axis=-1)

    def describe(self, trained: Trained, image: np.ndarray) -> list[frozenset[str]]:
        """Return the name of the most likely class of each of the images, as a judge does."""
        return [frozenset([self.spec.label_names[number]]) for number in self.predict(trained, image)]

    def draw_curves(self, trained: Trained) -> None:
        """Plot accuracy and loss in training and validation over the steps."""
        path = trained.workdir.figures / "curves.png"
        save_curves(path, trained.workdir.metrics, ["accuracy", "loss"], trained.caption)

    def draw_confusion(self, trained: Trained) -> None:
        """Draw how often each class is taken for each other."""
        seen = self.predictions(trained)
        counts = np.zeros((self.classes, self.classes))
        np.add.at(counts, (seen["label"], seen["predicted"]), 1)
        accuracy = np.trace(counts) / counts.sum()
        caption = trained.caption.plus(f"{accuracy:.2%} of {len(seen['label'])} {self.config.evaluation.split} images")
        save_confusion(trained.workdir.figures / "confusion.png", counts, self.spec.label_names, caption)

    def draw_mistakes(self, trained: Trained) -> None:
        """Draw the first images that are misclassified, with predicted and true class."""
        seen = self.predictions(trained)
        wrong = np.flatnonzero(seen["label"] != seen["predicted"])
        shown, names = wrong[:MISTAKES], self.spec.label_names
        labels = [f"{names[seen['predicted'][i]]} / {names[seen['label'][i]]}" for i in shown]
        caption = trained.caption.plus(
            f"predicted / true, the first {len(shown)} of {len(wrong)} mistakes among "
            f"{len(seen['label'])} {self.config.evaluation.split} images"
        )
        save_labelled_grid(trained.workdir.figures / "mistakes.png", seen["image"][shown], labels, 8, caption)

    def draw_filters(self, trained: Trained) -> None:
        """Draw the weights of the first layer as images, each scaled by its largest weight; grey is 0."""
        kernel = np.asarray(trained.variables.params[NET]["stem"]["kernel"])
        if kernel.ndim == 2:  # dense: one weight a pixel
            kernel = kernel.reshape(*self.spec.image_shape, -1)
        filters = np.moveaxis(kernel, -1, 0)[:FILTERS]
        if filters.shape[-1] not in (1, 3):
            filters = filters.mean(-1, keepdims=True)
        filters = filters / np.maximum(np.abs(filters).max((1, 2, 3), keepdims=True), 1e-12)
        caption = trained.caption.plus(f"the first {len(filters)} of {kernel.shape[-1]} filters of the first layer")
        path = trained.workdir.figures / "filters.png"
        save_grid(path, np.asarray(images.to_uint8(filters)), 8, caption)
