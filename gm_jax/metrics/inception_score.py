"""The Inception score (Salimans et al. 2016): are samples certain of their class, and all classes there?"""

import numpy as np

SPLITS = 10


def inception_score(logits: np.ndarray, splits: int = SPLITS) -> tuple[float, float]:
    """Return mean and standard deviation of exp(E KL(p(y|x) || p(y))) over consecutive splits of logits [n, classes].

    At best it is the number of classes, at worst 1; the data are not looked at.
    """
    logits = np.asarray(logits, np.float64)
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    n, scores = len(log_p), []
    splits = min(splits, n)
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]  # the borders of Salimans et al.'s code
        p = np.exp(part)
        marginal = p.mean(0)
        log_marginal = np.log(np.where(marginal > 0, marginal, 1.0))
        scores.append(np.exp(np.mean(np.sum(p * (part - log_marginal), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))
