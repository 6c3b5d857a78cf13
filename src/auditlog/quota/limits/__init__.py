"""What a limit may be: kinds, periods, and what is wrong with one."""
