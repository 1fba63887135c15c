"""What came out, in MLflow: the record of a line, its files and pages."""
