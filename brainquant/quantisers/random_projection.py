"""Random-projection quantiser of BEST-RQ.

Shape suffixes: B batch, T time, N = B * T frames, G codebooks, D code dim, V codes, I input dim.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from typing_extensions import override

from ..functional.imports import import_late
from ..search.nearest import projected_codes
from ..search.script import projected_codes_in_script
from .base import Quantiser, check_frames, check_positive

FRAMES_TO_FIT = 25_000


class RandomProjectionQuantizer(Quantiser):
    """Index of the random code that is nearest to a random projection of the frame.

    Nothing in it is trained (Chiu et al., https://arxiv.org/abs/2202.01855). The interface,
    the ``state_dict`` (``P``, ``CB``) and, for the same seed, the tables and codes are those of
    ``speechbrain.nnet.quantisers.RandomProjectionQuantizer``. SpeechBrain 1.1.2 builds a tensor of
    (batch, codes, time, dim) and gives other codes under autocast; this class does neither.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    cb_dim : int
        Size of a code.
    cb_vocab : int
        Number of codes of a codebook.
    num_codebooks : int
        Codebooks, each with its own projection: 16 in USM (https://arxiv.org/abs/2303.01037);
        several beat one (https://arxiv.org/abs/2501.16131). With several, ``P`` and ``CB`` have
        the codebooks as their first dimension.
    seed : int or None
        Seeds a generator that draws the tables, so that they do not depend on the modules built
        before. None draws from the global generator, as SpeechBrain does.
    whiten : bool
        ``fit`` replaces every random projection by principal components of the corpus, scaled to
        unit variance (https://arxiv.org/abs/2606.30671). A Brain of this package calls ``fit``
        before the first step; in your own Brain, call it yourself. Neighbouring bins and frames
        are so alike that their random projections nearly all point in one direction. The
        ``state_dict`` then has ``shift`` and ``fitted`` too.

    Raises
    ------
    ValueError
        If a size is not a positive integer, or if the size of a frame is not input_dim.

    Example
    -------
    >>> quantiser = RandomProjectionQuantizer(16, 16, 32, seed=0)
    >>> inputs = torch.rand(10, 12, 16)
    >>> codes = quantiser(inputs)
    >>> codes.shape
    torch.Size([10, 12])
    >>> bool((quantiser(3.0 * inputs[:2, :5]) == codes[:2, :5]).all())
    True
    """

    # TorchScript would compile these properties.
    __jit_unused_properties__ = ["codebook_size", "frames_to_fit", "num_scores"]
    P: torch.Tensor
    CB: torch.Tensor
    shift: torch.Tensor | None
    fitted: torch.Tensor | None

    def __init__(
        self,
        input_dim: int,
        cb_dim: int,
        cb_vocab: int,
        *,
        num_codebooks: int = 1,
        seed: int | None = None,
        whiten: bool = False,
    ):
        super().__init__()
        input_dim, cb_dim, cb_vocab, num_codebooks = check_positive(
            input_dim=input_dim, cb_dim=cb_dim, cb_vocab=cb_vocab, num_codebooks=num_codebooks
        )
        self.input_dim = input_dim
        self.cb_dim = cb_dim
        self.cb_vocab = cb_vocab
        self.num_codebooks = num_codebooks
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        tables = [draw_tables(input_dim, cb_dim, cb_vocab, generator) for _ in range(num_codebooks)]
        projections, codebooks = zip(*tables)
        self.register_buffer("P", stack(projections))
        self.register_buffer("CB", stack(codebooks))
        self.register_buffer("shift", torch.zeros(cb_dim) if whiten else None)
        self.register_buffer("fitted", torch.tensor(False) if whiten else None)

    @property
    @override
    def codebook_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Number of codes of a codebook."""
        return self.cb_vocab

    @property
    @override
    def frames_to_fit(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Frames that ``fit`` needs if ``whiten`` is set: 17 minutes of speech."""
        return 0 if self.fitted is None or self.fitted else FRAMES_TO_FIT

    @override
    def fit(self, x: torch.Tensor) -> None:
        """Whitens the projection; see ``Quantiser.fit``.

        Raises
        ------
        ValueError
            If ``whiten`` is not set, if the frames are all equal, or if they vary in fewer than
            ``cb_dim`` directions.
        """
        if self.shift is None or self.fitted is None:
            raise ValueError(
                "whiten must be True for a quantiser that is fitted, got whiten=False; set "
                "whiten: True under the quantiser in your YAML"
            )
        if (x == x[0]).all():
            raise ValueError(
                f"the {len(x)} frames are all equal, as frames of silence are; fit the quantiser "
                f"to frames of sound"
            )
        PCA = import_late("sklearn.decomposition").PCA
        pca = PCA(svd_solver="full").fit(x.double().cpu().numpy())
        variance_I = pca.explained_variance_
        directions = int((variance_I > np.finfo(np.float32).eps * variance_I[0]).sum())
        if self.cb_dim > directions:
            raise ValueError(
                f"{len(x)} frames vary in {directions} directions only, got cb_dim={self.cb_dim}; "
                f"set cb_dim: under the quantiser in your YAML to fewer"
            )
        P_ID = pca.components_[: self.cb_dim].T / np.sqrt(variance_I[: self.cb_dim])
        self.P.copy_(torch.from_numpy(P_ID))  # into every codebook
        self.shift.copy_(torch.from_numpy(-pca.mean_ @ P_ID))
        self.fitted.fill_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Codes of frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time), or (batch, time, num_codebooks) if there are several
            codebooks. A frame whose projection is zero gets code 0. A frame that is not finite
            gets -1 (0 in SpeechBrain 1.1.2): pass ``ignore_index=-1`` to your own
            ``torch.nn.functional.cross_entropy``, or leave such frames out of the loss.
        """
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            codes_BTG = projected_codes_in_script(x, self.P, self.CB, self.shift)
        else:
            codes_BTG = self.encode(x)
        return codes_BTG[..., 0] if self.num_codebooks == 1 else codes_BTG

    @override
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of frames, shape (batch, time, num_codebooks); see ``Quantiser.encode``."""
        check_frames(x, self.input_dim)
        if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            return scripted()(x, self.P, self.CB, self.shift)
        P_GID = self.P.view(-1, self.input_dim, self.cb_dim)
        CB_GVD = self.CB.view(-1, self.cb_vocab, self.cb_dim)
        if CB_GVD.dtype in (torch.float16, torch.bfloat16):  # rounded norms are not 1
            CB_GVD = F.normalize(CB_GVD.float(), dim=-1)
        shift_GD = None if self.shift is None else self.shift.expand(len(P_GID), -1)
        codes_NG = projected_codes(x.detach().flatten(0, 1), P_GID, shift_GD, CB_GVD)
        return codes_NG.view(*x.shape[:2], self.num_codebooks)


@functools.cache
def scripted():
    """The search as TorchScript: a trace that contains it takes batches of any size."""
    return torch.jit.script(projected_codes_in_script)


def draw_tables(
    input_dim: int, cb_dim: int, cb_vocab: int, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A projection and a codebook, drawn as SpeechBrain draws them."""
    drawn_on = None if generator is None else generator.device
    empty_ID = torch.empty(input_dim, cb_dim, device=drawn_on)
    P_ID = torch.nn.init.xavier_uniform_(empty_ID, generator=generator)
    CB_VD = F.normalize(torch.randn(cb_vocab, cb_dim, generator=generator, device=drawn_on))
    return P_ID.to(torch.get_default_device()), CB_VD.to(torch.get_default_device())


def stack(tables: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """One table unchanged, as in SpeechBrain's ``state_dict``; several along a new dimension."""
    return tables[0] if len(tables) == 1 else torch.stack(tables)
