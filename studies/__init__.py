"""The application: the `mesoforge` command, studies from end to end, and their reports."""
