"""Operators as the user gives them: the syntax of a Data-Juicer ``process`` list, checked whole.

Data-Juicer itself ignores parameters that it does not know. Here every error is found before any
model is loaded, and all of them are reported at once, each with its position in the YAML. What an
operator writes is named by Data-Juicer's key, with what tells two operators apart.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.identity import canonical, content_id
from djsandbox_ray.settings.code import with_code
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.model_files import BY_PATH, found_by_name, read_off_path
from djsandbox_ray.stats.models import content_digest, folder_at, is_there, is_url, may_be_folder

READABLE = frozenset({"text", "image", "video"})
"""What a sample table may hold."""
OWN_DEFAULTS: dict[str, Any] = {"video_backend": "av"}
"""Parameters that have another default here than in Data-Juicer, by name: its own one needs a
program that no package brings. They are written out as if the user had given them."""
_OF_FIELDS = frozenset({"frame_field", "if_output_optical_flow", "optical_flow_key"})
"""Parameters that are about fields of a sample which the sample table does not have."""
SECOND = "text_key_second"
"""Parameter that names the field of the text that a sample's text is compared with."""
_META = "meta."
"""What that field begins with: it is one of the meta data."""
_IMAGES = {"image_pair_similarity_filter": 2}
"""Operators that compare the images of a sample with each other, and how many there have to be."""
REFERENCE = "${scorer}"
"""What stands in an operator's parameters for the folder of the trained scorer."""


@dataclass(frozen=True)
class OperatorSpec:
    """A Data-Juicer filter with its parameters, as the configuration names it."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def filter_class(self) -> type:
        """Data-Juicer's class."""
        return load().filters[self.name]

    @property
    def keys(self) -> tuple[str, ...]:
        """The statistics that the operator writes, by Data-Juicer's names."""
        keys = inspection.statistic_keys(self.filter_class)
        if self.name == "alphanumeric_filter":  # the one filter whose statistic a parameter chooses
            wanted = "alpha_token_ratio" if self.params.get("tokenization") else "alnum_ratio"
            return tuple(key for key in keys if key == wanted)
        return keys

    @property
    def second(self) -> str | None:
        """The field of the text that a sample's text is compared with, such as ``meta.title``."""
        named: str | None = self.params.get(SECOND)
        return named

    @property
    def images(self) -> int | None:
        """How many images a sample has to have; None where any number will do."""
        return _IMAGES.get(self.name)

    @property
    def values(self) -> dict[str, Any]:
        """All parameters: those that are given, and the others by default."""
        known = inspection.parameters(self.filter_class)
        return {name: self.params.get(name, known[name].default) for name in known}

    @property
    def model_kinds(self) -> tuple[str, ...]:
        """Data-Juicer's kinds of the models that the operator loads with these parameters."""
        kinds, values = list(inspection.prepared_models(self.filter_class)), self.values
        if values.get("tokenization"):
            kinds.append("sentencepiece" if "lang" in values else "huggingface")
        if "api_or_hf_model" in values:
            kinds.append("huggingface" if values.get("is_hf_model") else "api")
        if "languages_to_detect" in values:
            kinds.append("easyocr")
        return tuple(kinds)

    @property
    def asks(self) -> bool:
        """Whether its model is behind an API."""
        return "api" in self.model_kinds

    @property
    def influences(self) -> dict[str, Any]:
        """The parameters that determine the statistics: not the thresholds, not the defaults."""
        known = inspection.parameters(self.filter_class)
        decision = inspection.decision_parameters(self.filter_class)
        return {
            name: value
            for name, value in sorted(self.params.items())
            if name not in decision and value != known[name].default
        }


class BadProcess(BadInput):
    """A ``process`` list that cannot be used.

    Attributes:
        problems: one pair (position such as ``operators[2].text_length_filter.min``, message) each.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{where}: {what}" for where, what in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


def parse_process(process: Any, *, where: str = "operators") -> tuple[OperatorSpec, ...]:
    """Read and check a ``process`` list: each item a filter's name, or ``{name: parameters}``.

    Args:
        process: what YAML gave.
        where: position of the list in the configuration, for messages.

    Raises:
        BadProcess: unknown operators or parameters, values of a wrong type, operators that write no
            statistic or read what the table lacks, repetitions; all of them at once.
    """
    if not isinstance(process, list) or not process:
        raise BadProcess([(where, "a list of at least one Data-Juicer filter is needed")])
    specs: list[OperatorSpec] = []
    problems: list[tuple[str, str]] = []
    seen: dict[bytes, int] = {}
    for index, item in enumerate(process):
        here = f"{where}[{index}]"
        spec, found = _parse_item(item, here)
        problems += found
        if spec is None or found:
            continue
        first = seen.setdefault(canonical([spec.name, spec.influences]), index)
        if first != index:
            same = f"gives the same statistics as {where}[{first}] (thresholds do not change them)"
            problems.append((f"{here}.{spec.name}", same))
        specs.append(spec)
    if problems:
        raise BadProcess(problems)
    return tuple(specs)


def operator_id(spec: OperatorSpec, models: str | None = None) -> str:
    """Return the id of what an operator computes, the same wherever its models lie.

    It covers the name, the parameters that influence the statistics (a file or folder, local or at
    a URL, by its content), the content of the model files that it finds by name, what a path itself
    decides, and Data-Juicer's version; of a filter that is not its own, the code.

    Args:
        spec: the operator.
        models: the folder of model files, ``statistics.models``.
    """
    params = {name: _by_content(name, value) for name, value in spec.influences.items()}
    scorer = spec.params.get(BY_PATH)
    if isinstance(scorer, str) and (read := read_off_path(scorer, models)):
        params[BY_PATH] = [params[BY_PATH], read]
    name = with_code(spec.name, spec.filter_class)
    found = found_by_name(spec.model_kinds, spec.values, models)
    files = {name: content_digest(path) for name, path in sorted(found.items())}
    return content_id("op", name, params, load().version, *([files] if files else []))


def resolve_paths(spec: OperatorSpec) -> OperatorSpec:
    """Make the local paths among the parameters absolute, for processes that run elsewhere."""
    params = {k: str(Path(v).resolve()) if _is_local(k, v) else v for k, v in spec.params.items()}
    return OperatorSpec(spec.name, params)


def _is_local(name: str, value: Any) -> bool:
    """Say whether a parameter names a file or folder that is here.

    A word such as the language ``en`` is no path, even where a folder happens to have that name.
    """
    if not isinstance(value, str) or not 0 < len(value) < 4096:
        return False
    return ("/" in value or may_be_folder(name)) and is_there(value)


def _by_content(name: str, value: Any) -> Any:
    if is_url(name, value):
        with folder_at(value) as folder:
            return {"content": content_digest(folder)}
    return {"content": content_digest(Path(value))} if _is_local(name, value) else value


def _parse_item(item: Any, here: str) -> tuple[OperatorSpec | None, list[tuple[str, str]]]:
    if isinstance(item, str):
        item = {item: None}
    if not isinstance(item, dict) or len(item) != 1:
        return None, [(here, "an operator is a name, or one 'name: {parameter: value}'")]
    name, params = next(iter(item.items()))
    params = {} if params is None else params
    problem = _name_problem(name)
    if problem:
        return None, [(here, problem)]
    here = f"{here}.{name}"
    if not isinstance(params, dict):
        return None, [(here, f"parameters must be a mapping, not {type(params).__name__}")]
    spec = written_out(name, params)
    problems = [
        (f"{here}.{key}", problem)
        for key, value in params.items()
        if (problem := _parameter_problem(spec.filter_class, key, value))
    ]
    if SECOND in inspection.parameters(spec.filter_class) and spec.second is None:
        problems.append((f"{here}.{SECOND}", "compares a text with another one: " + _NEEDED))
    return spec, problems


def meta_text(meta: str, field: str) -> str:
    """Return the text in a field of a sample's meta data; an empty one where there is none.

    As Data-Juicer does, a key with dots in it is looked for before an object in an object.

    Args:
        meta: a JSON object.
        field: ``meta.`` and its key, or several with dots between them.
    """
    value: Any = json.loads(meta)
    rest = field.removeprefix(_META)
    while isinstance(value, dict) and rest not in value and "." in rest:
        key, _, rest = rest.partition(".")
        value = value.get(key)
    found = value.get(rest) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def written_out(name: str, params: Mapping[str, Any]) -> OperatorSpec:
    """Return an operator with the defaults that are ours."""
    known = inspection.parameters(load().filters[name])
    own = {key: value for key, value in OWN_DEFAULTS.items() if key in known}
    return OperatorSpec(name, {**own, **params})


def _name_problem(name: Any) -> str | None:
    dj = load()
    if name in dj.others:
        return f"{name!r} is not a filter; only filters compute statistics"
    if not isinstance(name, str) or name not in dj.filters:
        hint = nearest(str(name), dj.filters)
        return f"unknown operator {name!r}{hint} ('djsandbox operators' lists them)"
    return unusable(name)


def unusable(name: str) -> str | None:
    """Return why a filter cannot be probed on any sample table, or None if it can."""
    dj = load()
    cls = dj.filters[name]
    if name in dj.attribution:
        return "compares with a validation set, which Data-Juicer takes from Python code only"
    if not inspection.statistic_keys(cls):
        return "writes no statistic, so there is nothing to cut pools by"
    if foreign := sorted(inspection.reads(cls) - READABLE):
        return f"reads {' and '.join(foreign)}, which the sample table does not hold"
    return None


def lacking(spec: OperatorSpec, modalities: Collection[str], *, pairs: bool) -> list[str]:
    """Return what an operator reads that samples of these modalities do not have, sorted.

    Args:
        spec: the operator.
        modalities: some of text, image, video.
        pairs: whether each sample has one image and no more.
    """
    absent = sorted(inspection.reads(spec.filter_class) - {*modalities})
    return ["a second image"] if pairs and spec.images == 2 and not absent else absent


def _parameter_problem(cls: type, name: Any, value: Any) -> str | None:
    known = inspection.parameters(cls)
    if name in inspection.DECISION_BASE:
        return None if isinstance(value, bool) else f"true or false is needed, not {value!r}"
    if name in inspection.runner_parameters():
        return "says how Data-Juicer would run the operator; here the section 'statistics' does"
    if name not in known:
        listed = ", ".join(known) or "none"
        return f"unknown parameter{nearest(str(name), known)} (known: {listed})"
    if value == known[name].default:
        return None
    if name == SECOND:
        named = isinstance(value, str) and value.startswith(_META) and all(value.split("."))
        return None if named else f"{_NEEDED}, not {value!r}"
    if name in _OF_FIELDS:
        return "is of a field beside text and media, which the sample table does not have"
    return _type_problem(cls, name, value)


_NEEDED = "a field of the samples' meta data is needed, such as meta.title"


def _type_problem(cls: type, name: str, value: Any) -> str | None:
    """Check a value against the annotation of the parameter, where pydantic understands it."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return f"not a plain value: {value!r}"
    owner = next(k for k in inspection.lineage(cls) if name in inspection.own_parameters(k))
    try:
        hints = get_type_hints(owner.__init__, include_extras=True)  # type: ignore[misc]
        adapter: TypeAdapter[Any] = TypeAdapter(hints[name])
    except (KeyError, NameError, TypeError, PydanticUserError):
        return None  # not annotated, or with a type of Data-Juicer's own
    try:
        adapter.validate_json(text, strict=True)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']}, not {value!r}"
    return None


def statistic_names(specs: Sequence[OperatorSpec]) -> tuple[tuple[str, ...], ...]:
    """Return a unique name per operator and key.

    A name is the key; where several operators write one key, it is ``key[parameter=value]`` with
    the parameters in which they differ, or ``key[operator]`` if they are of different classes.
    """
    writers: dict[str, list[OperatorSpec]] = defaultdict(list)
    for spec in specs:
        for key in spec.keys:
            writers[key].append(spec)
    return tuple(tuple(_name(key, spec, writers[key]) for key in spec.keys) for spec in specs)


def _name(key: str, spec: OperatorSpec, writers: list[OperatorSpec]) -> str:
    if len(writers) == 1:
        return key
    same = [other for other in writers if other.name == spec.name]
    parts = [spec.name] if len(same) < len(writers) else []
    if len(same) > 1:
        given = sorted({name for other in same for name in other.influences})
        rows = {name: [_value(other, name) for other in same] for name in given}
        short = {name: [_short(value) for value in values] for name, values in rows.items()}
        mine = same.index(spec)
        for name in given:
            if len(set(rows[name])) > 1:
                # The last part of a path is enough, unless two paths end alike.
                shown = short if len(set(short[name])) == len(set(rows[name])) else rows
                parts.append(f"{name}={shown[name][mine]}")
    return f"{key}[{','.join(parts)}]"


def _value(spec: OperatorSpec, name: str) -> str:
    default: Any = inspection.parameters(spec.filter_class)[name].default
    return str(spec.params.get(name, default))


def _short(value: str) -> str:
    return Path(value).name if "/" in value else value
