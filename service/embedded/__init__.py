"""Embedded mode: the whole product on one machine, started with one command.

SQLite, a broker made of files, a local artifact folder, and three child processes: the API, the
dispatcher and a worker.
"""
