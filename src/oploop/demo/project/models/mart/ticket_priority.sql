MODEL (
  name mart.ticket_priority,
  kind FULL,
  grain ticket_id,
  description 'How soon each ticket should be looked at, and why.',
  column_descriptions (
    waiting_days = 'Days that the customer has waited for us, by staging.clock; 0 while we wait for the customer',
    score = '0.7 * health + plan (Enterprise 20, Team 10, Starter 4) + waiting (7 days 10, 3 days 5)',
    priority = 'urgent from 70, high from 50, normal from 30, else low; normal for people who are nobody''s customer',
    reason = 'One line for the agent. No "3 days ago" and no cents in it, so that it changes only when it matters'
  ),
  audits (
    unique_values(columns := (ticket_id)),
    not_null(columns := (ticket_id, priority, reason)),
    accepted_values(column := priority, is_in := ('low', 'normal', 'high', 'urgent'))
  )
);

WITH tickets AS (
  SELECT
    t.ticket_id,
    t.subject,
    t.status,
    t.is_open,
    t.opened_on,
    CASE WHEN t.is_our_turn THEN GREATEST(CAST(k.as_of - t.opened_on AS INTEGER), 0) ELSE 0 END AS waiting_days,
    r.customer_id
  FROM staging.tickets AS t
  CROSS JOIN staging.clock AS k
  LEFT JOIN staging.requesters AS r
    ON r.user_id = t.user_id
), scored AS (
  SELECT
    t.*,
    h.name AS account,
    h.plan,
    h.state,
    h.is_live,
    h.last_year,
    h.active_days,
    h.features,
    h.coefficient,
    h.health,
    CASE
      WHEN h.customer_id IS NULL
      THEN 30
      ELSE CAST(ROUND(0.7::DOUBLE * h.health) AS INTEGER)
      + CASE WHEN NOT h.is_live THEN 0 WHEN h.plan = 'Enterprise' THEN 20 WHEN h.plan = 'Team' THEN 10 ELSE 4 END
      + CASE WHEN t.waiting_days >= 7 THEN 10 WHEN t.waiting_days >= 3 THEN 5 ELSE 0 END
    END AS score
  FROM tickets AS t
  LEFT JOIN mart.account_health AS h
    ON h.customer_id = t.customer_id
)
SELECT
  ticket_id,
  subject,
  status,
  is_open,
  customer_id,
  account,
  plan,
  last_year,
  coefficient,
  health,
  waiting_days,
  score,
  CASE WHEN score >= 70 THEN 'urgent' WHEN score >= 50 THEN 'high' WHEN score >= 30 THEN 'normal' ELSE 'low' END AS priority,
  CASE
    WHEN account IS NULL AND customer_id IS NULL
    THEN 'No customer of ours is known by this address'
    ELSE CONCAT_WS(
      ' · ',
      CASE
        WHEN plan IS NULL
        THEN 'No plan'
        WHEN state = 'active'
        THEN plan
        WHEN state = 'canceled'
        THEN plan || ' plan cancelled'
        ELSE plan || ' (' || REPLACE(state, '_', ' ') || ')'
      END,
      CASE
        WHEN last_year < 5
        THEN 'paid nothing last year'
        WHEN last_year < 1000
        THEN '$' || CAST(CAST(ROUND(last_year, -1) AS BIGINT) AS TEXT) || ' last year'
        ELSE '$' || FORMAT('{:,}', CAST(ROUND(last_year, -2) AS BIGINT)) || ' last year'
      END,
      CASE
        WHEN active_days = 0
        THEN 'not active this week'
        ELSE 'active ' || CAST(active_days AS TEXT) || ' of 7 days, ' || CAST(features AS TEXT)
        || CASE WHEN features = 1 THEN ' feature' ELSE ' features' END
      END,
      STRFTIME(opened_on, 'open since %-d %b')
    )
  END AS reason
FROM scored
