"""The Ray jobs, one module a job, and the `medfilip` command."""
