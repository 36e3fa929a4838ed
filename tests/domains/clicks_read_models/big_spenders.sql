-- Visitors by what they have spent: one row a visitor.
SELECT visitor, count(*) AS sessions, sum(spent) AS spent, max(moved_at) AS last_at
FROM sessions GROUP BY visitor
