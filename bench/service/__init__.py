"""The service under load: uploads, polls, long queues, event streams, what a job costs besides.

Each part runs alone (`python -m bench.service.upload`, `.polling`, `.queue`, `.streams`,
`.overhead`) or all one after the other (`python -m bench.service`). Each prints what it measured
and whether the target is met, and writes it to `results.json` beside the others.
"""
