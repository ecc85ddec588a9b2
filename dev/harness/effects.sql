-- The effects that are in the database. Each row is an effect, the name under which it is found, and how often it is there.
-- Of access, that of orders: the shop's subscriptions give access by themselves, whatever the traffic.

SELECT 'payment_failures', event_id, count(*)
FROM payment_failures
GROUP BY 1, 2

UNION ALL
SELECT kind || CASE WHEN id LIKE '%last_' THEN '_last' ELSE '' END || ' notices', coalesce(email, params ->> 'invoice', params ->> 'document'), count(*)
FROM notifications
WHERE kind || ' notices' IN :notices AND NOT (state = 'obsolete' AND email IS NULL)
GROUP BY 1, 2

UNION ALL
SELECT 'owed notices', id, count(*)
FROM notifications
WHERE state = 'owed'
GROUP BY 1, 2

UNION ALL
SELECT CASE state WHEN 'paid' THEN 'paid retries' ELSE state || ' retry ' || number END, invoice, count(*)
FROM payment_retries
WHERE state <> 'cancelled' -- it was not made
GROUP BY 1, 2

UNION ALL
SELECT 'past due by this event', invoices.seen_event, count(*)
FROM invoices JOIN subscriptions ON subscriptions.id = invoices.subscription
WHERE subscriptions.status = 'past_due'
GROUP BY 1, 2

UNION ALL
SELECT status || ' subscriptions', invoice, count(*)
FROM subscriptions JOIN payment_failures ON payment_failures.subscription = subscriptions.id
WHERE status IN ('active', 'suspended')
GROUP BY 1, 2

UNION ALL
SELECT state || ' orders', session_id, count(*)
FROM orders
GROUP BY 1, 2

UNION ALL
SELECT 'changes of access', source, changes
FROM entitlements
WHERE changes > 0 AND substr(source, 1, 4) <> 'sub_'

UNION ALL
SELECT 'entitlements', source, count(*)
FROM entitlements
WHERE revoked_at IS NULL AND substr(source, 1, 4) <> 'sub_'
GROUP BY 1, 2

UNION ALL
SELECT 'documents', document_id, count(*)
FROM documents
GROUP BY 1, 2

UNION ALL
SELECT CASE WHEN status = 'failed' AND error <> :error THEN 'otherwise failed' ELSE status END || ' documents',
    document_id, count(*)
FROM documents
WHERE status = 'completed' OR (status = 'failed' AND error IS NOT NULL)
GROUP BY 1, 2

UNION ALL
SELECT 'effects', job_id, count(*)
FROM effects
GROUP BY 1, 2
