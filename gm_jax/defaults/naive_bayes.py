"""The ranges of naive Bayes' keys."""

RANGES = {"model.smoothing": "(0, inf)"}  # no pixel is certain
