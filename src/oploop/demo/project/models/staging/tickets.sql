MODEL (
  name staging.tickets,
  kind VIEW,
  description 'Tickets that can still be changed (Zendesk takes no change to closed ones).',
  column_descriptions (
    is_open = 'Somebody still waits: new, open, pending or on hold',
    is_our_turn = 'The customer waits for us; pending: we wait for the customer'
  ),
  audits (
    unique_values(columns := (ticket_id)),
    not_null(columns := (ticket_id, opened_on))
  )
);

SELECT
  id AS ticket_id,
  requester_id AS user_id,
  subject,
  status,
  status IN ('new', 'open', 'pending', 'hold') AS is_open,
  status <> 'pending' AS is_our_turn,
  CAST(created_at AT TIME ZONE 'UTC' AS DATE) AS opened_on
FROM raw_zendesk.tickets
WHERE
  status IN ('new', 'open', 'pending', 'hold', 'solved')
