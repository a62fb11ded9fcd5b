"""Networks, training and use of models: the wing in which torch lives."""

import os

# Threads that wait for each other spin for milliseconds by default. On a machine with other work that
# burns the cores the threads wait for: a training step took 4 s instead of 0.9 s. Read by OpenMP when
# torch is first imported, so it stands here, before any module of this wing imports it.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
