"""Class names come from data: on the page they are text, never markup."""

import numpy as np
import pytest

pytest.importorskip("streamlit")

from streamlit.testing.v1 import AppTest


def _script() -> None:
    import numpy as np

    from stages.page.gallery import show

    images = np.zeros((2, 1, 4, 4), np.uint8)
    show([('<img src=x onerror="1">', images)], [['"><script>', "b"]])


def test_captions_are_escaped() -> None:
    app = AppTest.from_function(_script).run(timeout=120)
    assert not app.exception
    [block] = app.get("html")
    text = block.proto.body
    assert "<script>" not in text and "<img src=x" not in text
    assert text.count('src="data:image/png;base64,') == 2
    assert np.char.count(text, "&lt;img src=x").item() == 3
