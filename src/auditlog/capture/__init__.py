"""Traffic → `LogRecord`: what passes is watched, judged by the policy, and redacted."""
