"""The errors a user can cause, and the two ways a stage stops without being wrong.

    LatentlineError               one clear message, exit status 1, no traceback
    ├── ParamsError               params.yaml: names the field, what must hold, what came
    ├── DataError                 images, folders, archives a user gave
    ├── ArtifactError             the output of an earlier stage is missing, damaged or foreign
    ├── DivergenceError           a non-finite loss: names the step and the last good checkpoint
    └── CollapseError             latents that say nothing, where the parameters say to stop then
    Interrupted                   SIGTERM or SIGINT: state is saved; exit status 75, run again

Anything else that reaches the top is a defect of ours and keeps its traceback.
"""

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_USER_ERROR",
    "ArtifactError",
    "CollapseError",
    "DataError",
    "DivergenceError",
    "Interrupted",
    "LatentlineError",
    "ParamsError",
]

EXIT_USER_ERROR = 1
# sysexits.h EX_TEMPFAIL: "try again later". Schedulers retry on it, and only on it.
EXIT_INTERRUPTED = 75


class LatentlineError(ValueError):
    """What a user can cause and mend; the message says what must hold, what came, what to do."""


class ParamsError(LatentlineError):
    """A parameter is missing, unknown, of the wrong type, or at odds with another."""


class DataError(LatentlineError):
    """Input data are missing, corrupt, or not what the parameters promise."""


class ArtifactError(LatentlineError):
    """The output of an earlier stage is missing, damaged, or does not belong to its neighbour."""


class DivergenceError(LatentlineError):
    """Training met a non-finite loss or gradient."""


class CollapseError(LatentlineError):
    """Too many latent dimensions or codes carry nothing, and `collapse.stop` is true."""


class Interrupted(Exception):
    """The stage was asked to stop; what it had is saved and the next run goes on from there."""
