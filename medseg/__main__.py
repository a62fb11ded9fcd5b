"""``python -m medseg VERB``: the command line, where a module is asked for (``torchrun -m medseg ...``)."""

import sys

from medseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
