"""The ranges of the Gaussian mixture's keys."""

RANGES = {
    "model.components": "[1, inf)",
    "model.dimensions": "[1, inf)",
    "model.iterations": "[1, inf)",
    "model.tolerance": "[0, inf)",
}
