"""Every place of a source where one small change should make it worse, found in its syntax tree."""

import ast
import copy
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAIRS = (
    "Add Sub, Mult Div, Mult FloorDiv, And Or, Lt LtE, Gt GtE, Lt Gt, LtE GtE, Eq NotEq, In NotIn, Is IsNot, "
    "mean sum, minimum maximum, min max, argmin argmax, floor ceil, any all, zeros ones, sin cos"
)
OTHERS = {}  # name of an operator or a function: what may take its place
for first, second in map(str.split, PAIRS.split(", ")):
    OTHERS.setdefault(first, []).append(second)
    OTHERS.setdefault(second, []).append(first)
COMMUTATIVE = {"minimum", "maximum", "min", "max", "allclose", "logical_and", "logical_or"}
KEPT = {"int", "float", "str", "bool", "len", "range", "list", "tuple", "dict", "set", "sorted", "zip", "enumerate"}
KEPT |= {"isinstance", "getattr", "next", "iter", "super", "asarray", "jit"}  # f(x) -> x is the same, or fails at once
TEXTS = {"caption", "title", "message", "near", "nearest", "print", "logging", "warnings"}  # what only makes texts
TINY = 1e-4  # a float below keeps a denominator from 0: a factor changes nothing there, its absence does


class Mutation(NamedTuple):
    """Put `after` in the place of the bytes start ... end of a file.

    Attributes:
        first, last: the lines that run when the place does.
        imported: the place runs when its module is imported, not when a function is called.
    """

    path: str
    line: int
    first: int
    last: int
    imported: bool
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {self.before} -> {self.after}"

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def but(node: ast.AST, **fields) -> ast.AST:
    """Return the node with other fields."""
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def name_of(node: ast.AST) -> str:
    """Return the last name of a dotted one."""
    return getattr(node, "attr", getattr(node, "id", ""))


def root_of(node: ast.AST) -> str:
    """Return the first name of a dotted one."""
    return root_of(node.value) if isinstance(node, ast.Attribute) else name_of(node)


def names_in(*nodes: ast.AST) -> set[str]:
    """Return the variables that nodes use or assign."""
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def others(node: ast.operator) -> list[ast.operator]:
    """Return the operators that may take another's place."""
    return [getattr(ast, name)() for name in OTHERS.get(type(node).__name__, ())]


def is_text(*nodes: ast.AST) -> bool:
    """Tell whether any is a text, or a list or tuple: `+` joins them."""
    kinds = (ast.JoinedStr, ast.List, ast.Tuple)
    return any(isinstance(node, kinds) or isinstance(getattr(node, "value", None), str) for node in nodes)


def changes(node: ast.AST, modules: set[str]) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the places in a node, itself or a child, each with what may stand there instead."""
    match node:
        case ast.BinOp(left, op, right) if not is_text(left, right):
            yield from ((node, but(node, op=other)) for other in others(op))
            if isinstance(op, (ast.Pow, ast.Mod)):
                yield node, left
        case ast.BoolOp(op) | ast.AugAssign(op=op):
            yield from ((node, but(node, op=other)) for other in others(op))
            if isinstance(node, ast.AugAssign):
                yield node, ast.Pass()
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            if not isinstance(getattr(operand, "value", None), int):  # axis 1 may be axis -1; see -2 below
                yield node, operand
        case ast.Compare(_, ops):
            for i, op in enumerate(ops):
                yield from ((node, but(node, ops=[*ops[:i], other, *ops[i + 1 :]])) for other in others(op))
        case ast.Constant(bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(int(value)):
            yield node, ast.Constant(value + 1)
        case ast.Constant(float(value)):
            values = (0.7 * value, 100.0 * value) if value >= TINY else (float(value == 0),)
            yield from ((node, ast.Constant(other)) for other in values)
        case ast.IfExp(_, body, orelse):
            yield node, but(node, body=orelse, orelse=body)
        case ast.If(test):
            yield test, ast.UnaryOp(ast.Not(), test)
        case ast.Slice(lower, upper):
            yield from ((end, ast.BinOp(end, ast.Sub(), ast.Constant(1))) for end in (lower, upper) if end)
        case ast.Return(ast.BinOp(left, _, right) as value) if not is_text(left, right):
            yield value, ast.UnaryOp(ast.USub(), value)
        case ast.Expr(ast.Call()):
            yield node, ast.Pass()
        case ast.Assign(targets, value):  # not where the name would be missing: every test sees that
            if names_in(value) & names_in(*targets) or isinstance(targets[0], (ast.Attribute, ast.Subscript)):
                yield node, ast.Pass()
        case ast.Call():
            yield from changes_of_call(node, modules)


def changes_of_call(call: ast.Call, modules: set[str]) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield what the call is applied to, the call with arguments swapped or dropped, and the opposite function."""
    func, args, keywords = call.func, call.args, call.keywords
    method = isinstance(func, ast.Attribute) and root_of(func) not in modules
    for inner in [func.value] if method else args[:1]:
        if name_of(func) not in KEPT and not is_text(inner) and not isinstance(inner, ast.Starred):
            yield call, inner
    for i, (a, b) in enumerate(itertools.pairwise(args)):
        if ast.dump(a) != ast.dump(b) and name_of(func) not in COMMUTATIVE:
            yield call, but(call, args=[*args[:i], b, a, *args[i + 2 :]])
    for i, keyword in enumerate(keywords):
        if keyword.arg not in {None, *TEXTS}:
            yield call, but(call, keywords=keywords[:i] + keywords[i + 1 :])
    for name in OTHERS.get(name_of(func), ()):
        yield func, but(func, **{"attr" if isinstance(func, ast.Attribute) else "id": name})


def is_left_out(node: ast.AST) -> bool:
    """Tell whether what a node does is only text, type or import."""
    match node:
        case ast.keyword(arg):
            return arg in TEXTS
        case ast.Assign([target]):
            return name_of(target) in {*TEXTS, "__all__"}
        case ast.Call(func):
            return bool({name_of(func), root_of(func)} & TEXTS)
    return isinstance(node, (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom, ast.arg))


def visit(node: ast.AST, lines: tuple[int, int], imported: bool) -> Iterator[tuple[ast.AST, tuple[int, int], bool]]:
    """Walk the code whose change matters: (node, lines that run with it, whether at import)."""
    if is_left_out(node):
        return
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)  # of a compound statement, whose own lines are those before
        lines = node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
    yield node, lines, imported
    for field, value in ast.iter_fields(node):
        called = isinstance(node, (ast.FunctionDef, ast.Lambda)) and field == "body"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in ("decorator_list", "annotation", "returns", "bases"):
                inner = (child.lineno, child.end_lineno) if called else lines
                yield from visit(child, inner, imported and not called)


def find_mutations(root: Path, path: str) -> list[Mutation]:
    """Return all changes of a file; a place may have several."""
    source = (root / path).read_bytes()
    begins = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
    tree, found = ast.parse(source), []
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    modules = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names} | {"self"}
    for node, lines, imported in visit(tree, (1, 1), True):
        for place, new in changes(node, modules):
            start = begins[place.lineno - 1] + place.col_offset
            end = begins[place.end_lineno - 1] + place.end_col_offset
            before, after = " ".join(source[start:end].decode().split()), ast.unparse(new)
            if isinstance(new, (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Lambda)):
                after = f"({after})"
            found.append(Mutation(path, place.lineno, *lines, imported, start, end, before, after))
    return found


def draw(mutations: list[Mutation], n: int, seed: int) -> list[Mutation]:
    """Draw n places, and one of the changes of each."""
    chance, places = random.Random(seed), {}
    for mutation in mutations:
        places.setdefault((mutation.path, mutation.start, mutation.end), []).append(mutation)
    drawn = chance.sample(sorted(places), min(n, len(places)))
    return [chance.choice(places[place]) for place in drawn]
