"""What runs on the machine: servers, the worker, and what is told when something goes wrong."""
