"""The tables and views of schema `projections`: what the application's events add up to.

Described like the tables of `tables.py` and compared with the database by the same test. The
sink does not write them.
"""

from auditlog.schema import Column, Index, Table, View, identifier, instant

ACTIONS = Table(
    "projections",
    "actions",
    (
        identifier("id"),
        identifier("instance_id"),
        identifier("resource_owner"),
        instant("creation_date"),
        instant("change_date"),
        Column("sequence", "bigint"),
        Column("name", "text"),
        Column("script", "text"),
        Column("timeout", "interval", default="'00:00:10'::interval"),
        Column("allowed_to_fail", "boolean", default="false"),
        Column("state", "smallint", default="1"),
    ),
    ("instance_id", "id"),
    (
        Index(
            "actions_of_resource_owner",
            "instance_id, resource_owner",
            "The actions of an organisation",
            "SELECT * FROM projections.actions"
            " WHERE instance_id = 'tenant-7' AND resource_owner = 'org-47'",
        ),
        Index(
            "actions_inactive",
            "instance_id",
            "The inactive actions of a tenant",
            "SELECT * FROM projections.actions WHERE instance_id = 'tenant-7' AND state = 2",
            where="state <> 1",
        ),
        Index(
            "actions_by_change",
            "instance_id, change_date DESC",
            "The actions changed last",
            "SELECT * FROM projections.actions WHERE instance_id = 'tenant-7'"
            " ORDER BY change_date DESC LIMIT 50",
        ),
    ),
)

ACTION_FLOWS = Table(
    "projections",
    "action_flows",
    (
        identifier("flow_type"),
        identifier("trigger_type"),
        identifier("action_id"),
        identifier("instance_id"),
        identifier("resource_owner"),
        instant("creation_date"),
        instant("change_date"),
        Column("sequence", "bigint"),
        Column("trigger_sequence", "smallint", default="0"),
    ),
    ("instance_id", "flow_type", "trigger_type", "action_id"),
    (
        Index(
            "action_flows_of_action",
            "instance_id, action_id",
            "The flows that an action takes part in",
            "SELECT * FROM projections.action_flows"
            " WHERE instance_id = 'tenant-7' AND action_id = 'action-4711'",
        ),
    ),
)

EXECUTIONS = Table(
    "projections",
    "executions",
    (
        identifier("id"),
        identifier("instance_id"),
        identifier("aggregate_type"),
        identifier("aggregate_id"),
        identifier("action_id"),
        instant("creation_date"),
        identifier("event_type"),
        Column("event_sequence", "bigint"),
        Column("targets", "jsonb", nullable=True),
    ),
    ("instance_id", "id"),
    (
        Index(
            "executions_of_aggregate",
            "instance_id, aggregate_type, aggregate_id, creation_date DESC",
            "The runs that one thing caused, newest first",
            "SELECT * FROM projections.executions WHERE instance_id = 'tenant-7'"
            " AND aggregate_type = 'order' AND aggregate_id = 'order-4711'"
            " ORDER BY creation_date DESC LIMIT 50",
        ),
        Index(
            "executions_of_action",
            "instance_id, action_id, creation_date DESC",
            "The newest runs of an action",
            "SELECT * FROM projections.executions WHERE instance_id = 'tenant-7'"
            " AND action_id = 'action-47' ORDER BY creation_date DESC LIMIT 50",
        ),
        Index(
            "executions_newest",
            "instance_id, creation_date DESC",
            "The newest runs of a tenant",
            "SELECT * FROM projections.executions WHERE instance_id = 'tenant-7'"
            " ORDER BY creation_date DESC LIMIT 50",
        ),
        Index(
            "executions_of_event",
            "instance_id, event_type, event_sequence",
            "The runs that one event caused",
            "SELECT * FROM projections.executions WHERE instance_id = 'tenant-7'"
            " AND event_type = 'order.paid' AND event_sequence = 4711",
        ),
    ),
)

EXECUTION_STATES = Table(
    "projections",
    "execution_states",
    (
        identifier("execution_id"),
        identifier("instance_id"),
        identifier("target_id"),
        Column("state", "smallint", default="0"),
        instant("started_at", default=None),
        instant("finished_at", default=None),
        Column("error_message", "text", nullable=True),
        Column("retry_count", "smallint", default="0"),
        Column("response", "jsonb", nullable=True),
    ),
    ("instance_id", "execution_id", "target_id"),
    (
        Index(
            "execution_states_unfinished",
            "instance_id, state",
            "The targets still pending or running",
            "SELECT * FROM projections.execution_states"
            " WHERE instance_id = 'tenant-7' AND state = 1 AND finished_at IS NULL",
            where="finished_at IS NULL",
        ),
        Index(
            "execution_states_finished",
            "instance_id, finished_at DESC",
            "The targets that ended last",
            "SELECT * FROM projections.execution_states WHERE instance_id = 'tenant-7'"
            " AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 50",
            where="finished_at IS NOT NULL",
        ),
    ),
)

MILESTONES = Table(
    "projections",
    "milestones",
    (
        identifier("id"),
        identifier("instance_id"),
        Column("milestone_type", "smallint"),
        identifier("aggregate_type"),
        identifier("aggregate_id"),
        identifier("name"),
        instant("reached_date", default=None),
        instant("pushed_date", default=None),
        Column("primary_domain", "text", nullable=True),
        instant("creation_date"),
        instant("change_date"),
        Column("sequence", "bigint"),
    ),
    ("instance_id", "id"),
    (
        Index(
            "milestones_of_aggregate",
            "instance_id, aggregate_type, aggregate_id",
            "The milestones of one thing",
            "SELECT * FROM projections.milestones WHERE instance_id = 'tenant-7'"
            " AND aggregate_type = 'user' AND aggregate_id = 'user-4711'",
        ),
        Index(
            "milestones_by_name",
            "instance_id, name",
            "Who has a milestone of this name",
            "SELECT aggregate_id FROM projections.milestones"
            " WHERE instance_id = 'tenant-7' AND name = 'org_smtp_configured'",
        ),
        Index(
            "milestones_reached",
            "instance_id, reached_date DESC",
            "The milestones reached last",
            "SELECT * FROM projections.milestones WHERE instance_id = 'tenant-7'"
            " AND reached_date IS NOT NULL ORDER BY reached_date DESC LIMIT 50",
            where="reached_date IS NOT NULL",
        ),
        Index(
            "milestones_unreached",
            "instance_id, milestone_type",
            "The milestones of a type not reached yet",
            "SELECT * FROM projections.milestones"
            " WHERE instance_id = 'tenant-7' AND milestone_type = 3 AND reached_date IS NULL",
            where="reached_date IS NULL",
        ),
    ),
)

PROJECTIONS = (ACTIONS, ACTION_FLOWS, EXECUTIONS, EXECUTION_STATES, MILESTONES)

VIEWS = (
    View("projections", "milestone_types", (("type_id", "integer"), ("type_name", "text"))),
    View(
        "projections",
        "common_milestones",
        (("milestone_name", "text"), ("milestone_type", "integer"), ("description", "text")),
    ),
)
