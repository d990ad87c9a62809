"""The results of benchmarks.compare as text: a line while it runs, Markdown tables at the end."""

from typing import Any

import numpy as np

from benchmarks.timing import QUIET

SLOWER = 1.05  # times as long is a regression
WAYS = ("Flax", "Flax, scanned", "PyTorch", "PyTorch, compiled")


def duration(seconds: float) -> str:
    """Return seconds with three digits, in the unit that suits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def share(row: dict[str, Any]) -> str:
    """Return gm_jax's achieved fraction of the machine's matrix-product rate."""
    return f"{row['share_of_product_rate']:.1%}" if row["flops"] else "-"


def images_a_second(row: dict[str, Any]) -> str:
    """Return how many images of the batch there are for each second of gm_jax's step."""
    return f"{row['batch'] / row['ways']['gm_jax']['seconds']:,.0f}"


def own_cell(row: dict[str, Any]) -> str:
    """Return gm_jax's median time with its smallest and largest value."""
    way = row["ways"]["gm_jax"]
    others = max(way.get("others") or [0.0])
    disturbed = f"; disturbed: others used {others:.0%} of the machine" if others > QUIET else ""
    return (
        f"{duration(way['seconds'])} ({duration(way['low'])} to {duration(way['high'])}; k = {way['steps_per_call']}"
        f"{disturbed})"
    )


def peer_cell(row: dict[str, Any], name: str) -> str:
    """Return a peer's median time and how many times gm_jax's it is, with its spread; or why there is none."""
    way, ratio = row["ways"].get(name), row["ratios"].get(name)
    if way is None:
        return ""
    if ratio is None:
        if way["estimate"] is None:
            return ""
        own = row["ways"]["gm_jax"]["seconds"]
        return f"about {duration(way['estimate'])}, **{way['estimate'] / own:.0f}×** ({way['note']})"
    count = f", n = {len(way['rounds'])}" if len(way["rounds"]) < len(row["ways"]["gm_jax"]["rounds"]) else ""
    spread = f"{ratio['low']:.2f} to {ratio['high']:.2f}{count}"
    return f"{duration(way['seconds'])}, **{ratio['median']:.2f}×** ({spread})"


def line(row: dict[str, Any]) -> str:
    """Return a row as one line."""
    cells = [f"{name}: {cell}" for name in WAYS if (cell := peer_cell(row, name))]
    own = f"gm_jax: {own_cell(row)}, {share(row)} of the product rate, {images_a_second(row)} images/s"
    return f"{row['experiment']} {row['what']}, batch {row['batch']} | " + " | ".join([own, *cells]).replace("*", "")


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def markdown(results: dict[str, Any]) -> str:
    """Return all tables, with the machine they were measured on and the reasons for empty columns."""
    rows, about = results["rows"], results["about"]
    steps = table(
        ["", "batch", "gm_jax", *WAYS, "of the product rate", "images/s"],
        [
            [
                f"{row['experiment']}, {row['what']}",
                str(row["batch"]),
                own_cell(row),
                *(peer_cell(row, name) for name in WAYS),
                share(row),
                images_a_second(row),
            ]
            for row in rows
        ],
    )
    parts = [describe(about, rows), steps, *missing(rows), "Compiling gm_jax's training step:", compilation(rows)]
    if results["dispatch"]:
        parts += ["gm_jax, training images a second by steps in a call:", dispatch(results["dispatch"])]
    return "\n\n".join(parts) + "\n"


def compilation(rows: list[dict[str, Any]]) -> str:
    """Return the table of what it takes to compile the training steps."""
    cells = [
        [row["experiment"], f"{row['parameters']:,}", *(f"{s:.2f} s" for s in row["compile_seconds"].values())]
        for row in rows
        if "compile_seconds" in row
    ]
    return table(["", "parameters", "trace", "compile, cold", "compile, from the cache"], cells)


def dispatch(rows: list[dict[str, Any]]) -> str:
    """Return the table of images a second by steps in a call."""
    cells = [[row["experiment"], str(row["batch"]), *map(rates, row["images_per_second"].values())] for row in rows]
    return table(["", "batch", *rows[0]["images_per_second"]], cells)


def rates(values: list[float]) -> str:
    """Return the median and the range of rates."""
    return f"{np.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def describe(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return one sentence on the machine."""
    rate = np.median([row["product_rate"] for row in rows])
    cpu = about["cpu"]
    named = f"{cpu['model']}, {cpu['caches']}" if cpu else about["machine"]
    return (
        f"{about['devices']}, {about['cpu_cores']} CPU cores of {named}; JAX {about['jax']}, Flax {about['flax']}, "
        f"PyTorch {about.get('torch', '(not installed)')}; {about['rounds']} rounds; a float32 matrix product runs at "
        f"{rate / 1e9:,.0f} GFLOP/s."
    )


def regressions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for each row of `now` that has become slower than all rounds of `before`, and by SLOWER at least.

    Times are counted in large matrix products of the same rounds, so that a faster or a slower hour counts for nothing.
    """
    known = {(row["experiment"], row["what"]): row for row in before["rows"]}
    found = []
    for row in now["rows"]:
        old = known.get((row["experiment"], row["what"]))
        if old is None:
            continue
        (low, middle), high = (cost(row, name) for name in ("low", "seconds")), cost(old, "high")
        if low > high and middle > SLOWER * cost(old, "seconds"):
            times = middle / cost(old, "seconds")
            found.append(f"{row['experiment']} {row['what']}: {times:.2f} times as long as before, beyond its spread")
    return found


def cost(row: dict[str, Any], name: str) -> float:
    """Return a time of gm_jax's as floating-point operations that a matrix product would do in it."""
    return row["ways"]["gm_jax"][name] * row["product_rate"]


def missing(rows: list[dict[str, Any]]) -> list[str]:
    """Return one line for each reason why a cell is empty."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name, way in row["ways"].items():
            if way["seconds"] is None and way["estimate"] is None:
                reasons.setdefault(f"{name}: {way['note']}", []).append(f"{row['experiment']} {row['what']}")
    return [f"Empty cells: {reason} ({', '.join(cells)})." for reason, cells in reasons.items()]
