"""The values of a YAML by the keys that lead to them."""

from __future__ import annotations

import yaml

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def values_by_key(text: str) -> dict[str, str]:
    """All values of a YAML text, by the keys that lead to them.

    Arguments
    ---------
    text : str
        A YAML whose references are resolved. The result has the value of an anchor once, by the key
        of the anchor.

    Returns
    -------
    values : dict of str to str
        Values as they are written; a class or function is its tag.

    Raises
    ------
    ValueError
        If the text is no YAML with keys.

    Example
    -------
    >>> values_by_key("lr: 0.1\\nmodel: !new:torch.nn.Linear {in_features: &n 2, out_features: *n}")
    {'lr': '0.1', 'model': '!new:torch.nn.Linear', 'model.in_features': '2'}
    """
    values, seen = {}, set()

    def walk(node: yaml.Node, key: str) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        tag = node.tag if node.tag.startswith("!") else ""
        if isinstance(node, yaml.ScalarNode):
            values[key] = f"{tag} {node.value}".strip() or "null"
        elif all(isinstance(item, yaml.ScalarNode) for item in node.value) and not tag:
            values[key] = f"[{', '.join(item.value for item in node.value)}]"
        else:
            if tag:
                values[key] = tag
            pairs = node.value
            if isinstance(node, yaml.SequenceNode):
                pairs = [(number, item) for number, item in enumerate(node.value)]
            for name, item in pairs:
                walk(item, f"{key}.{getattr(name, 'value', name)}")

    try:
        document = yaml.compose(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{line}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(document, yaml.MappingNode):
        raise ValueError("it has no keys")
    for name, node in document.value:
        if isinstance(name, yaml.ScalarNode) and not name.value.startswith("__"):
            walk(node, name.value)
    return values
