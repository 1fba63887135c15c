"""The page itself: which views there are. Streamlit runs this file for every visitor.

`python -m stages.open_page` starts it, with the limits it relies on.
"""

import numpy as np
import streamlit as st
from PIL import Image

from stages.page import (
    codebook_view,
    complete_view,
    interpolate_view,
    rebuild_view,
    sample_view,
    walk_view,
)

VIEWS = {
    "sample": (sample_view.view, "Sample", "casino"),
    "complete": (complete_view.view, "Complete", "contrast"),
    "reconstruct": (rebuild_view.view, "Reconstruct", "compare"),
    "interpolate": (interpolate_view.view, "Interpolate", "linear_scale"),
    "walk": (walk_view.view, "Latent walk", "tune"),
    "codebook": (codebook_view.view, "Codebook", "grid_view"),
}

# Of pixels and not one of Streamlit's named icons, which browsers would fetch from elsewhere.
ICON = Image.fromarray(
    np.kron(np.array([[214, 96], [40, 160]], np.uint8), np.ones((16, 16), np.uint8))
)

st.set_page_config(page_title="Latentline", page_icon=ICON, layout="centered")
pages = [
    st.Page(view, title=title, icon=f":material/{icon}:", url_path=path, default=path == "sample")
    for path, (view, title, icon) in VIEWS.items()
]
st.navigation(pages, position="top").run()
