-- What we did for one customer: when, and a line of text.

SELECT done_at, 'retry ' || payment_retries.number || ': ' || payment_retries.state || coalesce(' (' || decline_code || ')', '')
FROM payment_retries JOIN invoices ON id = invoice
WHERE subscription = :subscription AND done_at IS NOT NULL

UNION ALL
SELECT done_at, 'grace period over: subscription suspended'
FROM payment_graces JOIN invoices ON id = invoice
WHERE subscription = :subscription AND payment_graces.state = 'over'

UNION ALL
SELECT created_at, type || coalesce(': ' || (data ->> 'reason'), '')
FROM app_messages
WHERE customer = :customer
