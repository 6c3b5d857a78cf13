"""The spool: encoded tuples in segment files, which outlive the process that wrote them."""
