"""What a run is asked to do: presets and values over params.yaml, forms, words."""
