MODEL (
  name mart.ticket_priority,
  kind VIEW,
  audits (unique_values(columns := (ticket_id)), not_null(columns := (priority)))
);

SELECT
  t.id AS ticket_id,
  s.spend_pence,
  CASE WHEN s.spend_pence >= 100000 THEN 'urgent' WHEN s.spend_pence >= 30000 THEN 'high'
       WHEN s.spend_pence > 0 THEN 'normal' ELSE 'low' END AS priority
FROM raw_zendesk.tickets t
JOIN raw_zendesk.users u ON u.id = t.requester_id
JOIN mart.spend s ON s.customer_id = u.external_id
WHERE t.status NOT IN ('solved', 'closed')
