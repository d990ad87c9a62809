"""Count the floating-point operations of matrix products and convolutions, the work that hardware is rated by."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


def product_flops(function: Callable, *arguments: Any) -> float:
    """Return the FLOPs of all matrix products and convolutions in `function(*arguments)`, which is only traced.

    A multiplication and an addition count 2, products with padding count, those with zeros between pixels do not;
    nothing else counts. It is meant for Flax's own layers, which do no product in vain.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def jaxpr_flops(jaxpr: Any) -> float:
    """Return the same for a traced function."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * size(equation.outvars[0]) * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            outputs = equation.invars[1].aval.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            taps = size(equation.invars[1]) / outputs / math.prod(equation.params["lhs_dilation"])
            total += 2 * size(equation.outvars[0]) * taps
        inner = sum(jaxpr_flops(each) for each in inside(equation.params))
        total += inner * equation.params.get("length", 1)  # of a scan
    return total


def size(variable: Any) -> int:
    """Return the number of elements."""
    return math.prod(variable.aval.shape)


def inside(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the traced functions among an equation's parameters."""
    for value in params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            each = getattr(each, "jaxpr", each)
            if hasattr(each, "eqns"):
                yield each
