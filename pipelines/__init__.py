"""The Ray jobs and the `medfilip` command.

A job is a module with ``SETTINGS`` and ``run`` (`pipelines.job` lists them). Parts of jobs stand beside them:

- ingest: `pipelines.images`, `pipelines.row_index`
- extract: `pipelines.sentences` (phase 1), `pipelines.engine_run` (2), `pipelines.settle`, `pipelines.mentions` (3);
  engines: `pipelines.engines`, `pipelines.vllm_plan`, `pipelines.vllm_actor`, `pipelines.llm_settings`,
  `pipelines.attempts`; and `pipelines.findings_cache`, `pipelines.forecast`
- all: `pipelines.runtime`, `pipelines.progress`; the command: `pipelines.cli`, `pipelines.console`, `pipelines.demo`,
  `pipelines.export`, `pipelines.submit`
"""
