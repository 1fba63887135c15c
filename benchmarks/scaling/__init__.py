"""How fast a training becomes with more processes, and what large ones would take."""
