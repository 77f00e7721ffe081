"""Finds collectives that not every rank of a run would reach, by reading the source.

A collective that some ranks call and others do not makes them wait for each other for ever. What
is looked at: branches of a condition in which the rank occurs, what follows a return in one,
functions that run on the main process only, and whatever those call, as far as names tell.
"""

import ast

# Of torch.distributed, SpeechBrain and this package; functions with main_process_only end in a
# broadcast and are added below.
COLLECTIVES = {
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all",
    "all_to_all_single", "barrier", "broadcast", "broadcast_object_list", "gather",
    "gather_object", "monitored_barrier", "new_group", "reduce", "reduce_scatter",
    "reduce_scatter_tensor", "scatter", "scatter_object_list", "init_process_group",
    "ddp_all_reduce", "ddp_barrier", "ddp_broadcast", "log_stats",
    "add_over_ranks", "gather_over_ranks", "control_group",
}  # fmt: skip
# They call their first argument on some ranks only, and end in a collective themselves.
WRAPPERS = {"main_process_only", "once_per_node", "run_on_main", "run_once_per_node"}
RANK = {
    "rank", "local_rank", "get_rank", "get_local_rank", "if_main_process", "is_local_rank_zero",
    "is_main_process", "rank_from_environment",
}  # fmt: skip
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(node):
    """The last part of a dotted name, or of what is called by one."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    return getattr(node, "attr", None) or getattr(node, "id", None)


def is_main_only(function):
    return any(name_of(decorator) in WRAPPERS for decorator in function.decorator_list)


class Source:
    """Sources that call each other.

    Arguments
    ---------
    texts : dict of str to str
        By the name of the file.
    """

    def __init__(self, texts):
        self.trees = {name: ast.parse(text) for name, text in texts.items()}
        self.functions, self.collectives, self.wrappers = {}, set(COLLECTIVES), set(WRAPPERS)
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if not isinstance(node, FUNCTIONS):
                    continue
                self.functions.setdefault(node.name, []).append(node)
                nested = [n for n in ast.walk(node) if isinstance(n, FUNCTIONS) and n is not node]
                if any(map(is_main_only, nested)):
                    self.wrappers.add(node.name)
                elif is_main_only(node):
                    self.collectives.add(node.name)
        self.collectives |= self.wrappers

    def findings(self, name):
        """Lines of a file with a collective that some ranks miss: set of (line, what)."""
        found = set()
        for node in ast.walk(self.trees[name]):
            if isinstance(node, FUNCTIONS) and is_main_only(node):
                found |= self.collectives_of(node.body)
            if isinstance(node, ast.Call) and name_of(node.func) in self.wrappers:
                for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    for function in self.resolve(argument):
                        found |= self.collectives_of(function.body)
            if isinstance(node, FUNCTIONS | ast.Module):
                found |= self.under_conditions(node)
        return found

    def under_conditions(self, function):
        """Collectives of a function in branches that depend on the rank."""
        nodes = list(inside(function))
        tainted = set()
        for _ in range(2):
            for node in nodes:
                if isinstance(node, ast.Assign) and self.depends(node.value, tainted):
                    tainted |= {name.id for name in node.targets if isinstance(name, ast.Name)}
        regions = []
        for node in nodes:
            if isinstance(node, ast.If | ast.While | ast.IfExp):
                if self.depends(node.test, tainted):
                    regions += [node.body, node.orelse]
            elif isinstance(node, ast.For) and self.depends(node.iter, tainted):
                regions.append(node.body)
            elif isinstance(node, ast.BoolOp):
                for position, value in enumerate(node.values):
                    if self.depends(value, tainted):
                        regions.append(node.values[position + 1 :])
            if isinstance(node, ast.If) and self.depends(node.test, tainted):
                for left in (n for part in (node.body, node.orelse) for n in walk(part)):
                    if isinstance(left, ast.Return):
                        regions.append(after(nodes, node))
                    elif isinstance(left, ast.Continue | ast.Break):
                        loops = [n for n in nodes if isinstance(n, ast.For | ast.While)]
                        around = [n for n in loops if node in list(inside(n))]
                        if around:
                            regions.append(after(inside(around[-1]), node))
        return set().union(*(self.collectives_of(region) for region in regions))

    def depends(self, expression, tainted=frozenset()):
        """Whether a value may differ from rank to rank: what a collective gives does not."""
        if isinstance(expression, ast.Call) and name_of(expression.func) in self.collectives:
            return False
        if isinstance(expression, ast.Name | ast.Attribute):
            if name_of(expression) in RANK or name_of(expression) in tainted:
                return True
        return any(self.depends(child, tainted) for child in ast.iter_child_nodes(expression))

    def resolve(self, node):
        """Functions that a name, a method of self, or a lambda may be."""
        if isinstance(node, ast.Lambda):
            return [node]
        own = isinstance(node, ast.Attribute) and name_of(node.value) in {"self", "cls"}
        return self.functions.get(name_of(node), []) if own or isinstance(node, ast.Name) else []

    def collectives_of(self, region, seen=()):
        """Collectives that nodes call, or that functions do which they call."""
        found = set()
        for node in walk(region):
            if not isinstance(node, ast.Call):
                continue
            if name_of(node.func) in self.collectives:
                found.add((node.lineno, ast.unparse(node.func)))
                continue
            for function in self.resolve(node.func):
                if function not in seen:
                    deeper = self.collectives_of(function.body, (*seen, function))
                    found |= {
                        (node.lineno, f"{ast.unparse(node.func)}: {what}") for _, what in deeper
                    }
        return found


def walk(region):
    """All nodes of an expression or of a list of them."""
    for node in region if isinstance(region, list) else [region]:
        yield from ast.walk(node)


def inside(function):
    """All nodes of a function or loop, outermost first, without those of functions in it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, FUNCTIONS | ast.Lambda | ast.ClassDef):
            yield node
            yield from inside(node)


def after(nodes, last):
    """Statements that begin after one has ended."""
    return [n for n in nodes if isinstance(n, ast.stmt) and n.lineno > last.end_lineno]
