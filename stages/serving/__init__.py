"""The trained line behind an interface: tables of requests in, pictures out."""
