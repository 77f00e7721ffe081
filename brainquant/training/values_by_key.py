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

    for name, node in yaml.compose(text, Loader=Loader).value:
        if not name.value.startswith("__"):
            walk(node, name.value)
    return values
