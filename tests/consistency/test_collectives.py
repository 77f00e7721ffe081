"""No collective under a condition that only some ranks meet: two ranks would wait for ever."""

from pathlib import Path

import pytest
from collectives import Source

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("brainquant/**/*.py"), *ROOT.glob("recipes/**/*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

WRONG = {
    "as SpeechBrain's recipes do": """
def on_stage_end(self):
    if if_main_process():
        self.logger.log_stats({})""",
    "rank()": """
def f():
    if rank() == 0 and ready:
        torch.distributed.barrier()""",
    "self.rank": """
def f(self):
    if self.rank == 0:
        print()
    else:
        distributed.all_gather_object([], 1)""",
    "not": """
def f(self):
    if not self.rank:
        add_over_ranks(1)""",
    "a return before": """
def f():
    if not if_main_process():
        return
    with open("x") as file:
        gather_over_ranks(file.read())""",
    "a continue before": """
def f(batches):
    for batch in batches:
        if distributed.get_rank() > 0:
            continue
        ddp_all_reduce(batch)""",
    "a name for the condition": """
def f():
    main = rank() == 0
    if main:
        ddp_barrier()""",
    "in an expression": "value = ddp_broadcast(1) if if_main_process() else None",
    "after and": "rank() == 0 and broadcast_object_list([1])",
    "in a loop": """
def f():
    for _ in range(rank()):
        monitored_barrier()""",
    "decorated": """
@main_process_only
def f():
    ddp_barrier()""",
    "decorated, with the module's name": """
@speechbrain.utils.distributed.main_process_only
def f():
    torch.distributed.broadcast(x, 0)""",
    "a function that is handed on": """
def prepare():
    torch.distributed.all_reduce(x)
run_on_main(prepare)""",
    "a method that is handed on": """
class A:
    def save(self):
        run_on_main(self.write, kwargs={})
    def write(self):
        ddp_barrier()""",
    "a function that a lambda calls": """
def evaluate(brain):
    gather_over_ranks(brain)
run_on_main(lambda: evaluate(1))""",
    "in a function that is called": """
def count():
    return add_over_ranks(1)
def f():
    if if_main_process():
        print(count())""",
    "main_process_only in a condition": """
@main_process_only
def write():
    pass
def f():
    if if_main_process():
        write()""",
    "a wrapper of one's own": """
def on_main(function):
    @main_process_only
    def call():
        return function()
    return call()
def f():
    on_main(lambda: ddp_barrier())""",
    "nested": """
def f():
    if rank() == 0:
        run_on_main(print)""",
}
RIGHT = {
    "on all ranks": """
def f():
    if if_main_process():
        print()
    ddp_barrier()""",
    "by the number of ranks": """
def f():
    if world_size() > 1:
        distributed.all_reduce(x)""",
    "what all ranks have agreed on": """
def f():
    due, = add_over_ranks(rank() == 0 and time() > 9)
    if due:
        ddp_barrier()""",
    "main_process_only, called by all": """
@main_process_only
def write():
    print()
def f():
    write()
    run_on_main(print)""",
    "an error ends the other ranks too": """
def f():
    if rank() == 0 and not free():
        raise ValueError
    ddp_barrier()""",
}


@pytest.fixture(scope="module")
def source():
    return Source({name: path.read_text("utf-8") for name, path in zip(NAMES, FILES)})


@pytest.mark.parametrize("name", NAMES)
def test_all_ranks_reach_every_collective(source, name):
    assert source.findings(name) == set()


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_collective_that_some_ranks_miss_is_found(text):
    (finding,) = Source({"x.py": text}).findings("x.py")
    assert 0 < finding[0] <= len(text.splitlines())


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT)
def test_a_collective_that_all_ranks_reach_is_not(text):
    assert Source({"x.py": text}).findings("x.py") == set()
