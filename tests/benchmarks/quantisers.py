"""Times and memory of the quantisers beside those of SpeechBrain and others.

> pip install -e ".[benchmark]"
> python tests/benchmarks/quantisers.py --output quantisers.json

About 20 minutes on 2 cores and 12 GB: SpeechBrain takes nearly all of both. `--only` runs a part.
"""

import argparse
import json
from contextlib import contextmanager

import speechbrain.nnet.quantisers as stock
import torch
import torch.nn.functional as F
from measure import alternate, busy_process, extra_mb, in_process, machine, print_table

import brainquant
from brainquant.search import nearest

INPUT_DIM, CB_DIM, CB_VOCAB = 320, 16, 8192
FRAMES = (800, 3200, 12800)
GUMBEL = {"input_dim": 512, "num_vars": 320, "temp_tuple": (2.0, 0.5, 0.999995), "groups": 2}
GUMBEL_FRAMES = (1000, 4000)


@contextmanager
def installed(*libraries):
    """The search for the nearest code finds these libraries only."""
    before, nearest.has = nearest.has, lambda library: library in libraries
    try:
        yield
    finally:
        nearest.has = before


# ---- random projection -----------------------------------------------------------------------


def frames_of(number, size):
    """Noise, one utterance for each 800 frames."""
    return torch.randn(max(1, number // 800), min(number, 800), size)


def random_projection(name):
    """A function from frames to codes; all but `vector-quantize-pytorch` have the same tables."""
    torch.manual_seed(0)
    if name == "speechbrain":
        return stock.RandomProjectionQuantizer(INPUT_DIM, CB_DIM, CB_VOCAB)
    if name == "vector-quantize-pytorch":
        from vector_quantize_pytorch import RandomProjectionQuantizer

        return RandomProjectionQuantizer(
            dim=INPUT_DIM, num_codebooks=1, codebook_size=CB_VOCAB, codebook_dim=CB_DIM
        ).eval()
    ours = brainquant.RandomProjectionQuantizer(INPUT_DIM, CB_DIM, CB_VOCAB)
    if name == "faiss, tuned":
        import faiss

        faiss.cvar.distance_compute_blas_threshold = 0  # its fused kernel, for small inputs too
        index = faiss.IndexFlatL2(CB_DIM)
        index.add(ours.CB.numpy())

        def search(x):
            faiss.omp_set_num_threads(torch.get_num_threads())
            projected = F.normalize(x @ ours.P, dim=2).flatten(0, 1)
            return torch.from_numpy(index.search(projected.numpy(), 1)[1]).view(x.shape[:2])

        return search

    def search(x):
        with installed("numba" if name == "ours, numba" else None):
            return ours(x)

    return search


PROJECTIONS = (
    "speechbrain", "vector-quantize-pytorch", "faiss, tuned", "ours, torch", "ours, numba",
)  # fmt: skip


def same_labels(x):
    """Share of SpeechBrain's labels that each method gives, where the two best scores differ."""
    ours = brainquant.RandomProjectionQuantizer(INPUT_DIM, CB_DIM, CB_VOCAB)
    calls = {name: random_projection(name) for name in PROJECTIONS}
    ours.load_state_dict(calls["speechbrain"].state_dict())
    scores = F.normalize(x @ ours.P, dim=-1) @ ours.CB.T
    best = scores.topk(2, dim=-1).values
    clear = best[..., 0] - best[..., 1] > 2e-6
    expected = calls["speechbrain"](x)
    return {
        name: float((calls[name](x) == expected)[clear].float().mean()) for name in PROJECTIONS[2:]
    }


def time_random_projection(frames, threads):
    """Rows of the table for one size and number of threads."""
    torch.set_num_threads(threads)
    x = frames_of(frames, INPUT_DIM)
    calls = {name: random_projection(name) for name in PROJECTIONS}
    seconds = alternate({name: lambda call=call: call(x) for name, call in calls.items()})
    return [
        {
            "method": name,
            "frames": frames,
            "threads": threads,
            "ms": 1000 * seconds[name],
            "times speechbrain": seconds["speechbrain"] / seconds[name],
            "times faiss": seconds["faiss, tuned"] / seconds[name],
            "extra MB": in_process(__file__, "--memory", "projection", name, frames)
            if threads == 1
            else None,
        }
        for name in PROJECTIONS
    ]


def time_beside_a_busy_process(frames=12800):
    """Rows of our methods and FAISS while another process holds a core."""
    torch.set_num_threads(2)
    x = frames_of(frames, INPUT_DIM)
    calls = {name: random_projection(name) for name in PROJECTIONS[2:]}
    calls = {name: lambda call=call: call(x) for name, call in calls.items()}
    alone = alternate(calls)
    with busy_process():
        beside = alternate(calls)
    return [
        {
            "method": name,
            "alone ms": 1000 * alone[name],
            "beside ms": 1000 * beside[name],
            "times faiss": beside["faiss, tuned"] / beside[name],
        }
        for name in calls
    ]


def time_growth():
    """Microseconds per frame, code and codebook as each of them grows."""
    torch.set_num_threads(2)
    sizes = [(n, CB_VOCAB, 1) for n in (1600, 6400, 25600, 100_000)]
    sizes += [(6400, v, 1) for v in (1024, 4096, 16384)] + [(6400, CB_VOCAB, g) for g in (4, 16)]
    rows = []
    for frames, codes, codebooks in sizes:
        ours = brainquant.RandomProjectionQuantizer(
            INPUT_DIM, CB_DIM, codes, num_codebooks=codebooks, seed=0
        )
        x = frames_of(frames, INPUT_DIM)
        row = {"frames": frames, "codes": codes, "codebooks": codebooks}
        for library in ("torch", "numba"):
            with installed(library):
                seconds = alternate({"ours": lambda ours=ours, x=x: ours(x)}, repeats=3)["ours"]
            row[f"{library}, ms"] = 1000 * seconds
            row[f"{library}, ns per score"] = 1e9 * seconds / (frames * codes * codebooks)
        rows.append(row)
    return rows


# ---- Gumbel softmax --------------------------------------------------------------------------


def gumbel(name):
    """A function that runs forward and backward in training, and gives output and gradient."""
    torch.manual_seed(0)
    if name == "transformers":
        from transformers import Wav2Vec2Config
        from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

        config = Wav2Vec2Config(
            conv_dim=(512,) * 7, num_codevectors_per_group=320, num_codevector_groups=2,
            codevector_dim=256,
        )  # fmt: skip
        module = Wav2Vec2GumbelVectorQuantizer(config)
    else:
        package = stock if name == "speechbrain" else brainquant
        module = package.GumbelVectorQuantizer(**GUMBEL, vq_dim=256)

    def step(x):
        x = x.detach().requires_grad_()
        output = module(x)
        vectors, perplexity = (
            output if name == "transformers" else (output["x"], output["prob_perplex"])
        )
        (vectors.sum() + perplexity).backward()
        return vectors, x.grad

    return step


GUMBELS = ("speechbrain", "transformers", "ours")


def time_gumbel(frames, threads):
    """Rows of the table for one size and number of threads."""
    torch.set_num_threads(threads)
    x = frames_of(frames, GUMBEL["input_dim"])
    calls = {name: gumbel(name) for name in GUMBELS}
    seconds = alternate({name: lambda call=call: call(x) for name, call in calls.items()})
    return [
        {
            "method": name,
            "frames": frames,
            "threads": threads,
            "ms": 1000 * seconds[name],
            "times speechbrain": seconds["speechbrain"] / seconds[name],
        }
        for name in GUMBELS
    ]


def measure_gumbel_memory():
    """Extra memory of forward and backward, in processes of their own."""
    rows = []
    for name in GUMBELS:
        row = {"method": name}
        for frames in (*GUMBEL_FRAMES, 16000):
            row[f"{frames} frames, MB"] = in_process(__file__, "--memory", "gumbel", name, frames)
        rows.append(row)
    return rows


def gumbel_differences(frames=1000):
    """Largest differences of vectors and of gradients from SpeechBrain's, for the same seed."""
    x = frames_of(frames, GUMBEL["input_dim"])
    results = []
    for name in ("speechbrain", "ours"):
        call = gumbel(name)
        torch.manual_seed(1)
        results.append(call(x))
    (vectors, gradient), (our_vectors, our_gradient) = results
    vectors, our_vectors = vectors.detach(), our_vectors.detach()
    return {
        "vectors": float((vectors - our_vectors).abs().max()),
        "gradient, relative": float((gradient - our_gradient).norm() / gradient.norm()),
    }


# ---- GPU -------------------------------------------------------------------------------------


def time_on_gpu(frames=100_000):
    """The kernel beside matmul and argmax, and its share of what the GPU can do."""
    from brainquant.search.gpu import search
    from brainquant.search.table import Table

    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = False
    codebook = F.normalize(torch.randn(CB_VOCAB, CB_DIM, device="cuda"))
    x = F.normalize(torch.randn(frames, CB_DIM, device="cuda"))
    table = Table(codebook)

    large = torch.randn(8192, 8192, device="cuda")
    seconds = alternate({
        "matmul + argmax": lambda: (x @ codebook.T).argmax(-1),
        "ours, Triton": lambda: table.codes(x.double(), search),
        "large matmul": lambda: large @ large,
        "copy": lambda: large.clone(),
    })  # fmt: skip
    operations = 2 * frames * CB_VOCAB * CB_DIM / seconds["ours, Triton"]
    traffic = 4 * (frames * (CB_DIM + 2) + CB_VOCAB * CB_DIM) / seconds["ours, Triton"]
    return [
        {
            "frames": frames,
            "ms": 1000 * seconds["ours, Triton"],
            "times matmul + argmax": seconds["matmul + argmax"] / seconds["ours, Triton"],
            "share of a matmul's operations": operations / (2 * 8192**3 / seconds["large matmul"]),
            "share of a copy's traffic": traffic / (8 * large.numel() / seconds["copy"]),
        }
    ]


def memory(part, name, frames):
    """Megabytes that one call adds, after a small one that loads what is loaded once."""
    call, size = {
        "projection": (random_projection, INPUT_DIM),
        "gumbel": (gumbel, GUMBEL["input_dim"]),
    }[part]
    torch.set_num_threads(1)
    call = call(name)
    call(frames_of(300, size))
    x = frames_of(int(frames), size)
    return extra_mb(lambda: call(x))


PARTS = {
    "projection": lambda: [
        row for threads in (1, 2) for n in FRAMES for row in time_random_projection(n, threads)
    ],
    "labels": lambda: [{"frames": 3200, **same_labels(frames_of(3200, INPUT_DIM))}],
    "memory": lambda: [
        {
            "method": name,
            "frames": 100_000,
            "extra MB": in_process(__file__, "--memory", "projection", name, 100_000),
        }
        for name in PROJECTIONS[2:]
    ],
    "busy": time_beside_a_busy_process,
    "growth": time_growth,
    "gumbel": lambda: [
        row for threads in (1, 2) for n in GUMBEL_FRAMES for row in time_gumbel(n, threads)
    ],
    "gumbel memory": measure_gumbel_memory,
    "gumbel values": lambda: [gumbel_differences()],
    "gpu": time_on_gpu,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run; all by default")
    parser.add_argument("--output", help="JSON file for the figures")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.memory:
        print(json.dumps(memory(*arguments.memory)))
        return
    print(machine())
    results = {"machine": machine()}
    for part in arguments.only or PARTS:
        if part == "gpu" and not torch.cuda.is_available():
            print("\ngpu: none here")
            continue
        results[part] = PARTS[part]()
        print_table(part, results[part])
        if arguments.output:
            with open(arguments.output, "w", encoding="utf-8") as file:
                json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
