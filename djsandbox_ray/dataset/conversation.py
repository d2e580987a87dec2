"""The shapes in which people hold conversations, as turns of a user and an assistant.

There are lists of turns, ``{from, value}`` as LLaVA and ShareGPT have them and ``{role, content}``
as chat templates do, and Data-Juicer's ``query``, ``response`` and ``history``. What the system is
told before the first turn is no turn: it becomes meta data, under ``system``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from djsandbox_ray.dataset.faults import Unusable, shown
from djsandbox_ray.dataset.media import IMAGE_TOKEN, VIDEO_TOKEN, Turn

TURN_KEYS = ("conversations", "messages", "turns")
"""Under one of these lies the list of turns, where nobody said."""
QUERY, RESPONSE, HISTORY, SYSTEM = "query", "response", "history", "system"
UNNAMED = (QUERY, RESPONSE, HISTORY, SYSTEM)
"""What makes a conversation without a list of turns."""
_ROLES: dict[str, Literal["user", "assistant", "system"]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
_WHO, _WHAT = ("role", "from"), ("content", "value", "text")
_PLACES = {"<image>": IMAGE_TOKEN, "<video>": VIDEO_TOKEN}
_PARTS = {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN}


def turn_marks(key: str | None) -> tuple[tuple[str, ...], ...]:
    """Return the keys by which objects with turns are counted where they cannot be read."""
    return ((key,),) if key else (*((one,) for one in TURN_KEYS), (QUERY, RESPONSE))


def has_turns(entry: Mapping[str, Any], key: str | None) -> bool:
    """Say whether an object holds a conversation.

    Args:
        entry: the object.
        key: of the turns; None for the usual ones.
    """
    if key is not None:
        return entry.get(key) is not None
    return bool(_present(entry)) or (QUERY in entry and RESPONSE in entry)


def take_turns(entry: dict[str, Any], key: str | None) -> tuple[Turn, ...]:
    """Take the turns out of an object; what the system is told is left there, as ``system``.

    Args:
        entry: the object.
        key: of the turns; None for the usual ones.

    Raises:
        Unusable: there are none, or what they say cannot be told.
    """
    present = [key] if key is not None else _present(entry)
    if len(present) > 1:
        said = f"{' and '.join(map(repr, present))} may hold the turns: 'turns' chooses one"
        raise Unusable("bad_turns", said)
    if present:
        listed = _listed(entry.pop(present[0], None))
        if not isinstance(listed, list):
            said = f"key {present[0]!r}: a list of turns is needed, not {type(listed).__name__}"
            raise Unusable("bad_turns", said)
    elif QUERY in entry and RESPONSE in entry:
        listed = _asked(entry)
    else:
        names = ", ".join((*TURN_KEYS, f"{QUERY} with {RESPONSE}"))
        said = f"no turns: none of {names} is there (there are {', '.join(entry) or 'no keys'})"
        raise Unusable("bad_turns", said)
    turns = []
    for place, one in enumerate(listed):
        role, text = _turn(place, one)
        if role != "system":
            turns.append(Turn(role, text))
        elif place:
            raise Unusable("bad_turns", f"turn {place} is the system's, which may only be first")
        elif entry.get(SYSTEM) in (None, text):
            entry[SYSTEM] = text
        else:
            raise Unusable("bad_turns", f"the system is told both in turn 0 and by key {SYSTEM!r}")
    return tuple(turns)


def _listed(turns: Any) -> Any:
    """Return turns as a list, which a ``Sequence`` of Hugging Face holds as lists by key."""
    by_key = list(turns.values()) if isinstance(turns, dict) else []
    if by_key and all(isinstance(one, list) and len(one) == len(by_key[0]) for one in by_key):
        return [dict(zip(turns, one, strict=True)) for one in zip(*by_key, strict=True)]
    return turns


def _present(entry: Mapping[str, Any]) -> list[str]:
    return [key for key in TURN_KEYS if entry.get(key) is not None]


def _asked(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return Data-Juicer's question, answer and what was said before as a list of turns."""
    before = entry.pop(HISTORY, None) or []
    if not isinstance(before, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in before
    ):
        raise Unusable(
            "bad_turns", f"key {HISTORY!r}: pairs of a question and an answer are needed"
        )
    pairs = [*before, (entry.pop(QUERY), entry.pop(RESPONSE))]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def _turn(place: int, one: Any) -> tuple[Literal["user", "assistant", "system"], str]:
    """Return who speaks, and what is said, with a token where a medium stands."""
    if not isinstance(one, dict):
        raise Unusable("bad_turns", f"turn {place} is no object but {type(one).__name__}")
    who = next((one[key] for key in _WHO if one.get(key) is not None), None)
    role = _ROLES.get(who) if isinstance(who, str) else None
    if role is None:
        raise Unusable(
            "bad_turns",
            f"turn {place}: {' or '.join(map(repr, _WHO))} is one of {', '.join(_ROLES)}, not "
            f"{shown(str(who))}",
        )
    what = next((one[key] for key in _WHAT if one.get(key) is not None), None)
    text = "\n".join(_part(place, part) for part in what) if isinstance(what, list) else what
    if not isinstance(text, str):
        raise Unusable("bad_turns", f"turn {place} ({who}) has no text under {', '.join(_WHAT)}")
    if role != "system":
        for sign, token in _PLACES.items():
            text = text.replace(sign, token)
    return role, text


def _part(place: int, part: Any) -> str:
    """Return a part of a turn: its text, or the token of a medium that is listed elsewhere."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in _PARTS and part.get(kind) is None:
        return _PARTS[kind]
    raise Unusable(
        "bad_turns",
        f"turn {place}: a part is {{type: text, text: ...}}, or {{type: image}} or {{type: video}} "
        "for a medium whose path is listed beside the turns",
    )
