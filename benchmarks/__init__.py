"""Measurements that take longer than a test, each a program that writes its results."""
