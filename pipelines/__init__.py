"""The Ray jobs and the `medfilip` command.

A job is a module with ``SETTINGS`` and ``run`` (`pipelines.job` lists them). Parts of jobs stand beside them:

- ingest: `pipelines.images`, `pipelines.row_index`
- extract: `pipelines.sentences`, `pipelines.engines`, `pipelines.vllm_plan`, `pipelines.findings_cache`,
  `pipelines.mentions`
- all: `pipelines.runtime`; the command: `pipelines.cli`, `pipelines.console`, `pipelines.demo`, `pipelines.export`,
  `pipelines.submit`
"""
