"""The table: every case on every server, in every shape of a handler."""

import rpc_error_cases
import rpc_status_cases
import rpc_wire_cases
from rpc_case import rows_of

ROWS = rows_of([*rpc_status_cases.CASES, *rpc_error_cases.CASES, *rpc_wire_cases.CASES])
