"""Kernels of our own, in C++ and Triton, and the operators by which compiled code calls them."""
