"""The tasks of the command line: each module's ``run(cfg, folder)`` does one."""
