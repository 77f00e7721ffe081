"""``python -m brainquant.cli``, also for ``torchrun -m``."""

from . import main

if __name__ == "__main__":
    main()
