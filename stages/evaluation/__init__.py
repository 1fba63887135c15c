"""The parts of the stage `evaluate`: look at the line, judge it, draw it, write the report."""
