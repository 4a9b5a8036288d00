"""Change one list in a YAML text and leave every other character as it is.

People keep comments, order and quotes in their files, so a text is edited, not written again. Each
edit is then parsed and compared: only the list may differ, or the edit is refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

Entry = dict[str, Any]


class EditError(Exception):
    """Why the text cannot be changed safely."""


class _Loader(yaml.SafeLoader):
    """Keeps the value of a tag like !vault as written."""


def _tagged(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> tuple[str, str]:
    return tag, yaml.serialize(node)


_Loader.add_multi_constructor("!", _tagged)


class _Place(NamedTuple):
    """A setting in a text: the nodes of its name and value, and the names that lead to it."""

    key: yaml.Node
    value: Any
    path: tuple[str, ...]


def parse(text: str) -> Any:
    """Return the values of a text; raise `EditError` if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        raise EditError(f"it is not YAML: {str(error).splitlines()[0]}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # An invalid date, an invalid key, or lists nested without end.
        raise EditError(f"it is YAML that cannot be read: {error}") from None


def entries(text: str, name: str) -> list[Any]:
    """Return the list as written, or an empty one."""
    place = _find(text, name)
    return [] if place is None else _listed(text, place)


def add(text: str, name: str, entry: Entry) -> str:
    """Return the text with an entry added at the end of the list."""
    place = _find(text, name)
    if place is None:
        return _proven(text, _appended(text, name, entry), (name,), [entry])
    before = _listed(text, place)
    wanted = [*before, entry]
    node = place.value
    if not before:
        edited = _filled(text, place, entry)
    elif node.flow_style:
        edited = _spliced(text, node.value[-1].end_mark.index, f", {_flow(entry)}")
    else:
        style = bool(getattr(node.value[-1], "flow_style", False))
        item = _item(entry, node.start_mark.column, _newline(text), flow=style)
        edited = _after_line(text, _last_line(node), item)
    return _proven_or_rewritten(text, edited, place, wanted)


def remove(text: str, name: str, index: int) -> str:
    """Return the text without one entry of the list."""
    place = _find(text, name)
    if place is None:
        raise EditError(f"{name} is not in it")
    before = _listed(text, place)
    wanted = [one for number, one in enumerate(before) if number != index]
    node = place.value
    items = node.value
    if node.flow_style:
        start, end = items[index].start_mark.index, items[index].end_mark.index
        if index + 1 < len(items):
            end = items[index + 1].start_mark.index
        elif index > 0:
            start = items[index - 1].end_mark.index
        edited = text[:start] + text[end:]
    else:
        lines = text.splitlines(keepends=True)
        first = _dash_line(lines, items[index], node.start_mark.column)
        del lines[first : _last_line(items[index]) + 1]
        edited = "".join(lines)
        if not wanted:
            colon = text.index(":", place.key.end_mark.index) + 1
            edited = _spliced(edited, colon, " []")
    return _proven_or_rewritten(text, edited, place, wanted)


def _find(text: str, name: str) -> _Place | None:
    values = parse(text)
    root = yaml.compose(text, Loader=_Loader)
    if root is None:
        return None
    # A mapping with the tag of a set is a set.
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise EditError("it does not hold settings")
    found = list(_places(root, name, ()))
    if len(found) > 1:
        lines = " and ".join(str(one.key.start_mark.line + 1) for one in found)
        raise EditError(f"{name} is in it more than once, in lines {lines}")
    return found[0] if found else None


def _places(node: yaml.MappingNode, name: str, path: tuple[str, ...]) -> Any:
    for key, value in node.value:
        if key.value == name:
            yield _Place(key, value, (*path, name))
        elif isinstance(value, yaml.MappingNode) and isinstance(key.value, str):
            yield from _places(value, name, (*path, key.value))


def _listed(text: str, place: _Place) -> list[Any]:
    value = _at(parse(text), place.path)
    if value is None:
        return []
    if not isinstance(value, list):
        line = place.key.start_mark.line + 1
        raise EditError(f"{place.path[-1]} in line {line} is not a plain list of entries")
    return value


def _at(values: Any, path: tuple[str, ...]) -> Any:
    try:
        for name in path:
            values = values[name]
    except (KeyError, TypeError):
        # Of two mappings of one name the last one counts.
        raise EditError(f"a name above {path[-1]} is in it more than once") from None
    return values


def _with(values: Any, path: tuple[str, ...], wanted: list[Any]) -> Any:
    if not path:
        return wanted
    values = values or {}
    return {**values, path[0]: _with(values.get(path[0]), path[1:], wanted)}


def _proven(text: str, edited: str, path: tuple[str, ...], wanted: list[Any]) -> str:
    try:
        if parse(edited) == _with(parse(text), path, wanted):
            return edited
    except EditError:
        pass
    raise EditError(f"{path[-1]} is written in a way that cannot be changed safely")


def _proven_or_rewritten(text: str, edited: str, place: _Place, wanted: list[Any]) -> str:
    try:
        return _proven(text, edited, place.path, wanted)
    except EditError:
        start, end = place.value.start_mark.index, place.value.end_mark.index
        try:
            again = text[:start] + _flow(wanted) + text[end:]
        except yaml.YAMLError:
            again = text
        return _proven(text, again, place.path, wanted)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return text.strip()


def _item(entry: Entry, column: int, newline: str, *, flow: bool) -> str:
    lines = [_flow(entry)]
    if not flow:
        block: str = yaml.safe_dump(entry, sort_keys=False, width=10**6)
        lines = block.splitlines()
    first, *others = lines
    indent = " " * column
    lines = [f"{indent}- {first}", *(f"{indent}  {line}" for line in others)]
    return newline.join(lines) + newline


def _appended(text: str, name: str, entry: Entry) -> str:
    newline = _newline(text)
    start = text + ("" if not text or text.endswith("\n") else newline)
    return f"{start}{name}:{newline}{_item(entry, 2, newline, flow=True)}"


def _filled(text: str, place: _Place, entry: Entry) -> str:
    # `[]`, `null` or nothing: the list begins below its name, so that it can grow there.
    start, end = place.value.start_mark, place.value.end_mark
    bare = text[: start.index].rstrip(" ") + text[end.index :]
    item = _item(entry, place.key.start_mark.column + 2, _newline(text), flow=True)
    return _after_line(bare, place.key.start_mark.line, item)


def _spliced(text: str, index: int, more: str) -> str:
    return text[:index] + more + text[index:]


def _after_line(text: str, line: int, more: str) -> str:
    lines = text.splitlines(keepends=True)
    if not lines[line].endswith("\n"):
        lines[line] += _newline(text)
    lines.insert(line + 1, more)
    return "".join(lines)


def _last_line(node: yaml.Node) -> int:
    """Return the last line of a node; its end mark is behind comments."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    end = node.end_mark
    behind = end.column == 0 and end.line > node.start_mark.line
    return int(end.line) - (1 if behind else 0)


def _dash_line(lines: list[str], item: yaml.Node, column: int) -> int:
    for number in range(item.start_mark.line, -1, -1):
        if lines[number][:column].strip() == "" and lines[number][column : column + 1] == "-":
            return number
    raise EditError("the list is written in a way that cannot be changed safely")
