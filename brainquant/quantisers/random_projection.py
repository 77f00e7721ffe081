"""Random-projection quantiser of BEST-RQ.

Shape suffixes: B batch, T time, N = B * T frames, G codebooks, D code dim, V codes, I input dim.
"""

import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA

from ..functional.nearest import projected_codes
from .base import Quantiser, check_frames, check_positive
from .fitted import load_fitted, whitening

FRAMES_TO_FIT = 25_000


class RandomProjectionQuantizer(Quantiser):
    """Index of the random code that is nearest to a random projection of the frame.

    Nothing in it is trained (Chiu et al., https://arxiv.org/abs/2202.01855). The interface,
    the ``state_dict`` (``P``, ``CB``) and, for the same seed, the tables and codes are those of
    ``speechbrain.nnet.quantisers.RandomProjectionQuantizer``, which builds a tensor of (batch,
    codes, time, dim) in 1.1.2 and changes its codes under autocast; this one does neither.

    Arguments
    ---------
    input_dim : int
        Size of a frame.
    cb_dim : int
        Size of a code.
    cb_vocab : int
        Number of codes of a codebook.
    num_codebooks : int
        Codebooks, each with a projection of its own: 16 in USM (https://arxiv.org/abs/2303.01037);
        several beat one (https://arxiv.org/abs/2501.16131). ``P`` and ``CB`` then have them as
        their first dimension.
    seed : int or None
        Draws the tables from a generator of their own, so that they do not depend on what was
        built before. None draws from the global one, as SpeechBrain does.
    projection : str or None
        Path of the file that ``brainquant pca`` writes: principal components of the features,
        of unit variance, take the place of the random projection of every codebook
        (https://arxiv.org/abs/2606.30671). The ``state_dict`` then has ``shift`` too.
    whiten : bool
        Whether ``fit`` puts such components there, from frames of the corpus: a Brain calls it
        before the first step. Neighbouring bins and frames say nearly the same, and a random
        projection of them has few directions and few codes; BEST-RQ asks for inputs of zero mean
        and unit variance. The ``state_dict`` then has ``shift`` and ``fitted`` too.

    Raises
    ------
    ValueError
        Where a size is not a positive integer, the file is missing or was fitted to other
        sizes, both a file and ``whiten`` are given, or a frame has another size than input_dim.

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

    def __init__(
        self,
        input_dim,
        cb_dim,
        cb_vocab,
        *,
        num_codebooks=1,
        seed=None,
        projection=None,
        whiten=False,
    ):
        super().__init__()
        check_positive(
            input_dim=input_dim, cb_dim=cb_dim, cb_vocab=cb_vocab, num_codebooks=num_codebooks
        )
        self.input_dim = input_dim
        self.cb_dim = cb_dim
        self.cb_vocab = cb_vocab
        self.num_codebooks = num_codebooks
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        tables = [draw_tables(input_dim, cb_dim, cb_vocab, generator) for _ in range(num_codebooks)]
        projections, codebooks = zip(*tables)
        shift_D = torch.zeros(cb_dim) if whiten else None
        if projection is not None:
            if whiten:
                raise ValueError(
                    f"whiten: True would fit what projection: {projection} has fitted already; "
                    f"keep one of them under the quantiser in your YAML"
                )
            P_ID, shift_D = load_projection(projection, input_dim, cb_dim)
            projections = [P_ID] * num_codebooks
        self.register_buffer("P", stack(projections))
        self.register_buffer("CB", stack(codebooks))
        self.register_buffer("shift", shift_D)
        self.register_buffer("fitted", torch.tensor(False) if whiten else None)

    @property
    def codebook_size(self):
        """Number of codes of a codebook."""
        return self.cb_vocab

    @property
    def frames_to_fit(self):
        """Frames that ``fit`` asks for, where ``whiten`` is set: 17 minutes of speech."""
        return 0 if self.fitted is None or self.fitted else FRAMES_TO_FIT

    def fit(self, x):
        """Whitens the projection; see ``Quantiser.fit``.

        Raises
        ------
        ValueError
            Where the frames vary in fewer than ``cb_dim`` directions.
        """
        pca = PCA(svd_solver="full").fit(x.double().cpu().numpy())
        P_ID, shift_D = whitening(pca, self.cb_dim, len(x), argument="cb_dim")
        self.P.copy_(P_ID)  # into every codebook
        self.shift.copy_(shift_D)
        self.fitted.fill_(True)

    def forward(self, x):
        """Codes of frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape (batch, time, input_dim).

        Returns
        -------
        codes : torch.Tensor
            LongTensor, shape (batch, time), or (batch, time, num_codebooks) where there are
            several. A frame that projects to zeros gets code 0; one that is not finite gets -1.
        """
        codes_BTG = self.encode(x)
        return codes_BTG[..., 0] if self.num_codebooks == 1 else codes_BTG

    def encode(self, x):
        """Codes of frames, shape (batch, time, num_codebooks); see ``Quantiser.encode``."""
        check_frames(x, self.input_dim)
        P_GID = self.P.view(-1, self.input_dim, self.cb_dim)
        CB_GVD = self.CB.view(-1, self.cb_vocab, self.cb_dim)
        shift_GD = None if self.shift is None else self.shift.expand(len(P_GID), -1)
        codes_NG = projected_codes(x.detach().flatten(0, 1), P_GID, shift_GD, CB_GVD)
        return codes_NG.view(*x.shape[:2], self.num_codebooks)


def draw_tables(input_dim, cb_dim, cb_vocab, generator):
    """A projection and a codebook, drawn as SpeechBrain does."""
    P_ID = torch.nn.init.xavier_uniform_(torch.empty(input_dim, cb_dim), generator=generator)
    return P_ID, F.normalize(torch.randn(cb_vocab, cb_dim, generator=generator))


def stack(tables):
    """One table as it is, as in SpeechBrain's ``state_dict``; several with one more dimension."""
    return tables[0] if len(tables) == 1 else torch.stack(tables)


def load_projection(path, input_dim, cb_dim):
    """The projection and the shift that ``brainquant pca`` fitted, after a check of their sizes."""
    command = f"brainquant pca <recipe's YAML> --dim {cb_dim} --output {path}"
    P_ID, shift_D = load_fitted(path, ["P", "offset"], argument="projection", command=command)
    if P_ID.shape != (input_dim, cb_dim):
        raise ValueError(
            f"projection: {path} was fitted from {len(P_ID)} to {len(shift_D)} values, but "
            f"input_dim is {input_dim} and cb_dim {cb_dim}; fit it again with: {command}"
        )
    return P_ID, shift_D
