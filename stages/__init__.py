"""WHAT the line does: the programs DVC runs, and the library beneath them."""

import os

# OpenMP's threads spin at every barrier. When anything else wants a core (the tracker, a server),
# the spinning thread keeps it from the one everybody waits for, and a training step takes five
# times as long. So they spin for a moment only, and then wait asleep; it must be said before torch
# is imported, and it changes no number.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "200000")
