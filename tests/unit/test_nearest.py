"""Search for the nearest code: three searches, one answer."""

import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from brainquant.search import compiled, nearest
from brainquant.search.nearest import highest_code, nearest_code, projected_codes

SEARCHES = ["torch", "numba"]


@pytest.fixture(params=SEARCHES)
def search(request, monkeypatch):
    """Makes the operators use one of the searches."""
    monkeypatch.setattr(nearest, "has", lambda library: library == request.param)


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_nearest(x_ND, codebook_VD):
    """One distance after the other, in float64; also the margin of the best to the second."""
    codes, margins = [], []
    for x in x_ND.double():
        distances = [float((x - code).square().sum()) for code in codebook_VD.double()]
        codes.append(distances.index(min(distances)))
        best, second = sorted(distances)[:2]
        margins.append(second - best)
    return torch.tensor(codes, dtype=torch.long), torch.tensor(margins)


@pytest.mark.parametrize("library", SEARCHES)
@given(
    seed=st.integers(0, 2**31),
    N=st.integers(0, 20),
    D=st.integers(1, 20),
    V=st.integers(2, 40),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_is_the_nearest_in_euclidean_distance(library, seed, N, D, V, size):
    x_ND = 10 * randn(seed, N, D)
    codebook_VD = size * randn(seed + 1, V, D)
    slow_N, margins_N = slow_nearest(x_ND, codebook_VD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "has", lambda name: name == library)
        codes_N = nearest_code(x_ND, codebook_VD)
    clear_N = margins_N > 1e-9 * max(1.0, size)
    assert codes_N.dtype == torch.long and codes_N.shape == (N,)
    assert torch.equal(codes_N[clear_N], slow_N[clear_N])


def test_highest_code_adds_the_offset_in_each_codebook(search):
    x_ND, codebook_GVD, offset_GV = randn(0, 50, 7), randn(1, 3, 40, 7), randn(2, 3, 40)
    scores_NGV = torch.einsum("nd,gvd->ngv", x_ND.double(), codebook_GVD.double())
    expected_NG = (scores_NGV + offset_GV).argmax(-1)
    assert torch.equal(highest_code(x_ND, codebook_GVD, offset_GV), expected_NG)


@pytest.mark.parametrize("shifted", [False, True])
def test_projected_codes_have_the_largest_cosine_after_projection_and_shift(search, shifted):
    x_NI, projection_GID = randn(0, 60, 9), randn(1, 2, 9, 4)
    codebook_GVD = F.normalize(randn(2, 2, 70, 4), dim=-1)
    shift_GD = randn(3, 2, 4) if shifted else None
    projected_NGD = torch.einsum("ni,gid->ngd", x_NI.double(), projection_GID.double())
    if shifted:
        projected_NGD = projected_NGD + shift_GD
    projected_NGD = F.normalize(projected_NGD, dim=-1)
    expected_NG = torch.einsum("ngd,gvd->ngv", projected_NGD, codebook_GVD.double()).argmax(-1)
    codes_NG = projected_codes(x_NI, projection_GID, shift_GD, codebook_GVD)
    assert torch.equal(codes_NG, expected_NG)


@pytest.mark.parametrize("D, V", [(16, 300), (3, 40), (150, 70), (1, 700)])
def test_codes_that_float32_cannot_tell_apart_are_told_apart(search, D, V):
    """Each code beside a twin that is one bit away; the frames are the codes themselves."""
    codebook_VD = randn(0, V, D)
    twins_VD = codebook_VD.clone()
    twins_VD[:, 0] = torch.nextafter(twins_VD[:, 0], torch.tensor(torch.inf))
    both = torch.cat([codebook_VD, twins_VD])
    expected, margins = slow_nearest(both[:40], both)
    clear = margins > 0
    scale = both.double().norm(dim=1).max() ** 2
    clear &= margins > 4 * (D + 1) * 2.0**-50 * scale  # what counts as a tie
    assert torch.equal(nearest_code(both[:40], both)[clear], expected[clear])


def test_a_tie_goes_to_the_lowest_index(search):
    codebook_VD = randn(0, 200, 5).repeat(3, 1)
    x_ND = randn(1, 300, 5)
    codes_N = nearest_code(x_ND, codebook_VD)
    assert codes_N.max() < 200 and torch.equal(codes_N, nearest_code(x_ND, codebook_VD[:200]))
    corners = torch.eye(3).repeat(20, 1)
    x_ND = torch.tensor([[0, 2.0, 0], [0, 0, 2.0], [1.0, 1.0, 0], [0, 0, 0]])
    assert nearest_code(x_ND, corners).tolist() == [1, 2, 0, 0]
    codes_N1 = projected_codes(x_ND, torch.eye(3)[None], None, corners[None])
    assert codes_N1[:, 0].tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_frame_that_is_not_finite_has_no_code(search, value):
    x_ND = torch.tensor([[0.0, 1.0], [value, 1.0], [0.0, 1.0]])
    assert nearest_code(x_ND, torch.eye(2)).tolist() == [1, -1, 1]
    codes_N1 = projected_codes(x_ND, torch.eye(2)[None], None, torch.eye(2)[None])
    assert codes_N1[:, 0].tolist() == [1, -1, 1]


@pytest.mark.parametrize("size", [1e-40, 1e-20, 1e20, 1e38])
def test_sizes_at_the_ends_of_float32_are_searched_as_others(search, size):
    x_ND, codebook_VD = randn(0, 30, 4).clamp(-2, 2), randn(1, 300, 4).clamp(-2, 2)
    projection = torch.eye(4)[None]
    unit = F.normalize(codebook_VD)[None]
    expected = projected_codes(x_ND, projection, None, unit)
    ends = projected_codes(x_ND * size, projection, None, unit)
    changed = (expected != ends).float().mean()  # denormals keep a few bits only
    assert changed == 0 if size > 1e-38 else changed < 0.2
    for x in (x_ND, x_ND * size):
        codes_N = nearest_code(x, codebook_VD * size)
        assert codes_N.min() >= 0 and codes_N.max() < 300
    if size > 1e-38:
        assert torch.equal(codes_N, nearest_code(x_ND, codebook_VD))


def test_a_frame_has_its_code_in_any_batch_and_on_any_number_of_threads(search):
    x_ND, codebook_VD = randn(0, 3000, 16), randn(1, 1000, 16)
    codes_N = nearest_code(x_ND, codebook_VD)
    order_N = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nearest_code(x_ND[order_N], codebook_VD), codes_N[order_N])
    for frame in range(0, 3000, 100):
        assert nearest_code(x_ND[frame : frame + 1], codebook_VD) == codes_N[frame]
    threads = torch.get_num_threads()
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        assert torch.equal(nearest_code(x_ND, codebook_VD), codes_N)
    torch.set_num_threads(threads)


def test_a_search_leaves_the_threads_of_others_alone(monkeypatch):
    """A thread that first uses torch while another one searches computes with all threads."""
    search_part, seen, threads = compiled.search_part, [], torch.get_num_threads()

    def ask():
        seen.append(torch.get_num_threads())

    def search_beside_another_thread(*arguments):
        other = threading.Thread(target=ask)
        other.start()
        other.join()
        assert torch.get_num_threads() == 1
        search_part(*arguments)

    monkeypatch.setattr(compiled, "search_part", search_beside_another_thread)
    torch.set_num_threads(3)
    try:
        nearest_code(torch.randn(9, 4), torch.randn(5, 4))
        ask()
    finally:
        torch.set_num_threads(threads)
    assert seen == [3, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_searched_by_their_values(search, dtype):
    x_ND, codebook_VD = randn(0, 200, 8).to(dtype), randn(1, 100, 8)
    assert torch.equal(nearest_code(x_ND, codebook_VD), nearest_code(x_ND.float(), codebook_VD))


def test_a_view_that_is_not_contiguous_is_searched_as_its_copy(search):
    x, codebook = randn(0, 8, 200), randn(1, 8, 100)
    copies = nearest_code(x.T.contiguous(), codebook.T.contiguous())
    assert torch.equal(nearest_code(x.T, codebook.T), copies)


@pytest.mark.parametrize("frames", [0, 1, 1023, 1024, 1025, 5000])
def test_numba_gives_the_codes_of_plain_torch(frames, monkeypatch):
    x_NI, projection_GID = randn(0, frames, 40), randn(1, 1, 40, 16)
    codebook_GVD = F.normalize(randn(2, 1, 2000, 16), dim=-1)
    codebook_GVD[:, 1000:] = codebook_GVD[:, :1000]  # ties
    codes = {}
    for library in SEARCHES:
        monkeypatch.setattr(nearest, "has", lambda name, library=library: name == library)
        codes[library] = projected_codes(x_NI, projection_GID, None, codebook_GVD)
    assert codes["torch"].shape == (frames, 1)
    assert torch.equal(codes["torch"], codes["numba"])


def test_what_inference_mode_has_left_does_not_hinder_training(search):
    x_ND, codebook_VD = randn(0, 4000, 33), randn(1, 700, 33)  # larger than any before
    with torch.inference_mode():
        codes_N = nearest_code(x_ND, codebook_VD)
    assert torch.equal(nearest_code(x_ND, codebook_VD), codes_N)


TRITON = """
import torch
from brainquant.search.table import Table
from brainquant.search.plain import TorchSearch
from brainquant.search.gpu import search

def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

for N, D, V in [(70, 16, 100), (5, 3, 40), (9, 150, 70)]:
    x, codebook = randn(0, N, D), randn(1, V, D)
    codebook[7], x[:2], x[3] = codebook[3], codebook[3], 0.0
    twins = codebook.clone()
    twins[:, 0] = torch.nextafter(twins[:, 0], torch.tensor(torch.inf))
    codebook = torch.cat([codebook, twins])
    for offset in (None, codebook.double().square().sum(1) / -2):
        codes_of_unit_norm = torch.nn.functional.normalize(codebook)
        table = Table(codes_of_unit_norm if offset is None else codebook, offset)
        codes = table.codes(x.double(), search)
        assert torch.equal(codes, table.codes(x.double(), TorchSearch([table]))), (N, D, V, offset)
        assert offset is None or codes[0] == codes[1] == 3, codes
        x[4, 0] = float("nan")
        assert table.codes(x.double(), search)[4] == -1
        x[4, 0] = 1.0
print("alike")
"""


def test_triton_gives_the_codes_of_plain_torch():
    """In Triton's interpreter, which has to be chosen before the kernel is imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRITON]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    assert done.stdout == "alike\n", done.stderr[-2000:]


@pytest.mark.gpu
def test_a_gpu_gives_the_codes_of_a_cpu():
    x_NI, projection_GID = randn(0, 20000, 320), randn(1, 1, 320, 16)
    codebook_GVD = F.normalize(randn(2, 1, 8192, 16), dim=-1)
    arguments = x_NI, projection_GID, None, codebook_GVD
    on_gpu = [None if value is None else value.cuda() for value in arguments]
    torch.cuda.set_sync_debug_mode("error")  # nothing waits for the device
    codes_NG = projected_codes(*on_gpu)
    torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(codes_NG.cpu(), projected_codes(*arguments))


def test_products_are_made_without_tf32_and_autocast(monkeypatch, tf32_allowed):
    monkeypatch.setattr(nearest, "has", lambda library: False)
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket is torch.ops.aten.mm:
                matmul = torch.backends.cuda.matmul
                seen.update([getattr(matmul, "fp32_precision", None) or matmul.allow_tf32])
                seen.update(args[0].dtype for _ in args)
            return func(*args, **(kwargs or {}))

    with torch.autocast("cpu", torch.bfloat16), Watch():
        nearest.search(randn(0, 9, 5), [(randn(1, 30, 5), None)])
    assert torch.float32 in seen and seen <= {torch.float32, torch.float64, "ieee", False}


MEMORY = """
import torch
from brainquant.search import nearest
nearest.has = lambda name: name == "{library}"
x, projection = torch.randn(100_000, 320), torch.randn(1, 320, 16)
codebook = torch.nn.functional.normalize(torch.randn(1, 8192, 16), dim=-1)
nearest.projected_codes(x[:10], projection, None, codebook)  # libraries take some memory once
"""


@pytest.mark.parametrize("library", SEARCHES)
def test_100_000_frames_take_at_most_10_mb(library, extra_mb):
    """SpeechBrain would take 50 GB."""
    call = "nearest.projected_codes(x, projection, None, codebook)"
    assert extra_mb(MEMORY.replace("{library}", library), call) <= 10
