"""What the benchmarks of speed share: contenders in turns, the ceiling, results as files."""
