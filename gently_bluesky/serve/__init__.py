"""What others than the microscope's own process see of a root: HTTP, a page, tools for an agent.

Read-only but for tags and notes where the user allows it. Nothing here is imported by a process that acquires.
"""
