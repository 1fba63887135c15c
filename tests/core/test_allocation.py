"""Memory that is freed is there again without the kernel."""

import platform
import subprocess
import sys

import pytest

PAGES_TOUCHED = """
import resource
import torch
from stages.core.allocation import keep_freed_memory
{before}
def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    held = [torch.ones(1 << 24) for _ in range(2)]
for _ in range(20):
    step()
start = page_faults()
for _ in range(10):
    step()
print(page_faults() - start)
"""


def page_faults(project, before):
    program = PAGES_TOUCHED.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked")
def test_a_step_takes_the_memory_that_the_last_one_freed(project):
    # Blocks of 64 MB are maps of their own wherever nobody asks: glibc's own limit grows to 32.
    # Before, the heap grows for some steps, until freed blocks fit whatever their alignment.
    assert 4 * page_faults(project, "keep_freed_memory()") < page_faults(project, "")
