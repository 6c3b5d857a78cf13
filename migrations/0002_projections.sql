-- What the application's events add up to: actions, what triggers them, their runs, and the
-- milestones that were reached.

DO $$
BEGIN
    IF to_regnamespace('projections') IS NULL THEN
        CREATE SCHEMA projections;
    END IF;
END
$$;
COMMENT ON SCHEMA projections IS
    'State derived from events: actions and their runs, milestones. Unlike logstore it is updated.';

CREATE TABLE projections.actions (
    id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    resource_owner text COLLATE "C" NOT NULL,
    creation_date timestamptz NOT NULL DEFAULT now(),
    change_date timestamptz NOT NULL DEFAULT now(),
    sequence bigint NOT NULL,
    name text NOT NULL,
    script text NOT NULL,
    timeout interval NOT NULL DEFAULT '10 seconds',
    allowed_to_fail boolean NOT NULL DEFAULT false,
    state smallint NOT NULL DEFAULT 1,
    CONSTRAINT actions_pkey PRIMARY KEY (instance_id, id),
    CONSTRAINT actions_timeout_not_negative CHECK (timeout >= '0 seconds'),
    CONSTRAINT actions_state_known CHECK (state BETWEEN 1 AND 2)
);
COMMENT ON TABLE projections.actions IS 'Pieces of work that events can trigger.';
COMMENT ON COLUMN projections.actions.id IS 'Identity of the action within its tenant.';
COMMENT ON COLUMN projections.actions.instance_id IS 'Tenant that the action belongs to.';
COMMENT ON COLUMN projections.actions.resource_owner IS 'Organisation that owns the action.';
COMMENT ON COLUMN projections.actions.creation_date IS 'When the action was added.';
COMMENT ON COLUMN projections.actions.change_date IS 'When it was last changed.';
COMMENT ON COLUMN projections.actions.sequence IS
    'Number of the last event applied; an older event must not undo it.';
COMMENT ON COLUMN projections.actions.name IS 'Name that people gave it.';
COMMENT ON COLUMN projections.actions.script IS 'What it does.';
COMMENT ON COLUMN projections.actions.timeout IS 'How long one run may take.';
COMMENT ON COLUMN projections.actions.allowed_to_fail IS
    'Whether the flow goes on when the action fails.';
COMMENT ON COLUMN projections.actions.state IS '1 active, 2 inactive.';

CREATE TABLE projections.action_flows (
    flow_type text COLLATE "C" NOT NULL,
    trigger_type text COLLATE "C" NOT NULL,
    action_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    resource_owner text COLLATE "C" NOT NULL,
    creation_date timestamptz NOT NULL DEFAULT now(),
    change_date timestamptz NOT NULL DEFAULT now(),
    sequence bigint NOT NULL,
    trigger_sequence smallint NOT NULL DEFAULT 0,
    CONSTRAINT action_flows_pkey PRIMARY KEY (instance_id, flow_type, trigger_type, action_id)
);
COMMENT ON TABLE projections.action_flows IS 'Which actions run at which point of which flow.';
COMMENT ON COLUMN projections.action_flows.flow_type IS 'The flow, such as a login.';
COMMENT ON COLUMN projections.action_flows.trigger_type IS 'The point within the flow.';
COMMENT ON COLUMN projections.action_flows.action_id IS 'The action to run: projections.actions.id.';
COMMENT ON COLUMN projections.action_flows.instance_id IS 'Tenant that the flow belongs to.';
COMMENT ON COLUMN projections.action_flows.resource_owner IS 'Organisation that owns the flow.';
COMMENT ON COLUMN projections.action_flows.creation_date IS 'When the action was put into the flow.';
COMMENT ON COLUMN projections.action_flows.change_date IS 'When this was last changed.';
COMMENT ON COLUMN projections.action_flows.sequence IS 'Number of the last event applied.';
COMMENT ON COLUMN projections.action_flows.trigger_sequence IS
    'Order among the actions of one trigger, smallest first.';

CREATE TABLE projections.executions (
    id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    action_id text COLLATE "C" NOT NULL,
    creation_date timestamptz NOT NULL DEFAULT now(),
    event_type text COLLATE "C" NOT NULL,
    event_sequence bigint NOT NULL,
    targets jsonb,
    CONSTRAINT executions_pkey PRIMARY KEY (instance_id, id)
);
COMMENT ON TABLE projections.executions IS 'One row for each time an event ran an action.';
COMMENT ON COLUMN projections.executions.id IS 'Identity of the run within its tenant.';
COMMENT ON COLUMN projections.executions.instance_id IS 'Tenant that the run belongs to.';
COMMENT ON COLUMN projections.executions.aggregate_type IS 'Kind of thing whose event it was.';
COMMENT ON COLUMN projections.executions.aggregate_id IS 'Which one of that kind.';
COMMENT ON COLUMN projections.executions.action_id IS 'The action that ran: projections.actions.id.';
COMMENT ON COLUMN projections.executions.creation_date IS 'When the run was ordered.';
COMMENT ON COLUMN projections.executions.event_type IS 'The event that triggered it.';
COMMENT ON COLUMN projections.executions.event_sequence IS
    'Number of that event in the history of its aggregate.';
COMMENT ON COLUMN projections.executions.targets IS
    'What was to be called: an array of methods, functions or web hooks.';

CREATE TABLE projections.execution_states (
    execution_id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    target_id text COLLATE "C" NOT NULL,
    state smallint NOT NULL DEFAULT 0,
    started_at timestamptz,
    finished_at timestamptz,
    error_message text,
    retry_count smallint NOT NULL DEFAULT 0,
    response jsonb,
    CONSTRAINT execution_states_pkey PRIMARY KEY (instance_id, execution_id, target_id),
    CONSTRAINT execution_states_state_known CHECK (state BETWEEN 0 AND 4),
    CONSTRAINT execution_states_retry_count_not_negative CHECK (retry_count >= 0)
);
COMMENT ON TABLE projections.execution_states IS 'How far each target of a run has come.';
COMMENT ON COLUMN projections.execution_states.execution_id IS 'The run: projections.executions.id.';
COMMENT ON COLUMN projections.execution_states.instance_id IS 'Tenant that the run belongs to.';
COMMENT ON COLUMN projections.execution_states.target_id IS 'The target within the run.';
COMMENT ON COLUMN projections.execution_states.state IS
    '0 pending, 1 running, 2 success, 3 failed, 4 timeout.';
COMMENT ON COLUMN projections.execution_states.started_at IS 'When the target was first called.';
COMMENT ON COLUMN projections.execution_states.finished_at IS 'When it ended, however it ended.';
COMMENT ON COLUMN projections.execution_states.error_message IS 'Why it failed.';
COMMENT ON COLUMN projections.execution_states.retry_count IS 'Calls after the first.';
COMMENT ON COLUMN projections.execution_states.response IS 'What the target answered.';

CREATE TABLE projections.milestones (
    id text COLLATE "C" NOT NULL,
    instance_id text COLLATE "C" NOT NULL,
    milestone_type smallint NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    aggregate_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    reached_date timestamptz,
    pushed_date timestamptz,
    primary_domain text,
    creation_date timestamptz NOT NULL DEFAULT now(),
    change_date timestamptz NOT NULL DEFAULT now(),
    sequence bigint NOT NULL,
    CONSTRAINT milestones_pkey PRIMARY KEY (instance_id, id),
    CONSTRAINT milestones_milestone_type_known CHECK (milestone_type BETWEEN 1 AND 4)
);
COMMENT ON TABLE projections.milestones IS 'Things worth reaching, and when they were reached.';
COMMENT ON COLUMN projections.milestones.id IS 'Identity of the milestone within its tenant.';
COMMENT ON COLUMN projections.milestones.instance_id IS 'Tenant that the milestone belongs to.';
COMMENT ON COLUMN projections.milestones.milestone_type IS
    '1 instance, 2 organization, 3 project, 4 user; named in projections.milestone_types.';
COMMENT ON COLUMN projections.milestones.aggregate_type IS 'Kind of thing that reaches it.';
COMMENT ON COLUMN projections.milestones.aggregate_id IS 'Which one of that kind.';
COMMENT ON COLUMN projections.milestones.name IS
    'Name of the milestone; the usual ones are in projections.common_milestones.';
COMMENT ON COLUMN projections.milestones.reached_date IS 'When it was reached; null until then.';
COMMENT ON COLUMN projections.milestones.pushed_date IS 'When others were told; null until then.';
COMMENT ON COLUMN projections.milestones.primary_domain IS 'Domain of the tenant at that time.';
COMMENT ON COLUMN projections.milestones.creation_date IS 'When the row was made.';
COMMENT ON COLUMN projections.milestones.change_date IS 'When it was last changed.';
COMMENT ON COLUMN projections.milestones.sequence IS 'Number of the last event applied.';

CREATE VIEW projections.milestone_types (type_id, type_name) AS
VALUES
    (1, 'INSTANCE'::text),
    (2, 'ORGANIZATION'),
    (3, 'PROJECT'),
    (4, 'USER');
COMMENT ON VIEW projections.milestone_types IS 'Names of milestones.milestone_type.';
COMMENT ON COLUMN projections.milestone_types.type_id IS 'The number in milestones.milestone_type.';
COMMENT ON COLUMN projections.milestone_types.type_name IS 'Its name.';

CREATE VIEW projections.common_milestones (milestone_name, milestone_type, description) AS
VALUES
    ('instance_created'::text, 1, 'The instance exists'::text),
    ('instance_custom_domain', 1, 'The instance answers under a domain of its own'),
    ('org_created', 2, 'The organization exists'),
    ('org_custom_domain', 2, 'The organization has a domain of its own'),
    ('org_smtp_configured', 2, 'The organization can send mail'),
    ('project_created', 3, 'The project exists'),
    ('project_app_added', 3, 'The project has its first application'),
    ('project_role_added', 3, 'The project has its first role'),
    ('user_created', 4, 'The user exists'),
    ('user_email_verified', 4, 'The address of the user is proven'),
    ('user_phone_verified', 4, 'The phone number of the user is proven'),
    ('user_mfa_enabled', 4, 'The user signs in with a second factor'),
    ('user_first_login', 4, 'The user has signed in for the first time');
COMMENT ON VIEW projections.common_milestones IS 'Milestones that most services care about.';
COMMENT ON COLUMN projections.common_milestones.milestone_name IS 'Value for milestones.name.';
COMMENT ON COLUMN projections.common_milestones.milestone_type IS
    'Value for milestones.milestone_type.';
COMMENT ON COLUMN projections.common_milestones.description IS 'What reaching it means.';

-- Lookups that the beginning of a primary key already serves have no index of their own: the
-- actions of a trigger, the targets of an execution.
CREATE INDEX actions_of_resource_owner ON projections.actions (instance_id, resource_owner);
CREATE INDEX actions_inactive ON projections.actions (instance_id) WHERE state <> 1;
CREATE INDEX actions_by_change ON projections.actions (instance_id, change_date DESC);
CREATE INDEX action_flows_of_action ON projections.action_flows (instance_id, action_id);
CREATE INDEX executions_of_aggregate
    ON projections.executions (instance_id, aggregate_type, aggregate_id, creation_date DESC);
CREATE INDEX executions_of_action
    ON projections.executions (instance_id, action_id, creation_date DESC);
CREATE INDEX executions_newest ON projections.executions (instance_id, creation_date DESC);
CREATE INDEX executions_of_event
    ON projections.executions (instance_id, event_type, event_sequence);
CREATE INDEX execution_states_unfinished ON projections.execution_states (instance_id, state)
    WHERE finished_at IS NULL;
CREATE INDEX execution_states_finished
    ON projections.execution_states (instance_id, finished_at DESC)
    WHERE finished_at IS NOT NULL;
CREATE INDEX milestones_of_aggregate
    ON projections.milestones (instance_id, aggregate_type, aggregate_id);
CREATE INDEX milestones_by_name ON projections.milestones (instance_id, name);
CREATE INDEX milestones_reached ON projections.milestones (instance_id, reached_date DESC)
    WHERE reached_date IS NOT NULL;
CREATE INDEX milestones_unreached ON projections.milestones (instance_id, milestone_type)
    WHERE reached_date IS NULL;

COMMENT ON INDEX projections.actions_of_resource_owner IS 'The actions of an organisation';
COMMENT ON INDEX projections.actions_inactive IS 'The inactive actions of a tenant';
COMMENT ON INDEX projections.actions_by_change IS 'The actions changed last';
COMMENT ON INDEX projections.action_flows_of_action IS 'The flows that an action takes part in';
COMMENT ON INDEX projections.executions_of_aggregate IS 'The runs that one thing caused, newest first';
COMMENT ON INDEX projections.executions_of_action IS 'The newest runs of an action';
COMMENT ON INDEX projections.executions_newest IS 'The newest runs of a tenant';
COMMENT ON INDEX projections.executions_of_event IS 'The runs that one event caused';
COMMENT ON INDEX projections.execution_states_unfinished IS 'The targets still pending or running';
COMMENT ON INDEX projections.execution_states_finished IS 'The targets that ended last';
COMMENT ON INDEX projections.milestones_of_aggregate IS 'The milestones of one thing';
COMMENT ON INDEX projections.milestones_by_name IS 'Who has a milestone of this name';
COMMENT ON INDEX projections.milestones_reached IS 'The milestones reached last';
COMMENT ON INDEX projections.milestones_unreached IS 'The milestones of a type not reached yet';

REVOKE ALL ON SCHEMA projections FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA projections FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (2, 'projections');
