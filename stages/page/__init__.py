"""The web page of a trained line: a view per file, drawn with Streamlit."""
