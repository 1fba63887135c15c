"""First stages: how backbone, bottleneck and likelihood are joined; one per file."""
