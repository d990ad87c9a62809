"""The loss of classifiers."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Return -log p(label) in nats for logits [B, classes] and labels int32 [B]: [B].

    `smoothing` gives that share of the target to all classes alike (Szegedy et al. 2016, section 7).
    """
    log_p = jax.nn.log_softmax(logits)
    loss = -jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
    return (1.0 - smoothing) * loss - smoothing * jnp.mean(log_p, axis=-1) if smoothing else loss
