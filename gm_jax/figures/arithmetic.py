"""Arithmetic with latents (Radford et al. 2016, section 6.3.2): smiling woman - neutral woman + neutral man.

An expression joins terms with + and - between spaces. A term is either sample numbers, chosen by hand: "3,17,42", or
words that a judge must find on a sample: "red circle"; its class "7" cannot be asked for, since 7 is a number. The
latent of a term is the mean of those of its samples, which in a row are alike in what no term names. A third kind of
term is a file with the latent of a real image: "me.npz".
"""

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError, nearest
from gm_jax.figures.caption import Caption
from gm_jax.figures.grid import save_labelled_grid
from gm_jax.figures.latent_file import read_latent
from gm_jax.judge import Judge

FILE = -1  # what stands for a sample's number where a term's latent is in a file
ROWS = 4  # answers from different samples, at most
EXAMPLES = 250  # samples that a term described in words averages, at most: of fewer, the mean is mostly noise


class Term(NamedTuple):
    """One term of an expression.

    Attributes:
        sign: 1 or -1.
        words: what its samples must show; () if they are numbered.
        numbers: of its samples; () if they are described.
        file: that holds its latent; its only number is then FILE.
    """

    sign: int
    words: tuple[str, ...]
    numbers: tuple[int, ...]
    file: str = ""

    def __str__(self) -> str:
        if self.file:
            return Path(self.file).stem
        return " ".join(self.words) or ",".join(map(str, self.numbers))


def parse(expression: str) -> list[Term]:
    """Return the terms of an expression such as "red circle - circle + 3,17".

    Raises:
        UserError: a sign without a term, or a term that is neither words nor numbers with commas between them.
    """
    terms, sign, words = [], 1, []
    for token in [*expression.split(), "+"]:
        if token not in ("+", "-"):
            words.append(token)
            continue
        if not words:
            raise UserError(f"sampling.arithmetic={expression!r}: a sign stands where a term should: try 'A - B + C'")
        only = words[0] if len(words) == 1 else ""
        if only.endswith(".npz"):
            terms.append(Term(sign, (), (FILE,), only))
        elif only and all(number.isdigit() for number in only.split(",")):
            terms.append(Term(sign, (), tuple(map(int, only.split(",")))))
        elif any("," in word for word in words):
            raise UserError(
                f"sampling.arithmetic={expression!r}: {' '.join(words)!r} is no term: write sample numbers as 3,17 and "
                "signs between spaces"
            )
        else:
            terms.append(Term(sign, tuple(words), ()))
        sign, words = (1 if token == "+" else -1), []
    return terms


def choose(
    terms: Sequence[Term], descriptions: Sequence[frozenset[str]], attributes: Sequence[Sequence[str]]
) -> list[tuple[np.ndarray, ...]]:
    """Return, for up to ROWS rows, the numbers of the samples that each term averages; one row if all are numbered.

    The samples of a row agree in the `attributes` that no term names, for the mean of squares in all places is a square
    in none. Different rows differ in those attributes as far as they can, and no described sample is in two of them.

    Raises:
        UserError: a number of no sample, a word that the judge does not know, or words that hold for no sample.
    """
    check_terms(terms, len(descriptions), [word for attribute in attributes for word in attribute])
    for term in terms:
        if not any(words.issuperset(term.words) for words in descriptions):
            raise UserError(
                f"none of {len(descriptions)} samples shows {str(term)!r}: train longer, or ask for something more "
                "common"
            )
    if all(term.numbers for term in terms):
        return [tuple(np.array(term.numbers) for term in terms)]
    named = {word for term in terms for word in term.words}
    rest = {word for attribute in attributes if named.isdisjoint(attribute) for word in attribute}
    alike = collections.defaultdict(list)
    for number, words in enumerate(descriptions):
        alike[words & rest].append(number)

    def found(term: Term, members: list[int]) -> Sequence[int]:
        return term.numbers or [i for i in members if descriptions[i].issuperset(term.words)]

    def rarest(kind: list[Sequence[int]]) -> int:
        return min(len(numbers) for term, numbers in zip(terms, kind, strict=True) if term.words)

    kinds = sorted(([found(term, members) for term in terms] for members in alike.values()), key=rarest, reverse=True)
    kinds = [kind for kind in kinds[:ROWS] if rarest(kind)]
    if not kinds:
        raise UserError(
            f"none of {len(descriptions)} samples differ in {', '.join(sorted(named))} alone: train longer, or add "
            "words that all terms share"
        )
    parts = -(-ROWS // len(kinds))
    rows = [
        tuple(
            np.array(numbers[part::parts][:EXAMPLES] if term.words else numbers)
            for term, numbers in zip(terms, kind, strict=True)
        )
        for part in range(parts)
        for kind in kinds
    ]
    return [row for row in rows if all(map(len, row))][:ROWS]


def check_terms(terms: Sequence[Term], n: int, known: Sequence[str]) -> None:
    """Refuse terms that name what there is not, with n samples and a judge that knows these words.

    Raises:
        UserError: a number of no sample, a word that the judge does not know, or no file with a latent.
    """
    for term in terms:
        if term.file:
            read_latent(term.file)
        for word in term.words:
            if word not in known:
                raise UserError(f"the judge does not know {word!r}{nearest(word, known)}: it knows {', '.join(known)}")
        if max(term.numbers, default=0) >= n:
            raise UserError(f"sampling.arithmetic names sample {max(term.numbers)}, but there are {n}, from 0")


def wanted(terms: Sequence[Term]) -> frozenset[str]:
    """Return the words that the answer should show: those added and not taken away, where every term is in words."""
    words = [word for term in terms if term.sign > 0 for word in term.words]
    for word in (word for term in terms if term.sign < 0 for word in term.words):
        if word in words:
            words.remove(word)
    return frozenset(words if all(term.words for term in terms) else ())


def to_shell(latents: np.ndarray) -> np.ndarray:
    """Scale latents [n, D] to length sqrt(D), near which Gaussian noise lies; means of several lie far inside."""
    return latents * np.sqrt(latents.shape[1]) / np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), 1e-12)


def solve(
    terms: Sequence[Term],
    latents: np.ndarray,
    descriptions: Sequence[frozenset[str]],
    attributes: Sequence[Sequence[str]],
) -> tuple[np.ndarray, list[tuple[np.ndarray, ...]]]:
    """Return the mean latent of every term and, last, the answer, [rows, terms + 1, D], and whose means they are.

    `latents` [n, D] are those of the samples to choose from, which `descriptions` describe. If a file has a latent for
    every layer, [layers, D], so has the result.

    Raises:
        UserError: a file's latent is of another size.
    """

    def latent(term: Term, numbers: np.ndarray) -> np.ndarray:
        return read_latent(term.file, latents.shape[1]) if term.file else latents[numbers].mean(0)

    choices = choose(terms, descriptions, attributes)
    flat = [latent(term, own) for row in choices for term, own in zip(terms, row, strict=True)]
    means = np.stack(np.broadcast_arrays(*flat))
    means = means.reshape(len(choices), len(terms), *means.shape[1:])
    answers = np.einsum("t,rt...->r...", np.array([term.sign for term in terms]), means)
    return np.concatenate([means, answers[:, None]], axis=1), choices


def save_arithmetic(
    path: Path,
    expression: str,
    latents: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    judge: Judge | None,
    caption: Caption,
    shell: bool = True,
) -> None:
    """Draw the terms and the answer of an expression, a row for each choice of samples, as a PNG.

    `latents` [n, D] are those of the samples to choose from, `decode` maps latents [n, D] to images uint8
    [n, H, W, C], and `judge`, which may be None where no term is in words, says what images show. With `shell`, latents
    are Gaussian noise, and means of them are put back `to_shell`.
    """
    terms = parse(expression)
    known = judge.words if judge else ()
    descriptions = judge.describe(decode(latents)) if judge else [frozenset()] * len(latents)
    solved, choices = solve(terms, latents, descriptions, judge.attributes if judge else ())
    solved = solved.reshape(-1, *solved.shape[2:])
    images = decode(to_shell(solved) if shell else solved)
    columns = len(terms) + 1
    said = judge.describe(images[len(terms) :: columns]) if judge else [frozenset()] * len(choices)
    labels = []
    for row, words in zip(choices, said, strict=True):
        labels += [f"{'-+'[term.sign > 0]} {term} ({len(own)})" for term, own in zip(terms, row, strict=True)]
        labels.append(" ".join(["=", *in_order(words, known)]))
    caption = caption.plus(f"{expression}, means of so many samples")
    goal = wanted(terms)
    if goal:
        hits = sum(goal <= words for words in said)
        words = " ".join(in_order(goal, known))
        caption = caption.plus(f"judged {words} in {hits} of {len(said)} rows by {judge.name}")
    save_labelled_grid(path, images, labels, columns, caption)


def in_order(words: frozenset[str], known: Sequence[str]) -> list[str]:
    """Return the words in the judge's order."""
    return [word for word in known if word in words]
