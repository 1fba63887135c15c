"""Who writes a run, and whether it still lives."""

import os
import platform
import time

import psutil

from stages.core.provenance import ATTEMPT_TAG, process_tags, provenance_tags, writer_lives


def test_tags_of_a_stage_name_its_process_and_its_attempt() -> None:
    tags = provenance_tags("encode", "abc", None, attempt=3)
    assert tags[ATTEMPT_TAG] == "3"
    assert process_tags().items() <= tags.items()


def test_a_living_writer_is_told_from_a_dead_one_and_from_one_with_its_number() -> None:
    now = 1000 * int(time.time())
    assert writer_lives(process_tags(), now) is True
    gone = {"latentline.host": platform.node(), "latentline.pid": "999999999"}
    assert writer_lives(gone, now) is False
    # The number was given to this process, which is younger than the run.
    before = int(1000 * psutil.Process(os.getpid()).create_time()) - 60_000
    assert writer_lives(process_tags(), before) is False
    assert writer_lives({"latentline.host": "elsewhere", "latentline.pid": "1"}, now) is None
    assert writer_lives({}, now) is None
