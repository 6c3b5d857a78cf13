"""Tables cut by date: partitions made ahead, and retired when their time is over.

    catalog → state ┐
    file, flags → config ┴→ plan → apply → report

The plan is a pure function, and what is applied is the plan: each step looks again, under its
lock, whether what it was planned for is still there.
"""
