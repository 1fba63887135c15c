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

import errno

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
    "explained",
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


def explained(error: Exception) -> str | None:
    """What a user can mend of what the system refused; None where that is not known."""
    if isinstance(error, OSError):
        return _refused(error)
    # By name, for flows import no torch; on a CPU it raises nothing of its own.
    of_torch = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    if isinstance(error, MemoryError) or of_torch:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return (
            f"memory does not suffice ({first}); take fewer at once "
            "(batch_size, or more pieces of a batch), or a smaller network, and run again"
        )
    return None


def _refused(error: OSError) -> str | None:
    # Of a copy or a move the second is the one that is written.
    place = error.filename2 or error.filename
    where = f" ({place})" if place else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}; free some space and run again: "
            "finished work is kept and the stage goes on from there"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"may not write or read{where}: {error.strerror}; mend the permissions and run again"
    if error.errno == errno.EFBIG:
        return f"no file may be that large here{where}; raise the limit (`ulimit -f`) and run again"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"a file is where a folder must be, or the other way round{where}; move it away"
    return None
