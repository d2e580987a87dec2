"""What the source of a Data-Juicer filter tells, without building it or loading a model.

Data-Juicer has no table of which operator writes which statistic; its own discovery runs the
operators. Their sources, however, follow one convention (``StatsKeys.<name>`` in
``compute_stats_*``, ``self.<x>_key`` for what is read, ``process_*`` for the decision), which is
read here with ``ast``.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from djsandbox_ray.stats.datajuicer import load

_COMPUTE = ("compute_stats_batched", "compute_stats_single")
_DECIDE = ("process_batched", "process_single")
# Keys that hold texts or records, not numbers.
_NOT_NUMBERS = ("lang", "_record", "_tags", "_usage")
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Parameters of Data-Juicer's base class that only say how a value is compared with a threshold.
DECISION_BASE = frozenset({"min_closed_interval", "max_closed_interval", "reversed_range"})


@cache
def lineage(cls: type) -> tuple[type, ...]:
    """Return the class and its bases below Data-Juicer's ``Filter``, nearest first."""
    base = load().base
    return tuple(k for k in cls.__mro__ if issubclass(k, base) and k is not base)


@cache
def _tree(cls: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


def _functions(cls: type) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(_tree(cls)) if isinstance(node, ast.FunctionDef)}


def statistic_keys(cls: type) -> tuple[str, ...]:
    """Return the numeric statistics that a filter's ``compute_stats_*`` names, sorted."""
    from data_juicer.utils.constant import StatsKeysConstant

    keys = set()
    for name in _COMPUTE:
        owner = next((k for k in lineage(cls) if name in vars(k)), None)
        if owner is None:
            continue
        for node in ast.walk(_functions(owner)[name]):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "StatsKeys":
                keys.add(str(getattr(StatsKeysConstant, node.attr)))
    return tuple(sorted(key for key in keys if not key.endswith(_NOT_NUMBERS)))


def parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Return the parameters that a filter takes by name, without those of Data-Juicer's runner.

    A class with ``**kwargs`` passes them on to its base, so the bases' parameters count too; where
    both name one, the class's own default holds.
    """
    found: dict[str, inspect.Parameter] = {}
    for k in lineage(cls):
        if "__init__" not in vars(k):
            continue
        signature = inspect.signature(vars(k)["__init__"]).parameters
        for name, parameter in signature.items():
            if name != "self" and parameter.kind in _BY_NAME:
                found.setdefault(name, parameter)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.values()):
            break
    own_runner = runner_parameters()
    return {name: parameter for name, parameter in found.items() if name not in own_runner}


def runner_parameters() -> frozenset[str]:
    """Return the parameters that say how Data-Juicer runs an operator and what it reads."""
    base: dict[str, Any] = load().base._BASE_PARAMS  # type: ignore[attr-defined]
    return frozenset(base) - DECISION_BASE


def decision_parameters(cls: type) -> frozenset[str]:
    """Return the parameters that influence which samples a filter keeps, but not its statistics.

    A parameter is one of these only if ``__init__`` does nothing with it but check it or store it
    in attributes that are read in ``process_*`` alone. Whatever is less plain is an influence.
    """
    elsewhere = _attributes_read_outside_decision(cls)
    names = set()
    for name in parameters(cls):
        owner = next((k for k in lineage(cls) if name in own_parameters(k)), None)
        if owner is not None and _only_stored(_functions(owner)["__init__"], name, elsewhere):
            names.add(name)
    return frozenset(names) | DECISION_BASE


def own_parameters(cls: type) -> set[str]:
    """Return the names in the signature of the class's own ``__init__``, if it has one."""
    init = vars(cls).get("__init__")
    return set(inspect.signature(init).parameters) if init else set()


def _attributes_read_outside_decision(cls: type) -> set[str]:
    read = set()
    for k in lineage(cls):
        for name, function in _functions(k).items():
            if name in _DECIDE:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    read.add(node.attr)
    return read


def _only_stored(init: ast.FunctionDef, name: str, elsewhere: set[str]) -> bool:
    for statement in init.body:
        if not any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(statement)):
            continue
        if isinstance(statement, ast.If) and not statement.orelse:
            if all(isinstance(inner, ast.Raise) for inner in statement.body):
                continue  # a check of the value
            return False
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            return False
        target = statement.targets[0]
        if not isinstance(target, ast.Attribute) or target.attr in elsewhere:
            return False
    return True


def reads(cls: type) -> frozenset[str]:
    """Return what a filter reads of a sample: some of text, image, video, audio."""
    sources = " ".join(ast.unparse(_tree(k)) for k in lineage(cls))
    kinds = ("text", "image", "video", "audio")
    return frozenset(kind for kind in kinds if f"self.{kind}_key" in sources) or frozenset({"text"})


@dataclass(frozen=True)
class Thresholded:
    """The parameters that a filter compares a value with: what is least and greatest of it."""

    low: str | None
    high: str | None


@cache
def thresholds(cls: type) -> tuple[Thresholded, ...]:
    """Return what a filter compares values with: arguments of ``get_keep_boolean``, by name.

    Returns:
        Each pair once; none of a filter that decides by something else.
    """
    known = parameters(cls)
    owner = next((k for k in lineage(cls) if not {*_DECIDE}.isdisjoint(vars(k))), None)
    decisions = [_functions(owner)[n] for n in _DECIDE if n in _functions(owner)] if owner else []
    found = []
    for node in (node for function in decisions for node in ast.walk(function)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.get_keep_boolean":
            named = [ast.unparse(bound).removeprefix("self.") for bound in node.args[1:]]
            sides = [name if name in known else None for name in (*named, "", "")]
            found.append(Thresholded(sides[0], sides[1]))
    return tuple(dict.fromkeys(found))


def compared_each(cls: type) -> frozenset[str]:
    """Return the kinds of media of which a filter compares each one of a sample: image, video.

    It writes a list and keeps the sample if any or all of it pass, or if the list is empty.
    """
    # Texts may have several chunks or entities, too, but hardly none.
    return reads(cls) & {"image", "video"} if "any_or_all" in parameters(cls) else frozenset()


def needs_tokens(cls: type) -> bool:
    """Say whether a filter finds the images of a text by Data-Juicer's special tokens."""
    return any("SpecialTokens" in vars(module) for module in modules(cls))


def takes_context(cls: type) -> bool:
    """Say whether a filter shares intermediate values with others (decoded images, words)."""
    base = load().base
    batched: Any = cls.compute_stats_batched  # type: ignore[attr-defined]
    overridden = batched is not base.compute_stats_batched  # type: ignore[attr-defined]
    single: Any = cls.compute_stats_single  # type: ignore[attr-defined]
    return "context" in inspect.signature(batched if overridden else single).parameters


def modules(cls: type) -> tuple[ModuleType, ...]:
    """Return the modules that define a filter and its bases."""
    return tuple(sys.modules[k.__module__] for k in lineage(cls))


def prepared_models(cls: type) -> tuple[str, ...]:
    """Return the kinds of model that ``__init__`` always prepares (not those under an ``if``)."""
    owner = next((k for k in lineage(cls) if "__init__" in vars(k)), None)
    if owner is None:
        return ()
    kinds = []
    for statement in _functions(owner)["__init__"].body:
        if isinstance(statement, ast.If):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "prepare_model":
                given = {k.arg: k.value for k in node.keywords}.get("model_type")
                kind = given or (node.args[0] if node.args else None)
                if isinstance(kind, ast.Constant):
                    kinds.append(str(kind.value))
    return tuple(kinds)
